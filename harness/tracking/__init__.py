"""Finished runs -> experiment trackers such as MLflow, beside the result folder.

base.py          the contract of a tracker, and what it gets of a run
content.py       a record and its run folder -> what a tracker gets
logged.py        tracking.json: which tracker has which run
session.py       all trackers of a sweep: each run logged once, failures told once
mlflow.py        MLflow
wandb.py         Weights & Biases
tensorboard.py   TensorBoard
"""
