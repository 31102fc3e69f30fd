"""The columns of the rows that `predict` writes."""

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
