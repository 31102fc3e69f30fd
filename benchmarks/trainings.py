"""The training of Dinomaly beside anomalib's: the same network, images, batches and steps."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import HAZELNUT, require, training_images
from harness.detectors import Dinomaly
from harness.detectors.group import Group
from harness.detectors.stages import Stages

# The smallest network whose name anomalib's Dinomaly takes, with random weights: this measures times only.
BACKBONE, SIZE, BATCH = "vit_small_patch14_dinov2", 98, 8
# Pairs of measurements by number of steps.
REPEATS = {5: 3, 50: 2, 200: 1}
GRID_STEPS, REPEATS_OF_GRID = 20, 3
DROPOUTS = (0.2, 0.4)


def dinomaly(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of steps: median seconds of a fit in the harness and of anomalib's module.

    Both are measured in turn, in one process with one thread. Seconds of the processor depend less on other programs
    than seconds of the clock, so the ratio is that of the former.

    Args:
        quick: 5 steps and one pair.
    """
    require()
    torch.set_num_threads(1)
    _ours(1)
    _theirs(1)
    rows = []
    for steps, repeats in ({5: 1} if quick else REPEATS).items():
        pairs = [(_seconds(partial(_ours, steps)), _seconds(partial(_theirs, steps))) for _ in range(repeats)]
        ours, theirs = (_median(times) for times in zip(*pairs, strict=True))
        rows.append({
            "steps": steps,
            "pairs": repeats,
            "ours_seconds": round(ours[0], 1),
            "anomalib_seconds": round(theirs[0], 1),
            "ours_processor_seconds": round(ours[1], 1),
            "anomalib_processor_seconds": round(theirs[1], 1),
            "times_as_long": round(theirs[1] / ours[1], 2),
            "load": round(os.getloadavg()[0], 1),
        })  # fmt: skip
    return rows


def dinomaly_grid(quick: bool) -> list[dict[str, Any]]:
    """A row: median processor seconds of two decoders from one pass of the network, and of one decoder alone.

    Args:
        quick: fewer steps and one repeat.
    """
    require()
    torch.set_num_threads(1)
    steps, repeats = (2, 1) if quick else (GRID_STEPS, REPEATS_OF_GRID)
    group = [_detector(steps, dropout) for dropout in DROPOUTS]
    triples = [
        (
            _seconds(partial(_stages, group)),
            _seconds(partial(_stages, group[:1])),
            _seconds(partial(_stages, group[:1], only_features=True)),
        )
        for _ in range(repeats)
    ]
    two, one, features = (_median(times)[1] for times in zip(*triples, strict=True))
    return [
        {
            "steps": steps,
            "repeats": repeats,
            "two_decoders_seconds": round(two, 1),
            "one_decoder_seconds": round(one, 1),
            "ratio": round(two / one, 2),
            "features_seconds": round(features, 1),
            "load": round(os.getloadavg()[0], 1),
        }
    ]


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def _median(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    clock, processor = (sorted(seconds)[len(seconds) // 2] for seconds in zip(*times, strict=True))
    return clock, processor


def _detector(steps: int, dropout: float = DROPOUTS[0]) -> Dinomaly:
    return Dinomaly(BACKBONE, image_size=SIZE, weights="random", device="cpu", progress=False, max_steps=steps,
                    train_batch_size=BATCH, bottleneck_dropout=dropout)  # fmt: skip


def _ours(steps: int) -> None:
    _detector(steps).fit(training_images())


def _stages(group: list[Dinomaly], only_features: bool = False) -> None:
    """Compute the stages of a group."""
    context = group[0].stage_context({"train": training_images()}, _ignore, None)
    shared = Group(group)
    roots = [one.features("train", shared) if only_features else one.fit_stage(shared) for one in group]
    stages = Stages(roots, context)
    for root in roots:
        stages.value(root)
        stages.release(root)


def _theirs(steps: int) -> None:
    from anomalib.data import Folder
    from anomalib.models import Dinomaly as Theirs
    from lightning.pytorch import Trainer

    from harness.backbones.inject import backbone_weights

    with backbone_weights("random"), contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as root:
        processor = Theirs.configure_pre_processor((SIZE, SIZE), crop_size=SIZE)
        model = Theirs(encoder_name=BACKBONE, pre_processor=processor, visualizer=False, evaluator=False)
        data = Folder("hazelnut", root=HAZELNUT, normal_dir="train/good", train_batch_size=BATCH, num_workers=0,
                      test_split_mode="none", val_split_mode="none")  # fmt: skip
        # anomalib's Engine would also write a checkpoint after each epoch, which is no part of the training.
        trainer = Trainer(
            max_steps=steps,
            default_root_dir=Path(root),
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            **model.trainer_arguments,
        )
        trainer.fit(model, datamodule=data)


def _ignore(text: str) -> None:
    del text
