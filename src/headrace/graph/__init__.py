"""Waist 1: the model as an ONNX graph, held in onnx_ir."""
