"""NVIDIA GPUs: TensorRT engines, and PyTorch programs with TensorRT inside."""
