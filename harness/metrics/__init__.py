"""Metrics see scores and truth, never a model. evaluate.py is the way in; one file holds one idea."""
