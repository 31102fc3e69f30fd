"""Kinds of data: each module lists the images of a folder on disk; split.py makes a `Split` from any kind."""
