"""The columns of the rows that `predict` writes: the path, the prediction of the task, notes on reading, the error."""

from __future__ import annotations

COLUMNS = (
    "path",
    "score",
    "predicted_label",
    "threshold",
    "seconds",
    "normalized_score",
    "reading",
    "error",
)
CLASS_COLUMNS = (
    "path",
    "predicted_label",
    "probability",
    "second_label",
    "second_probability",
    "answer",
    "label_set",
    "raw_probability",
    "seconds",
    "reading",
    "error",
)
