"""Readers: each maps names and attributes of one format to an ONNX graph and decides nothing."""
