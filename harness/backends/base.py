"""The contract between the harness and the backends that train and predict.

A backend never sees metrics, and metrics never see a model. Constructing a backend and calling `parameters()` must be
cheap and import nothing heavy, since a plan calls both. `check()` is the first method that may import heavy libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit
from harness.data.samples import Split
from harness.predictions.classification import ClassPredictions
from harness.predictions.detection import Predictions

# The images that a backend used for validation; see `Detected.validation`.
HELD_OUT = "held-out normal images"
TEST_IMAGES = "test images"
TEST_IMAGES_OF_TRIALS = "test images that the search did not hold out"

# The data of a run, for any task.
AnySplit = Split | LabelledSplit


def _all_used(values: Mapping[str, Any]) -> Mapping[str, str]:
    del values
    return {}


def _as_given(values: Mapping[str, Any], image_size: tuple[int, int] | None) -> Mapping[str, Any]:
    del image_size
    return values


class Signature(NamedTuple):
    """The name and the parameters of a model.

    Attributes:
        name: the model's canonical name.
        parameters: parameters with their defaults; None for no default, or for a default that is not a literal.
        trainer: whether the model uses the `trainer:` block of the config.
        unused: maps parameter values to the parameters without effect, each with the value that gives it an effect.
        normalization: input normalisation of version 0.1: `imagenet`, or `backbone` for that of timm's default weights.
            None for a model that normalises its own input.
        folds: default of `threshold.folds`; None for a model without out-of-fold scores of its training images.
        implied: values that a record without the parameter means. A spec leaves out a parameter with this value, so
            that runs from before the parameter keep their identity.
        defaults: maps the values that a point of the grid sets to the defaults of this point, without the parameters
            that the training chooses; None for `parameters`.
        canonical: maps the values of a point and its image size to the one form of all values with equal results.
    """

    name: str
    parameters: Mapping[str, Any]
    trainer: bool = True
    unused: Callable[[Mapping[str, Any]], Mapping[str, str]] = _all_used
    normalization: str | None = None
    folds: int | None = None
    implied: Mapping[str, Any] = MappingProxyType({})
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    canonical: Callable[[Mapping[str, Any], tuple[int, int] | None], Mapping[str, Any]] = _as_given


class EpochDetections(NamedTuple):
    """Predictions of a detector after an epoch of its training.

    Attributes:
        test: predictions for the test samples.
        val: predictions for the held-out normal samples, None without such samples.
    """

    test: Predictions
    val: Predictions | None


# Predictions of an intermediate evaluation, by task.
EpochPredictions = EpochDetections | ClassPredictions


class EpochObserver(Protocol):
    """Receives intermediate predictions of a training, and may end the training by raising SystemExit."""

    def wants(self, spec: RunSpec, epoch: int) -> bool:
        """Return whether the observer needs the predictions of a run after an epoch.

        Args:
            spec: the run.
            epoch: number of finished epochs.
        """

    def on_epoch(self, spec: RunSpec, epoch: int, epoch_predictions: EpochPredictions) -> None:
        """Receive the predictions of a run after an epoch.

        Args:
            spec: the run.
            epoch: number of finished epochs.
            epoch_predictions: predictions at this epoch; of several folds, the first fold's are enough.
        """


@dataclass(frozen=True)
class RunContext:
    """Resources and options of a run, beside its spec and data.

    Attributes:
        scratch: an empty folder for temporary files; the harness removes the folder after the run.
        device: auto, cpu, cuda, cuda:N or mps.
        num_workers: processes that load images; 0 loads in this process.
        stage: callback that takes the name of the current step, for the progress line.
        cache: folder that keeps costly stages between sweeps, None for no cache.
        cache_limit: size limit of the cache, in bytes.
        memory_limit: memory limit for features, in bytes; None for half of the free memory.
        unfinished: a folder of the group for checkpoints, which outlives a kill. The harness removes the folder once
            all runs of the group are written.
        watch: observer of the first training, where a training has epochs; None for no observer.
    """

    scratch: Path
    device: str
    num_workers: int
    stage: Callable[[str], None]
    cache: Path | None = None
    cache_limit: int = 0
    memory_limit: int | None = None
    unfinished: Path | None = None
    watch: EpochObserver | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one spec, for any task.

    Attributes:
        spec: the spec.
        seconds: "fit" and "test": times that this run needs alone. Where runs share work, also "alone", the sum of both
            with the calibration, and "spent", the time that this run added.
        device: description of the device.
        cost: images_per_second at the config's batch size, with reading; peak_memory and peak_gpu_memory of the process
            while the group ran, in bytes; model_size, the tensors of the saved model, in bytes. A value that cannot be
            measured is None or absent. The harness adds the times of single images, see `harness.backends.latency`.
        own_metrics: the backend's own metrics; their names have the backend's prefix.
        weights: see `RunRecord.weights`.
        warnings: differences between the requested and the executed run, one sentence each.
        save_model: writes the model to a folder, as `model.<suffix>`.
        scorer: the trained model as a `Scorer`, or for classification as a `LabelScorer`, inside a context; None for a
            model whose single images cannot be timed.
        timing_key: everything that the time of an image depends on. Outcomes of a group with equal keys share one
            timing; None for a timing of its own.
    """

    spec: RunSpec
    seconds: dict[str, float]
    device: str
    save_model: Callable[[Path], None]
    cost: dict[str, float | None] = field(default_factory=dict)
    own_metrics: dict[str, float | None] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    scorer: Callable[[], AbstractContextManager[Any]] | None = None
    timing_key: Hashable = None


@dataclass(frozen=True, kw_only=True)
class Detected(Outcome):
    """The result of one spec of `task: detection`.

    Attributes:
        test: predictions for the test samples.
        calibration: predictions for normal samples, each by a model that did not learn from the sample. With
            `threshold.method: cross_conformal`, out-of-fold predictions for the training samples; otherwise predictions
            for the held-out samples, None without such samples.
        validation: images that the backend used for validation: `HELD_OUT`, `TEST_IMAGES`,
            `TEST_IMAGES_OF_TRIALS`, or "" for none.
    """

    test: Predictions
    calibration: Predictions | None
    validation: str = ""


@dataclass(frozen=True, kw_only=True)
class Classified(Outcome):
    """The result of one spec of `task: classification`.

    Attributes:
        predictions: probabilities of the out-of-fold images and of the test images.
        folds: a record of each fold: number, epochs, seconds, metrics.
        curves: one entry for each epoch, by fold (and network).
        recipe: see `RunRecord.recipe`.
    """

    predictions: ClassPredictions
    folds: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A spec that failed; the other specs of its group continue.

    Attributes:
        spec: the spec.
        error: the exception that ended its run.
    """

    spec: RunSpec
    error: Exception


class Backend(Protocol):
    """Turns specs into outcomes of one task."""

    task: ClassVar[str]
    # The module that trains, and that imports the heavy libraries.
    heavy: ClassVar[str]

    def parameters(self, model: str) -> Signature:
        """Return the signature of a model, without heavy imports.

        Raises:
            ConfigError: the backend has no such model.
        """

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Any], device: str) -> list[str]:
        """Return all problems that would make specs fail, one sentence each, before any training.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
        """

    def remarks(
        self, specs: Sequence[RunSpec], splits: Mapping[str, Any], device: str, memory_limit: int | None
    ) -> list[str]:
        """Return notes that a user must read before the runs; usually none.

        Args:
            specs: the runs.
            splits: their data, by category.
            device: auto, cpu, cuda, cuda:N or mps.
            memory_limit: see `RunContext`.
        """
        del specs, splits, device, memory_limit
        return []

    def share_key(self, spec: RunSpec) -> Hashable:
        """Return the group key of a spec. Specs with equal keys run as one group, because they can share work."""

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """Return keys of the work that specs of one group share, coarse to fine; a split of the group follows them.

        Without such keys, a group shares all its work or none.
        """
        del spec
        return ()

    def run(self, specs: Sequence[RunSpec], split: Any, context: RunContext) -> Iterator[Outcome | Failure]:
        """Train and test specs, and yield one result for each spec as soon as the result is complete.

        An exception that escapes ends the group. The harness records the exception as the failure of every spec without
        a result.

        Args:
            specs: the runs of one group.
            split: their data.
            context: resources and options.
        """

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Any:
        """Load a model that `Outcome.save_model` wrote.

        Args:
            spec: the run.
            file: the saved model.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: whether loading may execute code in the file, if the file cannot be loaded otherwise.

        Returns:
            A `harness.backends.scorers.Scorer`, or for classification a `LabelScorer`.

        Raises:
            WeightsError: the file is damaged, does not fit the spec, or would execute code and is not trusted.
        """
