"""A run's model as one file for other programs. The file is checked against the original model before it is kept."""
