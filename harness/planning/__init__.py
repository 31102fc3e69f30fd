"""The plan of a sweep.

plan.py      SweepConfig -> specs of all runs
prepare.py   data, identities and earlier results of the runs; checks by the backends
skip.py      runs without weights
"""
