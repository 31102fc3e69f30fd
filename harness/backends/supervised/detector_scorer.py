"""Predictions of networks with detectors beside them, and both in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from harness.backends.base import RunContext
from harness.backends.cost import size
from harness.backends.scorers import size_refused
from harness.backends.supervised.class_detectors import KEY, build_detector
from harness.backends.supervised.classifier import DETECTORS, FORMAT, KIND, METADATA, SupervisedScorer
from harness.backends.supervised.decoding import Pixels
from harness.backends.supervised.fold import FoldResult
from harness.backends.supervised.good_rule import Classes, Rule, apply_rule
from harness.backends.supervised.label_scorer import TrainedScorer
from harness.backends.supervised.model_file import opened
from harness.backends.supervised.settings import WITHOUT
from harness.backends.supervised.with_detector import Models, add_detectors
from harness.common.errors import ConfigError
from harness.config.spec import RunSpec
from harness.data.images import RGB
from harness.data.labelled.base import LabelledSplit, LabelSpec
from harness.detectors.features import FeatureMaps
from harness.detectors.saving import BACKBONE, build_saved, description, network_tensors
from harness.detectors.sources import as_tensor
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format

# An image as the input of the networks, and as that of the detectors.
Prepared = tuple[Pixels, torch.Tensor]


class DetectorScorer(TrainedScorer):
    """Predicts labels with networks, detectors and rules.

    Args:
        networks: the networks of all folds.
        models: the detectors and rules.
    """

    metadata = METADATA

    def __init__(self, networks: SupervisedScorer, models: Models) -> None:
        self.networks, self.models = networks, models
        self.labels, self.label_specs, self.device = networks.labels, networks.label_specs, networks.device
        self.name = f"{networks.name}, with {models.detector.name}"

    @property
    def size(self) -> float:
        """Size of networks, detectors and the network of the detectors, in bytes."""
        states = [tensor for state in self.models.states.values() for tensor in state.values()]
        return self.networks.size + size([*states, *network_tensors(self.models.detector).values()])

    def prepare(self, pixels: RGB) -> Prepared:
        """Convert an image to the inputs of networks and detectors. Several threads may call this method at once."""
        return self.networks.prepare(pixels), self.models.detector.preprocessing(as_tensor(pixels))

    def by_fold(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Return probabilities (folds, n, labels), after the rules. Only one thread at a time may call this."""
        by_fold = self.networks.by_fold([pixels for pixels, _ in prepared])
        detector, classes = self.models.detector, self.models.classes
        device = detector.device.torch
        with torch.inference_mode():
            features = detector.extractor().to(device)(torch.stack([image for _, image in prepared]).to(device))
        for place, fold in enumerate(dict.fromkeys(member.fold for member in self.networks.members)):
            predicted = classes.predicted(by_fold[place])
            scores = self._scores(fold, predicted, features)
            by_fold[place] = apply_rule(self.models.rules[fold], classes, by_fold[place], predicted, scores)
        return by_fold

    def at_image_size(self, size: tuple[int, int]) -> DetectorScorer:
        """Refuse every size but that of the run, since the rules learned from predictions at this size.

        Args:
            size: (height, width) of the read images.

        Raises:
            ConfigError: the size is another one.
        """
        own = self.networks.image_size
        if size == own:
            return self
        reason = f"a run with `{KEY}`, whose rules hold for the image size of the run"
        advice = f"Use the run without `{KEY}`, or train one with `eval_image_size`."
        raise size_refused(size, reason, f"{own[0]} x {own[1]}", advice)

    @property
    def map_note(self) -> str:
        """Why the networks have no Grad-CAM; empty if they have one."""
        return self.networks.map_note

    def grad_cam(self, prepared: Sequence[Prepared], labels: Sequence[int], fold: int | None = None) -> Floats | None:
        """Return the maps of the networks; see `harness.backends.scorers.LabelScorer.grad_cam`."""
        return self.networks.grad_cam([pixels for pixels, _ in prepared], labels, fold)

    def _scores(self, fold: int, predicted: npt.NDArray[np.int64], features: FeatureMaps) -> npt.NDArray[np.float64]:
        """The score of each image by the detector of its class; NaN for a class without one."""
        detector, scores = self.models.detector, np.full(len(predicted), np.nan)
        for position in np.unique(predicted[self.models.classes.good[predicted] >= 0]).tolist():
            state = self.models.states[fold, self.models.classes.names[position]]
            rows = np.flatnonzero(predicted == position)
            chosen = torch.from_numpy(rows).to(detector.device.torch)
            on_device = {name: tensor.to(detector.device.torch) for name, tensor in state.items()}
            with torch.inference_mode():
                batch = {layer: values[chosen] for layer, values in features.items()}
                result = detector.score(on_device, batch, detector.preprocessing.input_size)
            scores[rows] = result.images.double().cpu().numpy()
        return scores

    def export(self, file_format: Format, file: Path) -> list[str]:
        """Refuse the export: the formats hold the networks only.

        Args:
            file_format: unused.
            file: unused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"export: a run with `{KEY}` found; expected a run of networks only, since no format holds the detectors. "
            f"Export the run without `{KEY}`, or predict with this run's folder."
        )

    def to_cpu(self) -> None:
        """Move all networks to the cpu, to free the memory of the device."""
        self.networks.to_cpu()
        self.models.detector.extractor().cpu()

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of networks and detectors by name, and the header with the rules; see `load_scorer`."""
        tensors, header = self.networks.contents()
        detector, states = self.models.detector, self.models.states
        tensors |= {f"{DETECTORS}{name}": tensor for name, tensor in network_tensors(detector).items()}
        places = list(states)
        for number, place in enumerate(places):
            tensors |= {f"{DETECTORS}{number}.{name}": tensor for name, tensor in states[place].items()}
        beside = {
            "detector": description(detector),
            "good": self.models.classes.good.tolist(),
            "places": [list(place) for place in places],
            "rules": [[fold, rule and rule.as_dict()] for fold, rule in self.models.rules.items()],
        }
        return tensors, header | {"format": FORMAT, KEY: beside}


def with_detectors(
    networks: SupervisedScorer, folds: list[FoldResult], spec: RunSpec, split: LabelledSplit, context: RunContext
) -> tuple[SupervisedScorer | DetectorScorer, list[FoldResult], list[str]]:
    """Add the detectors that a run asks for to its networks.

    Args:
        networks: the networks of all folds.
        folds: their results.
        spec: the run.
        split: its data.
        context: resources and options.

    Returns:
        The scorer, the results of the folds after the rules, and warnings. Without `with_detector` nothing changes.
    """
    if networks.settings.with_detector == WITHOUT:
        return networks, folds, []
    detector = build_detector(networks.settings.with_detector, spec, context.device, context)
    changed, models, warnings = add_detectors(detector, split, context, folds)
    note = [f"{KEY}: {detector.weights.note}"] if detector.weights.note else []
    return DetectorScorer(networks, models), changed, [*warnings, *note]


def load_scorer(path: Path, device: str) -> SupervisedScorer | DetectorScorer:
    """Load a saved classification, without executing code.

    Args:
        path: file that a scorer's `save` wrote.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        WeightsError: the file is damaged or no such file, or its tensors do not fit the networks.
        ConfigError: this machine has no such device.
    """
    networks = SupervisedScorer.from_file(path, device)
    with opened(path, METADATA, FORMAT, KIND) as file:
        if KEY not in file.header:
            return networks
        models = _models(file.header[KEY], networks.label_specs, file.tensors(DETECTORS), device)
        return DetectorScorer(networks, models)


def _models(
    beside: dict[str, Any], label_specs: Sequence[LabelSpec], tensors: dict[str, torch.Tensor], device: str
) -> Models:
    network = {name: tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
    detector = build_saved(beside["detector"], network, device, progress=False)
    class_names = [name for name, _ in label_specs]
    good = dict(zip(dict.fromkeys(class_names), beside["good"], strict=True))
    states = {
        (int(fold), str(name)): {
            key.removeprefix(f"{number}."): value for key, value in tensors.items() if key.startswith(f"{number}.")
        }
        for number, (fold, name) in enumerate(beside["places"])
    }
    rules = {int(fold): None if values is None else Rule(**values) for fold, values in beside["rules"]}
    return Models(detector, Classes.of(class_names, good), states, rules)
