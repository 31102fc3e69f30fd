"""The config of a sweep.

sweep.py       a YAML file -> SweepConfig
yaml_file.py   a YAML file and overrides, before the validation
stored.py      config.yaml of a result folder
threshold.py   the `threshold:` block
grid.py        the `grid:` block
search.py      the `search:` block
axes.py        axes with a special meaning
spec.py        RunSpec: the inputs of one run, and its identity
revisions.py   changes of the results between versions
first.py       a first config for a folder of images
"""
