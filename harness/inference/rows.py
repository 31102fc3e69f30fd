"""The columns of the rows that `predict` writes: a path, what the task says of it, and how it was read."""

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
    "seconds",
    "reading",
    "error",
)
