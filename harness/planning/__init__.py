"""The plan of a sweep.

plan.py      SweepConfig -> specs of all runs
specs.py     one point of the grid -> the spec of its run
prepare.py   data, identities and earlier results of the runs
check.py     checks by the backends before the first run
threshold.py the method of the thresholds, where the config names none
skip.py      runs without weights
"""
