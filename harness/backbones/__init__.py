"""Backbone weights, resolved in the open.

local.py     which file on this machine a policy names (imports nothing heavy)
resolve.py   policy -> a file, or random; the hub's cache and the hub
state.py     a file -> tensors that fit a backbone, whole or not at all
inject.py    makes every timm or torchvision backbone that is built take them
"""
