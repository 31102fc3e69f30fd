"""Macro F1 and time of the default recipe, beside a plain script with timm's defaults, on four small tasks.

Both train the same network from the same weights, on the same images, for the same epochs. They run in turn. Both
validate after each epoch, and nothing chooses an epoch. The plain script trains on whole batches only, as timm does.
Trials on the second and the third task chose the values of the recipe `small`. The fourth is only reported.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.inputs import require
from benchmarks.recipe_plain import train_plain
from benchmarks.recipe_tasks import TASKS, Task
from harness.backbones.resolve import Weights, resolve
from harness.backends.supervised.fold_data import FoldData
from harness.backends.supervised.network import build
from harness.backends.supervised.recipes import AUTO, RECIPES, chosen
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.training import predict_all, train
from harness.backends.supervised.tta import PLAIN
from harness.common.devices import pick
from harness.metrics.classification import macro_f1_of_fold

BACKBONE, BATCH, EVAL_BATCH = "tf_efficientnet_lite0", 16, 64
EPOCHS, SEEDS = 8, (1, 2, 3)
MOST_TIME = 1.1  # times the plain script's


def measure(quick: bool) -> dict[str, Any]:
    """Macro F1 and seconds of both on each task."""
    require()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    weights = resolve("auto", BACKBONE)
    epochs, seeds = (2, SEEDS[:1]) if quick else (EPOCHS, SEEDS)
    tasks = []
    for make in TASKS[:1] if quick else TASKS:
        task = make()
        pairs = [(_plain(task, weights, epochs, seed), _ours(task, weights, epochs, seed)) for seed in seeds]
        tasks.append(_row(task, epochs, pairs))
    return {"backbone": BACKBONE, "epochs": epochs, "seeds": len(seeds), "most_time": MOST_TIME, "tasks": tasks}


def _row(task: Task, epochs: int, pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> dict[str, Any]:
    plain, ours = [[pair[side][0] for pair in pairs] for side in (0, 1)]
    time = statistics.median(ours / plain for (_, plain), (_, ours) in pairs)
    return {
        "task": task.name,
        "side": int(task.pixels.shape[-1]),
        "images": min(len(train) for train, _ in task.folds),
        "labels": int(task.targets.max()) + 1,
        "recipe": _recipe(task, epochs),
        "plain_macro_F1": [round(value, 3) for value in plain],
        "ours_macro_F1": [round(value, 3) for value in ours],
        "plain_mean": round(statistics.mean(plain), 3),
        "ours_mean": round(statistics.mean(ours), 3),
        "time_ratio": round(time, 2),
        "time_ratio_per_image": round(time * _whole_batches(task), 2),
    }


def _whole_batches(task: Task) -> float:
    """The share of the training images in whole batches: timm leaves the others out of an epoch."""
    sizes = [len(train) for train, _ in task.folds]
    return sum(size // BATCH * BATCH for size in sizes) / sum(sizes)


def _recipe(task: Task, epochs: int) -> str:
    return chosen(AUTO, min(len(train) for train, _ in task.folds), epochs)


def _score(task: Task, predicted: Sequence[npt.NDArray[np.int64]]) -> float:
    tested = np.concatenate([np.asarray(test) for _, test in task.folds])
    return macro_f1_of_fold(task.targets[tested], np.concatenate(predicted))


def _plain(task: Task, weights: Weights, epochs: int, seed: int) -> tuple[float, float]:
    start = perf_counter()
    predicted = [
        train_plain(
            BACKBONE, weights, task.pixels, task.targets, list(train), list(test),
            optimiser="adamw", epochs=epochs, batch=BATCH, seed=seed,
        )
        for train, test in task.folds
    ]  # fmt: skip
    return _score(task, predicted), perf_counter() - start


def _ours(task: Task, weights: Weights, epochs: int, seed: int) -> tuple[float, float]:
    start = perf_counter()
    side = task.pixels.shape[-1]
    settings = replace(Settings((side, side)), **RECIPES[_recipe(task, epochs)])
    predicted = []
    for learn, test in task.folds:
        data = FoldData(
            pixels=task.pixels, targets=task.targets, train_indices=list(learn), val_indices=list(test),
            outputs=int(task.targets.max()) + 1, with_margin=None, batch_size=BATCH, eval_batch_size=EVAL_BATCH,
            num_workers=0, seed=seed,
        )  # fmt: skip
        network = build(BACKBONE, data.outputs, settings, weights, seed)
        with tempfile.TemporaryDirectory() as folder:
            trainer = {"max_epochs": epochs}
            load = partial(replace, data)
            trained = train(network, settings, load, Path(folder), pick("cpu"), trainer, None, lambda text: None)
        probabilities = predict_all(trained.network, task.pixels, list(test), PLAIN, EVAL_BATCH, pick("cpu"))
        predicted.append(probabilities.argmax(axis=1))
    return _score(task, predicted), perf_counter() - start
