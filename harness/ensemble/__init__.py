"""Submissions of finished runs, and ensembles of classifications.

runs.py     finished runs, with checks that they fit together
submit.py   labels of the test images, in the form of a competition
recipe.py   the YAML file of a blend
blend.py    an average of runs, then rules in order, each step with macro F1 before and after
write.py    a blend as a run of a result folder
fit.py      weights of runs, fitted on out-of-fold predictions
average.py  networks averaged weight by weight

map_submission.py     maps of the images without a label, for the format of a data set
submission_format.py  what a format offers, and what images lack of its data set
submission_maps.py    maps as 16-bit floats
mvtec_ad2.py          the format of MVTec AD 2
archive.py            an archive, written in one pass and checked
"""
