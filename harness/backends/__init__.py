"""Backends train a model for each spec and return its predictions; base.py is their contract."""
