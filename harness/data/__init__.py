"""Kinds of data: each file turns a folder on disk into the same `Split` (see base.py)."""
