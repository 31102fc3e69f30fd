"""Images of a user on the page of a run: their predictions, each computed once, and the same rows as a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from harness.demo.fields import image_field
from harness.demo.show import problems
from harness.demo.uploads import Upload
from harness.inference.classifier import Classifier
from harness.inference.model import Model
from harness.inference.predict import Row, predict_reading, rows_csv

FILE = "predictions.csv"


def dropped_images(model: Model | Classifier, key: str) -> list[tuple[Upload, Row]]:
    """Show the field for images, predict the images in it, and offer their rows as CSV.

    Args:
        model: predicts the images.
        key: of the run; another key predicts anew.

    Returns:
        The images with a prediction. An image with an error becomes a message.
    """
    uploads = image_field("Drop images", "images")
    with cached("predicted") as row_of:
        rows = [row_of(f"{key} {upload.digest}", partial(predicted, model, upload)) for upload in uploads]
    offer_csv(model, rows, "images")
    return with_result(uploads, rows)


def predicted(model: Model | Classifier, upload: Upload) -> Row:
    """The row of an uploaded image.

    Args:
        model: predicts the image.
        upload: the image.
    """
    return predict_reading(model, Path(upload.name), upload.reading)


def with_result(uploads: Sequence[Upload], rows: Sequence[Row]) -> list[tuple[Upload, Row]]:
    """The images with a prediction. An image with an error becomes a message.

    Args:
        uploads: the images.
        rows: the row of each image.
    """
    problems([f"{row.path}: {row.error}" for row in rows if row.error])
    return [(upload, row) for upload, row in zip(uploads, rows, strict=True) if row.result is not None]


def offer_csv(model: Model | Classifier, rows: Sequence[Row], key: str) -> None:
    """Show a button that saves rows as a CSV file, if there are any.

    Args:
        model: the model of the rows.
        rows: a row for each image.
        key: of the button, different for each one on a page.
    """
    if not rows:
        return
    st.download_button(
        "Results as CSV",
        rows_csv(model, rows),
        FILE,
        "text/csv",
        key=f"csv-{key}",
        help="A row for each image, with the columns of the command `predict`.",
        # A click must not run the page again.
        on_click="ignore",
    )


@contextmanager
def cached(name: str) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """Cache results by key, so that a slider runs the page again, but not the network. Unused results are dropped."""
    previous: dict[str, Any] = st.session_state.setdefault(name, {})
    current: dict[str, Any] = {}

    def result(key: str, compute: Callable[[], Any]) -> Any:
        current[key] = previous[key] if key in previous else compute()
        return current[key]

    yield result
    st.session_state[name] = current
