"""The contract between the harness and what trains and predicts.

A backend never sees metrics, and metrics never see a model. Constructing one, and `parameters()`, must be cheap and
import nothing heavy, since a plan asks; `check()` is the first moment for that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from harness.config.spec import RunSpec
from harness.data.base import Split
from harness.data.images import RGB
from harness.data.labelled.base import LabelledSplit
from harness.predictions.classification import ClassPredictions
from harness.predictions.detection import Floats, Predictions

if TYPE_CHECKING:
    from harness.backends.formats import Format
    from harness.predictions.decision import Thresholds

# What a backend took for validation; see `Outcome.validation`.
HELD_OUT = "held-out normal images"
TEST_IMAGES = "test images"

# The data of a run, whatever the task.
AnySplit = Split | LabelledSplit


def _all_used(values: Mapping[str, Any]) -> Mapping[str, str]:
    del values
    return {}


class Signature(NamedTuple):
    """What a model takes.

    Attributes:
        name: the model's canonical name.
        parameters: its parameters with their defaults; None where there is none, or none that can be written down.
        trainer: whether the config's `trainer:` block goes to it.
        unused: of given values, the names of those without effect, each with what would give it one.
        normalization: what version 0.1 normalised the input by, `imagenet` or `backbone` (as timm's default weights);
            None for a model that keeps its own input.
    """

    name: str
    parameters: Mapping[str, Any]
    trainer: bool = True
    unused: Callable[[Mapping[str, Any]], Mapping[str, str]] = _all_used
    normalization: str | None = None


class EpochDetections(NamedTuple):
    """What a detector says in the middle of its training.

    Attributes:
        test: predictions for the test samples.
        val: predictions for the held-out normal samples, None where there are none.
    """

    test: Predictions
    val: Predictions | None


# What is seen of a training before its end, by task.
EpochPredictions = EpochDetections | ClassPredictions


class EpochObserver(Protocol):
    """Looks at a training after some of its epochs, and may end it by raising SystemExit."""

    def wants(self, spec: RunSpec, epoch: int) -> bool:
        """Whether it wants to see what the training of `spec` has reached after so many epochs."""

    def on_epoch(self, spec: RunSpec, epoch: int, epoch_predictions: EpochPredictions) -> None:
        """Here it is; of folds the first one is enough."""


@dataclass(frozen=True)
class RunContext:
    """What a backend needs beside specs and data.

    Attributes:
        scratch: an empty folder for whatever the backend writes; removed afterwards.
        device: auto, cpu, cuda, cuda:N or mps.
        num_workers: processes that load images; 0 is this process.
        stage: call it with a word on what goes on, for the progress line.
        cache: where costly stages may be kept between sweeps, None for nowhere.
        cache_limit: bytes that they may take there.
        memory_limit: bytes that features may take in memory, None for half of what is free.
        latency: whether single images are timed.
        unfinished: a folder of the group's that outlives a kill, for what a long training has reached; removed once
            all runs of the group are in place.
        watch: asked after each epoch of the first training, where there are epochs; None for nobody.
    """

    scratch: Path
    device: str
    num_workers: int
    stage: Callable[[str], None]
    cache: Path | None = None
    cache_limit: int = 0
    memory_limit: int | None = None
    latency: bool = True
    unfinished: Path | None = None
    watch: EpochObserver | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one spec, whatever the task.

    Attributes:
        spec: the spec.
        seconds: "fit" and "test", what they take for this run alone; where work is shared also "alone", their sum
            with the held-out images, and "spent", what this run added.
        device: what it ran on.
        cost: seconds_p50, seconds_p95 of one image, from decoded to score and map, `timed_images` of them one at a
            time; images_per_second at the config's batch size, with reading; peak_memory and peak_gpu_memory (of the
            process, while the group went on) and model_size (of the tensors of the saved model), in bytes. What can't
            be had is None or left out.
        own_metrics: the backend's own figures, names with its prefix.
        weights: see `RunRecord.weights`.
        warnings: what was done differently from what was asked.
        save_model: writes the model to a folder, as `model.<suffix>`.
    """

    spec: RunSpec
    seconds: dict[str, float]
    device: str
    save_model: Callable[[Path], None]
    cost: dict[str, float | None] = field(default_factory=dict)
    own_metrics: dict[str, float | None] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Detected(Outcome):
    """What came of one spec of `task: detection`.

    Attributes:
        test: predictions for the test samples.
        val: predictions for the held-out normal samples, None where there are none.
        validation: what the backend itself took for validation: "held-out normal images", "test images", or "".
    """

    test: Predictions
    val: Predictions | None
    validation: str = ""


@dataclass(frozen=True, kw_only=True)
class Classified(Outcome):
    """What came of one spec of `task: classification`.

    Attributes:
        predictions: probabilities, out of fold and of the images to be named.
        folds: of each fold what there is to know: fold, epochs, seconds, its own figures.
        curves: by fold (and network), one entry an epoch.
    """

    predictions: ClassPredictions
    folds: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A spec that can't be had; the rest of its group goes on."""

    spec: RunSpec
    error: Exception


class Scorer(Protocol):
    """A trained model at work: raw scores and maps of images; of thresholds it knows nothing."""

    @property
    def name(self) -> str:
        """What it is, for a person."""

    @property
    def device(self) -> str:
        """What it runs on, for a person."""

    @property
    def resized(self) -> tuple[int, int] | None:
        """(height, width) images are brought to before their centre is cut out; None: nothing is cut off."""

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of what the network sees; None where it takes any."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of its scores, one sentence each."""

    def prepare(self, pixels: RGB) -> Any:
        """An image as `score` takes it; called by several threads at once."""

    def score(self, prepared: Sequence[Any]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Scores (n,) and maps (n, height, width), or None for a model without maps; called by one thread at a time."""

    def export(self, thresholds: Thresholds, chosen: Format, file: Path) -> list[str]:
        """Write the model with pre-processing, normalisation and thresholds to one file.

        The file takes RGB images in [0, 1], (n, 3, any, any), and gives those of `harness.backends.graph.Answers` that
        there are.

        Args:
            thresholds: see `harness.predictions.decision.Thresholds`.
            chosen: the file's format.
            file: where to; with the format's suffix, in a folder that exists.

        Returns:
            The names of its outputs.

        Raises:
            Exception: whatever a model that can't be exported makes the libraries raise.
        """


class Backend(Protocol):
    """Turns specs into outcomes of one task."""

    task: ClassVar[str]
    # The module that does the work: what takes long to import stands behind it.
    heavy: ClassVar[str]

    def parameters(self, model: str) -> Signature:
        """What the model takes. Cheap.

        Raises:
            ConfigError: there is no such model.
        """

    def check(self, specs: Sequence[RunSpec], splits: Mapping[str, Any], device: str) -> list[str]:
        """Everything that would make these specs fail, one sentence each, before any work is done."""

    def remarks(self, specs: Sequence[RunSpec], device: str) -> list[str]:
        """What a user must know before these specs are run, one sentence each; mostly nothing."""

    def share_key(self, spec: RunSpec) -> Hashable:
        """Specs with equal keys are handed over together, because they can share work."""

    def share_levels(self, spec: RunSpec) -> tuple[Hashable, ...]:
        """What specs of equal keys share beyond that, coarse to fine; if a group is split, then where these differ."""

    def run(self, specs: Sequence[RunSpec], split: Any, context: RunContext) -> Iterator[Outcome | Failure]:
        """One outcome a spec, as soon as it is known.

        An exception that escapes ends the group: it is recorded as the failure of every spec not yet answered for.
        """

    def load(self, spec: RunSpec, file: Path, device: str, trust: bool) -> Any:
        """The model that `Outcome.save_model` wrote: a `Scorer`, or for classification a `Namer`.

        Args:
            spec: of the run.
            file: what was written.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: whether code in the file may be executed, where it can't be loaded without.

        Raises:
            WeightsError: the file is damaged, does not fit the spec, or would execute code and is not trusted.
        """
