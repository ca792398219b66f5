"""PyTorch networks, readable beside the papers."""
