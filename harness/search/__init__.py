"""A search instead of a grid: settings proposed one after another, from what the ones before came to.

space.py     the `search:` block: what varies, and how
points.py    a point of the space -> runs, and back
history.py   what has been tried, and what came of it; search.json
proposer.py  Optuna's TPE behind Ray Tune's interface, which knows what earlier calls tried
halving.py   which trainings look hopeless
trial.py     a trial on a node: its runs made, looked at in between
book.py      trials begun and ended, their runs put in place
tuner.py     Ray Tune at work
verb.py      `tune`, and what `plan` says of a search
"""
