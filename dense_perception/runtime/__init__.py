"""Frame in, Prediction out: the corridor."""
