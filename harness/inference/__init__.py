"""Predictions of a trained model for new images.

find.py        a run's folder, or a sweep's folder -> the saved model of one run
model.py       load_model and Model.predict, for anomaly detection
classifier.py  load_classifier and Classifier.predict, for classification
result.py      the prediction of a detector for one image; class_result.py that of a classifier
exported.py    a file that `export` wrote, for detection; exported_classifier.py for classification
runtimes.py    ONNX Runtime, OpenVINO and TorchScript
inputs.py      files, folders and patterns -> paths of images
predict.py     the command `predict`: images -> rows and pictures
rows.py        the columns of the rows
pictures.py    overlay, map and outline of one image, as files
"""

from harness.inference.class_result import ClassResult
from harness.inference.classifier import Classifier, load_classifier
from harness.inference.model import Model, load_model
from harness.inference.result import Result

__all__ = ["ClassResult", "Classifier", "Model", "Result", "load_classifier", "load_model"]
