"""The figures of report.html as files, drawn with matplotlib from the data of the page.

write.py            all figures of a result folder -> files
detection.py        all figures of a detection
canvas.py           size, colours and legend of every figure
sweep.py            the configurations of a detection: quality and cost, an axis, categories, ranks
run.py              one run of a detection: curves and scores
search.py           the trials of a search
classification.py   one configuration of a classification: confusions, labels, images
calibration.py      one configuration of a classification: probabilities, answers, epochs
"""
