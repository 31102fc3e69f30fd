"""A search instead of a grid: a sampler proposes each configuration from the results of earlier ones.

holdout.py   the test images that no trial sees
points.py    a point of the space -> runs, and a run -> its point
history.py   the trials of a search; search.json
sampler.py   Optuna's TPE behind Ray Tune's interface, with the trials of earlier calls
asha.py      ASHA: which trainings stop early
trial.py     a trial on a node: its runs, with intermediate evaluations
session.py   the trials in progress; their runs are committed
tuner.py     one call of `tune` with Ray Tune
"""
