"""Pictures of confused images, and beside them the pixels that made the network predict the wrong label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.backends.base import Outcome
from harness.backends.scorers import LabelScorer
from harness.data.images import RGB, read_image
from harness.predictions.classification import ClassPredictions
from harness.predictions.drawing import at_image_size, overlay

FOLDER = "examples"
SIDE = 160  # pixels of an example's longer side


def draw_examples(
    stage: Path,
    pairs: Sequence[dict[str, Any]],
    paths: Mapping[str, Path],
    predictions: ClassPredictions,
    outcome: Outcome | None,
) -> str:
    """Write small pictures of the examples under examples/, and add their file names to the pairs.

    The network of an image's fold makes the map, so it was not trained on the image.

    Args:
        stage: the run's folder.
        pairs: see `details`; each example gets the key `file`, and with a map the key `cam`.
        paths: files of the images, by name; an image without a file gets no picture.
        predictions: of the run.
        outcome: the trained networks; None for a run without networks of its own.

    Returns:
        Why there are no maps; empty where there are.
    """
    (stage / FOLDER).mkdir()
    trained = outcome.scorer() if outcome is not None and outcome.scorer is not None else nullcontext()
    folds = dict(zip(predictions.names, predictions.folds.tolist(), strict=True))
    with trained as scorer:
        note = "the run has no network of its own" if scorer is None else scorer.map_note
        for number, pair in enumerate(pairs):
            label = predictions.labels.index(pair["said"])
            for place, example in enumerate(pair["examples"]):
                path = paths.get(example["name"])
                if path is None or not path.is_file():
                    continue
                image = read_image(path)
                example["file"] = f"{FOLDER}/{number:02}-{place}.jpg"
                small = _save(image, stage / example["file"])
                if scorer is not None and not note:
                    example["cam"] = f"{FOLDER}/{number:02}-{place}-cam.jpg"
                    _save(_explained(scorer, image, small, label, folds[example["name"]]), stage / example["cam"])
    return note


def _save(image: RGB, file: Path) -> RGB:
    """Write an image of at most `SIDE` pixels, and return its pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    picture.save(file, quality=85)
    return np.asarray(picture)


def _explained(scorer: LabelScorer, image: RGB, small: RGB, label: int, fold: int) -> RGB:
    """The small image under the map of a label."""
    maps = scorer.grad_cam([scorer.prepare(image)], [label], fold)
    assert maps is not None
    return overlay(small, at_image_size(maps[0], (small.shape[0], small.shape[1]), None), (0, 1))
