"""The results of a sweep on disk.

store.py         the result folder
record.py        RunRecord: the content of record.json
schemas.py       schemas of record.json, details.json and search.json
scores.py        scores.csv
gallery.py       pictures of single test images
best_models.py   `save_models: best`
provenance.py    versions, code and hardware of a run
"""
