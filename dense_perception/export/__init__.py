"""Network and card to ONNX, quantisation, parity."""
