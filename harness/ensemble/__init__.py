"""Several classifications together.

submit.py   the images to be named, in the form that a competition wants
recipe.py   a blend's YAML
blend.py    runs averaged, then rules in order, each with macro F1 before and after
fit.py      weights found on out-of-fold predictions
average.py  weights of networks averaged
"""
