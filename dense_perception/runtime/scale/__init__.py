"""Relative depth to metres: robust fits to what is known, followed over time."""
