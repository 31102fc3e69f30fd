"""A trained model at work.

find.py      a run's folder, or the best run of a sweep's
model.py     load_model and Model.predict
classifier.py  the same of a classification
result.py    what is said of one image
exported.py  a file that `export` wrote, by its runtime
inputs.py    files, folders, patterns -> images
predict.py   the command: images -> rows and pictures
rows.py      the columns of the rows
pictures.py  overlay, map and outline of one image, as files
"""

from harness.inference.classifier import Classifier, ClassResult, load_classifier
from harness.inference.model import Model, load_model
from harness.inference.result import Result

__all__ = ["ClassResult", "Classifier", "Model", "Result", "load_classifier", "load_model"]
