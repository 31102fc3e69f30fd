"""The training of Dinomaly beside anomalib's: the same network, images, batches and steps."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import HAZELNUT, require, training_images
from harness.detectors import Dinomaly
from harness.detectors.stages import Stages

# The smallest network whose name anomalib's Dinomaly takes, with random weights: this measures times only.
BACKBONE, SIZE, BATCH = "vit_small_patch14_dinov2", 98, 8
# Pairs of measurements by number of steps.
REPEATS = {5: 3, 50: 2, 200: 1}
GRID_STEPS = 20
DROPOUTS = (0.2, 0.4)


def dinomaly(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of steps: median seconds of a fit in the harness and of anomalib's module.

    Both are measured in turn, in one process with one thread. The load is that of all programs on the machine.

    Args:
        quick: 5 steps and one pair.
    """
    require()
    _single_thread()
    _ours(1)
    _theirs(1)
    rows = []
    for steps, repeats in ({5: 1} if quick else REPEATS).items():
        pairs = [(_ours(steps), _theirs(steps)) for _ in range(repeats)]
        ours, theirs = (sorted(seconds)[len(seconds) // 2] for seconds in zip(*pairs, strict=True))
        rows.append({
            "steps": steps,
            "pairs": repeats,
            "ours_seconds": round(ours, 1),
            "anomalib_seconds": round(theirs, 1),
            "times_as_long": round(theirs / ours, 2),
            "load": round(os.getloadavg()[0], 1),
        })  # fmt: skip
    return rows


def dinomaly_grid(quick: bool) -> list[dict[str, Any]]:
    """A row: median seconds of two decoders from one pass of the network, and of one decoder alone.

    Args:
        quick: fewer steps and one repeat.
    """
    require()
    _single_thread()
    steps = 2 if quick else GRID_STEPS
    group = [_detector(steps, dropout) for dropout in DROPOUTS]
    pairs = [(_seconds(group), _seconds(group[:1])) for _ in range(1 if quick else 3)]
    features = [_seconds(group[:1], only_features=True) for _ in range(len(pairs))]
    two, one = (sorted(seconds)[len(seconds) // 2] for seconds in zip(*pairs, strict=True))
    alone = sorted(features)[len(features) // 2]
    return [
        {
            "steps": steps,
            "two_decoders_seconds": round(two, 1),
            "one_decoder_seconds": round(one, 1),
            "ratio": round(two / one, 2),
            "features_seconds": round(alone, 1),
            "load": round(os.getloadavg()[0], 1),
        }
    ]


def _single_thread() -> None:
    torch.set_num_threads(1)


def _detector(steps: int, dropout: float = DROPOUTS[0]) -> Dinomaly:
    return Dinomaly(BACKBONE, image_size=SIZE, weights="random", device="cpu", progress=False, max_steps=steps,
                    train_batch_size=BATCH, bottleneck_dropout=dropout)  # fmt: skip


def _ours(steps: int) -> float:
    detector, images = _detector(steps), training_images()
    begin = time.perf_counter()
    detector.fit(images)
    return time.perf_counter() - begin


def _seconds(group: list[Dinomaly], only_features: bool = False) -> float:
    """Seconds of the stages of a group."""
    context = group[0].stage_context({"train": training_images()}, _ignore, None)
    roots = [one.features("train", group) if only_features else one.fit_stage(group) for one in group]
    stages = Stages(roots, context)
    begin = time.perf_counter()
    for root in roots:
        stages.value(root)
        stages.release(root)
    return time.perf_counter() - begin


def _theirs(steps: int) -> float:
    from anomalib.data import Folder
    from anomalib.models import Dinomaly as Theirs
    from lightning.pytorch import Trainer

    from harness.backbones.inject import backbone_weights

    with backbone_weights("random"), contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as root:
        begin = time.perf_counter()
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
        return time.perf_counter() - begin


def _ignore(text: str) -> None:
    del text
