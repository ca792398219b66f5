"""From a Frame to a Prediction, live and on recordings."""
