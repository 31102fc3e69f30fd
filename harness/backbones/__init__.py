"""Backbones of timm and torchvision, and their weights.

local.py           weights policy -> a file on this machine (imports nothing heavy)
packages.py        Python packages that contain weights
resolve.py         weights policy -> a file, the hub, or random weights
state.py           weights file -> tensors that fit a network completely
inject.py          loads these weights into every backbone that timm or torchvision builds
normalization.py   mean and standard deviation of a network's input
tags.py            timm's trainings of each network, read from its source (imports nothing heavy)
networks.py        timm's networks by name
layers.py          feature layers of timm's networks
"""
