"""The results of a sweep on disk.

store.py         the result folder
run_folder.py    the record and the model of one run
record.py        RunRecord: the content of record.json
schemas.py       schemas of record.json, details.json and search.json
scores.py        scores.csv and calibration.csv
thresholds.py    threshold.json: a threshold that a user changed after the run
gallery.py       pictures of single test images
best_models.py   `save_models: best`
provenance.py    versions, code and hardware of a run
"""
