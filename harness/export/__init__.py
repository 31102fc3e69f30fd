"""A run's model as one file for other programs. The file is checked against the original model before it is kept.

write.py           the file and its JSON
check.py           images alone and in batches, for the check
detection.py       facts and check of a detector
classification.py  facts and check of a classification
"""
