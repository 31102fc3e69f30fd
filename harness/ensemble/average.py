"""Networks averaged weight by weight, as model soups (Wortsman et al., 2022), and their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.backends.supervised.classifier import Member, SupervisedScorer
from harness.common.errors import StoreError
from harness.data.images import read_image
from harness.ensemble.runs import ClassRun, check_images
from harness.inference.classifier import classifier_of
from harness.inference.find import KEEP, SavedRun
from harness.predictions.classification import ClassPredictions, Probabilities
from harness.results.store import model_in

BATCH = 32


def predict_soup(runs: Sequence[ClassRun], device: str, stage: Callable[[str], None]) -> tuple[ClassPredictions, bool]:
    """Average networks to a model soup and predict with the soup.

    Networks of several runs are averaged fold by fold, so that no network predicts an image of its training. Networks
    of one run are averaged over its folds. That soup was trained on every image, so it has no out-of-fold predictions.

    Args:
        runs: runs of one architecture with saved models.
        device: auto, cpu, cuda, cuda:N or mps.
        stage: called with a phrase on the work in progress.

    Returns:
        The predictions, and whether the out-of-fold predictions are those of the soup; else they are the run's own.

    Raises:
        StoreError: a model was not saved, or architectures, folds or images differ.
    """
    check_images(runs)
    scorers = [_scorer(run, device) for run in runs]
    first, predictions = scorers[0], runs[0].predictions
    for run, other in zip(runs[1:], scorers[1:], strict=True):
        _same_networks(run, first, other)
        if not np.array_equal(run.predictions.folds, predictions.folds):
            raise StoreError(f"{run.folder}: other folds than {runs[0].folder} found; expected the same split_seed.")
    if len(runs) == 1:
        classes = dict.fromkeys(member.part for member in first.members)
        members = [_mean([member for member in first.members if member.part == name]) for name in classes]
        stage("predicting test images with the average of all folds")
        averaged = _predict(_with_members(first, members), runs[0], predictions.test_names)
        return replace(predictions, test_by_fold=averaged[None]), False
    members = [_mean(networks) for networks in zip(*(scorer.members for scorer in scorers), strict=True)]
    probabilities, test_by_fold = predictions.probabilities.copy(), []
    for fold in dict.fromkeys(member.fold for member in members):
        stage(f"predicting images with the average of fold {fold}")
        scorer = _with_members(first, [member for member in members if member.fold == fold])
        indices = np.flatnonzero(predictions.folds == fold)
        probabilities[indices] = _predict(scorer, runs[0], [predictions.names[i] for i in indices])
        test_by_fold.append(_predict(scorer, runs[0], predictions.test_names))
    return replace(predictions, probabilities=probabilities, plain=None, test_by_fold=np.stack(test_by_fold)), True


def _scorer(run: ClassRun, device: str) -> SupervisedScorer:
    file = model_in(run.folder)
    if file is None:
        raise StoreError(f"{run.folder}: the model of this run was not kept. {KEEP}")
    scorer = classifier_of(SavedRun(run.folder, run.record, file), device).scorer
    assert isinstance(scorer, SupervisedScorer)
    return scorer


def _same_networks(run: ClassRun, first: SupervisedScorer, other: SupervisedScorer) -> None:
    def architecture(scorer: SupervisedScorer) -> object:
        settings = scorer.settings
        head = (settings.image_size, settings.head_activation, settings.loss == "arcface" and settings.arcface_scale)
        network = scorer.members[0].network
        normalization = network.mean.flatten().tolist(), network.std.flatten().tolist()
        return scorer.model, scorer.backbone, head, normalization, [(m.fold, m.part, m.own) for m in scorer.members]

    sizes = [{k: v.shape for k, v in scorer.members[0].network.state_dict().items()} for scorer in (first, other)]
    if architecture(first) != architecture(other) or sizes[0] != sizes[1]:
        raise StoreError(
            f"{run.folder}: {other.name} found, to average with {first.name}; expected the same network with the same "
            "head, image size, method, folds and normalization."
        )


def _mean(members: Sequence[Member]) -> Member:
    weights = [member.network.state_dict() for member in members]
    mean = {
        key: torch.stack([tensors[key] for tensors in weights]).mean(dim=0) if value.is_floating_point() else value
        for key, value in weights[0].items()
    }
    members[0].network.load_state_dict(mean)
    return members[0]


def _with_members(scorer: SupervisedScorer, members: Sequence[Member]) -> SupervisedScorer:
    return SupervisedScorer(
        scorer.model, scorer.labels, scorer.label_specs, scorer.settings, members, scorer.backbone, scorer.torch_device
    )


def _predict(scorer: SupervisedScorer, run: ClassRun, names: Sequence[str]) -> Probabilities:
    root = Path(run.record.data["root"])
    rows = []
    for start in range(0, len(names), BATCH):
        batch = [scorer.prepare(read_image(root / name)) for name in names[start : start + BATCH]]
        rows.append(scorer.probabilities(batch))
    return np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, len(scorer.labels)), dtype=np.float32)
