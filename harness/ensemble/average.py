"""Networks averaged weight by weight, as model soups (Wortsman et al., 2022), and their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.backends.supervised.batch_norm import STATISTICS_IMAGES, layers, recompute
from harness.backends.supervised.classifier import SupervisedScorer
from harness.backends.supervised.decoding import to_size
from harness.backends.supervised.fold_data import as_images
from harness.backends.supervised.network import Member
from harness.common.errors import StoreError
from harness.data.images import read_image
from harness.ensemble.runs import ClassRun, check_images
from harness.inference.classifier import classifier_of
from harness.inference.find import KEEP, SavedRun
from harness.predictions.classification import ClassPredictions, Probabilities
from harness.results.run_folder import model_in

BATCH = 32
LEAST = 8  # images for statistics of batch normalisation


def predict_soup(
    runs: Sequence[ClassRun], device: str, stage: Callable[[str], None]
) -> tuple[ClassPredictions, bool, list[str]]:
    """Average networks to a model soup and predict with the soup.

    Networks of several runs are averaged fold by fold, so that no network predicts an image of its training. Networks
    of one run are averaged over its folds. That soup was trained on every image, so it has no out-of-fold predictions.
    The statistics of batch normalisation are computed anew from images of the training.

    Args:
        runs: runs of one architecture with saved models.
        device: auto, cpu, cuda, cuda:N or mps.
        stage: called with a phrase on the work in progress.

    Returns:
        The predictions; whether the out-of-fold predictions are those of the soup, else they are the run's own; and
        notes for the user.

    Raises:
        StoreError: a model was not saved or has no trained network, or architectures, folds or images differ.
    """
    check_images(runs)
    scorers = [_scorer(run, device) for run in runs]
    first, predictions = scorers[0], runs[0].predictions
    for run, other in zip(runs[1:], scorers[1:], strict=True):
        _same_networks(run, first, other)
        if not np.array_equal(run.predictions.folds, predictions.folds):
            raise StoreError(f"{run.folder}: other folds than {runs[0].folder} found; expected the same split_seed.")
    if len(runs) == 1:
        places = dict.fromkeys((member.part, member.repeat) for member in first.members)
        members = [_mean([one for one in first.members if (one.part, one.repeat) == place]) for place in places]
        stage("predicting test images with the average of all folds")
        soup = _with_members(first, members)
        notes = _new_statistics(soup, runs[0], predictions.names)
        averaged = _predict(soup, runs[0], predictions.test_names)
        return replace(predictions, test_by_fold=averaged[None]), False, notes
    members = [_mean(networks) for networks in zip(*(scorer.members for scorer in scorers), strict=True)]
    probabilities, test_by_fold = predictions.probabilities.copy(), []
    notes = []
    for fold in dict.fromkeys(member.fold for member in members):
        stage(f"predicting images with the average of fold {fold}")
        scorer = _with_members(first, [member for member in members if member.fold == fold])
        indices = np.flatnonzero(predictions.folds == fold)
        training = [predictions.names[i] for i in np.flatnonzero(predictions.folds != fold)]
        # The average of a run with itself is the run.
        notes += _new_statistics(scorer, runs[0], training) if len({run.folder for run in runs}) > 1 else []
        probabilities[indices] = _predict(scorer, runs[0], [predictions.names[i] for i in indices])
        test_by_fold.append(_predict(scorer, runs[0], predictions.test_names))
    return (
        replace(
            predictions, probabilities=probabilities, plain=None, network=None, test_by_fold=np.stack(test_by_fold)
        ),
        True,
        notes,
    )


def _scorer(run: ClassRun, device: str) -> SupervisedScorer:
    file = model_in(run.folder)
    if file is None:
        raise StoreError(f"{run.folder}: the model of this run was not kept. {KEEP}")
    scorer = classifier_of(SavedRun(run.folder, run.record, file), device).scorer
    if not isinstance(scorer, SupervisedScorer):
        raise StoreError(
            f"{run.folder}: {scorer.name} found for average_weights; expected a run of trained networks alone. Use the "
            "run itself, whose predictions a blend averages, or the run without `with_detector`."
        )
    return scorer


def _same_networks(run: ClassRun, first: SupervisedScorer, other: SupervisedScorer) -> None:
    def architecture(scorer: SupervisedScorer) -> object:
        settings = scorer.settings
        scale = settings.loss == "arcface" and settings.arcface_scale
        head = (settings.image_size, settings.eval_size, settings.head, settings.head_activation, scale)
        network = scorer.members[0].network
        normalization = network.mean.flatten().tolist(), network.std.flatten().tolist()
        places = [(member.fold, member.part, member.own, member.repeat) for member in scorer.members]
        return scorer.model, scorer.backbone, head, normalization, places

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


def _new_statistics(soup: SupervisedScorer, run: ClassRun, names: Sequence[str]) -> list[str]:
    """Compute the statistics of batch normalisation anew; see `harness.backends.supervised.batch_norm`.

    Args:
        soup: the averaged networks.
        run: the run that names the images.
        names: images of the training of these networks.

    Returns:
        A note where the run names too few images; the statistics are then the mean of the networks'.
    """
    networks = [member.network for member in soup.members if any(layers(member.network.features))]
    if not networks:
        return []
    if len(names) < LEAST:
        return [
            f"batch normalisation of the averaged networks: {len(names)} images of their training found, expected at "
            f"least {LEAST}. The statistics are means of those of the networks. Run all folds for new statistics."
        ]
    chosen = np.random.default_rng(0).permutation(len(names))[:STATISTICS_IMAGES]
    # As in a training, these are statistics of images of the training's size.
    root, size = Path(run.record.data["root"]), soup.settings.image_size
    images = [torch.from_numpy(to_size(read_image(root / names[i]), size)) for i in chosen]
    # All batches count equally, so all have the same size.
    count = min(BATCH, len(images))
    batches = [torch.stack(images[i : i + count]) for i in range(0, len(images) - count + 1, count)]
    device = soup.torch_device.torch
    for network in networks:
        network.to(device)
        recompute(network.features, (network.normalised(as_images(batch.to(device))) for batch in batches))
    return []


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
