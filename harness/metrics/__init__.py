"""Metrics see scores and truth, never a model. evaluate.py is the way in; one file holds one idea.

What meets what, and what counts as anomalous, is fixed in harness/predictions/detection.py, for every backend alike.
"""
