"""Images that a user drops on the page, and their predictions, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import streamlit as st

from harness.data.images import Reading
from harness.demo.show import problems
from harness.demo.uploads import LARGEST_FILE, TYPES, Upload, decode

R = TypeVar("R")


def dropped_images(predict: Callable[[Reading], R], key: str) -> list[tuple[Upload, R]]:
    """Show the field for images, and predict the images in it. An image with an error becomes a message.

    Args:
        predict: predicts an image.
        key: of the run; another key predicts anew.
    """
    files = st.file_uploader(
        f"Drop images (up to {LARGEST_FILE} MB each; they stay on this machine)",
        type=TYPES,
        accept_multiple_files=True,
        key="images",
    )
    uploads, refusals = decode(files or [], st.session_state.setdefault("decoded", {}))
    problems(refusals)
    images = []
    with cached("predicted") as result_of:
        for upload in uploads:
            result = result_of(f"{key} {upload.digest}", partial(attempt, predict, upload.reading))
            if isinstance(result, str):
                problems([f"{upload.name}: {result}"])
            else:
                images.append((upload, result))
    return images


def attempt(predict: Callable[[Reading], R], reading: Reading) -> R | str:
    """The prediction, or the message of its error.

    Args:
        predict: predicts an image.
        reading: the image as read.
    """
    try:
        return predict(reading)
    # Torch may run out of memory, or an image may be too small. The page shows the message and goes on.
    except Exception as failure:  # noqa: BLE001
        return str(failure)


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
