"""Supervised classification: timm's networks predict the class and condition of images.

Lightning trains the networks. A probe fits a simple classifier on a frozen network.

settings.py    options of a run, their defaults, and combinations that exclude each other; values.py checks each value
recipes.py     values that fit the number of images and epochs
checks.py      problems of specs that need no training
methods.py     selects the trained networks or the probe
probe/         simple classifiers on the features of a frozen network
run.py         one run: trains all folds and merges their probabilities
training.py    trains one network on one fold: Lightning's Trainer, resuming after a kill; callbacks.py belongs to it
fold_data.py   the images of one training, and their order
module.py      the training steps; losses.py, augment.py, network.py and schedules.py belong to them
tta.py         views of test-time augmentation in the configuration; views.py makes them
batch_norm.py  momentum and statistics of batch normalisation
margins.py     the labels with ArcFace's margin
one_class.py   networks for each class, and the merging of their probabilities
units.py       the networks of a run
fold.py        the result of a fold, and the merging of folds
decoding.py    the decoded images
with_detector.py    detectors and rules beside the networks; class_detectors.py and good_rule.py belong to it
detector_scorer.py  saving, loading and prediction of networks with detectors
classifier.py  saving, loading and prediction of trained networks
label_scorer.py  saving, prediction and export of every trained model; export.py and model_file.py belong to it
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from harness.backbones.normalization import BACKBONE
from harness.backends.base import Backend, Failure, Outcome, RunContext, Signature
from harness.backends.scorers import LabelScorer
from harness.backends.supervised import recipes
from harness.backends.supervised.probe import settings as probe_settings
from harness.backends.supervised.settings import DEFAULTS, IMPLIED, MODELS, canonical
from harness.common.errors import ConfigError, unknown_name
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit

# Settings without influence on the trained networks.
NOT_TRAINED = ("tta", "tta_average", "eval_image_size", "tensorboard", "combine_repeats", "with_detector")


class SupervisedBackend(Backend):
    """Trains classifiers. A run has all folds of one configuration; the runs of a group share the trained networks."""

    task: ClassVar[str] = "classification"
    heavy: ClassVar[str] = "harness.backends.supervised.methods"

    def parameters(self, model: str) -> Signature:
        """Return the signature of a method: its settings with their defaults.

        Raises:
            ConfigError: there is no such method.
        """
        name = model.lower().replace("-", "_")
        if name == probe_settings.MODEL:
            return Signature(
                name, probe_settings.DEFAULTS, trainer=False, unused=probe_settings.unused, normalization=BACKBONE
            )
        if name not in MODELS:
            unknown = unknown_name("method", model, (probe_settings.MODEL, *MODELS))
            raise ConfigError(f"model: {unknown} The network is the axis `backbone`, any of timm's.")
        return Signature(
            name,
            {recipes.KEY: recipes.AUTO, **DEFAULTS},
            unused=partial(recipes.without_effect, model=name),
            normalization=BACKBONE,
            implied={**IMPLIED, recipes.KEY: recipes.NONE},
            defaults=recipes.defaults,
            canonical=canonical,
        )

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
        """Return all problems of specs, each once.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
        """
        from harness.backends.supervised.methods import check_specs

        return check_specs(specs, splits, device)

    def share_key(self, spec: RunSpec) -> Hashable:
        """Return a key of the shared work.

        Runs with equal networks share them, so the key has no settings of `NOT_TRAINED`. Probes share their features,
        so their key has no settings at all.
        """
        values = spec.as_dict()
        if spec.model == probe_settings.MODEL:
            return json.dumps(values | {"params": {}}, sort_keys=True)
        trained = {key: value for key, value in spec.parameters.items() if key not in NOT_TRAINED}
        return json.dumps(values | {"params": trained}, sort_keys=True)

    def run(self, specs: Sequence[RunSpec], split: LabelledSplit, context: RunContext) -> Iterator[Outcome | Failure]:
        """Train and test each spec in turn.

        Args:
            specs: the runs.
            split: their data.
            context: resources and options.
        """
        from harness.backends.supervised.methods import run_each

        yield from run_each(specs, split, context)

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> LabelScorer:
        """Load a saved model. The file contains the complete model and no code.

        Args:
            spec: the run.
            file: the saved model.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: without effect, since the file contains no code.

        Raises:
            WeightsError: the file is damaged.
        """
        del trust
        if spec.model == probe_settings.MODEL:
            from harness.backends.supervised.probe.scorer import ProbeScorer

            return ProbeScorer.from_file(file, device)
        from harness.backends.supervised.detector_scorer import load_scorer

        return load_scorer(file, device)
