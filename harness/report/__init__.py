"""Reports read the result folder and nothing else; nothing here imports Torch."""
