"""A run's model as one file for other programs, checked against the original before it is handed over."""
