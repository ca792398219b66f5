"""Speed and agreement of models and nodes, measured in real processes."""
