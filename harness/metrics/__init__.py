"""Metrics of scores and labels; no metric depends on a model.

evaluate.py           entry point: predictions -> thresholds, metrics, intervals, metrics of each type of defect
ranking.py            counts of positives and negatives at each threshold, the input of all metrics of a detection
auroc.py              area under the ROC curve
precision_recall.py   AP, F1, precision, recall, false positives and false negatives
fpr95.py              false positive rate at a true positive rate of 95%
aupro.py              area under the per-region overlap curve
spro.py               area under the saturated per-region overlap curve, for data with saturation
pixel_ranking.py      ranking of all pixels of a test set, at the size of the protocol
extra.py              metrics of `extra_metrics`, and their input
pimo.py               area under the per-image overlap curve
seg_f1.py             F1 of pixels as in MVTec AD 2
false_area.py         false positive area of normal images
region_recall.py      precision and recall of regions, recall by the area of the defect
regions.py            anomalous regions of masks
curves.py             points of the curves for plots
thresholds.py         thresholds of a run, computed without the test labels
false_alarms.py       threshold for a rate of false alarms
order.py              quantiles of arrays larger than the memory
validation.py         labelled images taken out of the test set: validation set, held-out images of a search
intervals.py          95% confidence intervals by a bootstrap
delong.py             test of the difference between two AUROCs
selection.py          estimate of the best trial's metric without selection bias
classification.py     metrics of a classification

harness/predictions/detection.py defines the order of the predictions and the anomalous class for every backend.
"""
