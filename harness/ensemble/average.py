"""Networks averaged weight by weight (as model soups are; Wortsman et al., 2022), and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.backends.supervised.classifier import Member, SupervisedScorer
from harness.common.errors import StoreError
from harness.data.images import read_image
from harness.ensemble.runs import ClassRun, same_images
from harness.inference.classifier import classifier_of
from harness.inference.find import KEEP, SavedRun
from harness.predictions.classification import ClassPredictions, Probabilities
from harness.results.store import model_in

BATCH = 32


def averaged(runs: Sequence[ClassRun], device: str, tell: Callable[[str], None]) -> tuple[ClassPredictions, bool]:
    """Predictions of averaged networks.

    Several runs are averaged fold by fold, so that no image is judged by a network that saw it. Of one run the networks
    of all folds are averaged into one: it saw every image, and there are no figures out of fold.

    Args:
        runs: of one architecture, their models kept.
        device: auto, cpu, cuda, cuda:N or mps.
        tell: what goes on.

    Returns:
        Predictions, and whether they are out of fold; else those of the run stand there.

    Raises:
        StoreError: a model was not kept, or architectures, folds or images differ.
    """
    same_images(runs)
    namers = [_scorer(run, device) for run in runs]
    first, found = namers[0], runs[0].predictions
    for run, other in zip(runs[1:], namers[1:], strict=True):
        _same_networks(run, first, other)
        if not np.array_equal(run.predictions.folds, found.folds):
            raise StoreError(f"{run.folder}: other folds than {runs[0].folder} found; expected the same split_seed.")
    if len(runs) == 1:
        members = [
            _mean([m for m in first.members if m.part == part]) for part in dict.fromkeys(m.part for m in first.members)
        ]
        tell("naming test images with the average of all folds")
        of_test = _say(_with(first, members), runs[0], found.test_names)
        return replace(found, test_by_fold=of_test[None]), False
    members = [_mean(same) for same in zip(*(scorer.members for scorer in namers), strict=True)]
    own, tests = found.probabilities.copy(), []
    for fold in dict.fromkeys(member.fold for member in members):
        tell(f"naming images with the average of fold {fold}")
        scorer = _with(first, [member for member in members if member.fold == fold])
        judged = np.flatnonzero(found.folds == fold)
        own[judged] = _say(scorer, runs[0], [found.names[i] for i in judged])
        tests.append(_say(scorer, runs[0], found.test_names))
    return replace(found, probabilities=own, plain=None, test_by_fold=np.stack(tests)), True


def _scorer(run: ClassRun, device: str) -> SupervisedScorer:
    file = model_in(run.folder)
    if file is None:
        raise StoreError(f"{run.folder}: the model of this run was not kept. {KEEP}")
    return classifier_of(SavedRun(run.folder, run.record, file), device).scorer


def _same_networks(run: ClassRun, first: SupervisedScorer, other: SupervisedScorer) -> None:
    def shape(scorer: SupervisedScorer) -> object:
        own = scorer.settings
        head = (own.image_size, own.head_activation, own.loss == "arcface" and own.arcface_scale)
        network = scorer.members[0].network
        fed = network.mean.flatten().tolist(), network.std.flatten().tolist()
        return scorer.model, scorer.backbone, head, fed, [(m.fold, m.part, m.own) for m in scorer.members]

    sizes = [{k: v.shape for k, v in scorer.members[0].network.state_dict().items()} for scorer in (first, other)]
    if shape(first) != shape(other) or sizes[0] != sizes[1]:
        raise StoreError(
            f"{run.folder}: {other.name} found, averaged with {first.name}; expected the same network with the same "
            "head, image size, method, folds and normalization."
        )


def _mean(members: Sequence[Member]) -> Member:
    states = [member.network.state_dict() for member in members]
    mean = {
        key: torch.stack([state[key] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    members[0].network.load_state_dict(mean)
    return members[0]


def _with(scorer: SupervisedScorer, members: Sequence[Member]) -> SupervisedScorer:
    return SupervisedScorer(
        scorer.model, scorer.labels, scorer.label_specs, scorer.settings, members, scorer.backbone, scorer.torch_device
    )


def _say(scorer: SupervisedScorer, run: ClassRun, names: Sequence[str]) -> Probabilities:
    root = Path(run.record.data["root"])
    found = []
    for start in range(0, len(names), BATCH):
        batch = [scorer.prepare(read_image(root / name)) for name in names[start : start + BATCH]]
        found.append(scorer.probabilities(batch))
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, len(scorer.labels)), dtype=np.float32)
