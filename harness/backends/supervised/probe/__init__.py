"""A probe: a simple classifier on the features of a frozen network. Its fit takes seconds.

settings.py  options of a probe and their defaults
checks.py    problems of specs that need no features
features.py  features of all images, computed once for all runs of a process
heads.py     the classifiers
run.py       one run: fits all folds and merges their probabilities
scorer.py    saving, loading and prediction of a probe
"""
