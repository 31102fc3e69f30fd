"""The base class of all detectors: methods for Python users, and stages that a group of detectors can share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones.layers import chosen_layers, construction, default_layers, is_transformer, patches_of
from harness.backbones.networks import known_backbone
from harness.backbones.normalization import BACKBONE, effective
from harness.backbones.resolve import Weights, resolve
from harness.common.devices import Device, pick
from harness.common.errors import ConfigError, NotFittedError
from harness.config.threshold import FOLDS
from harness.data.base import existing_dir
from harness.data.samples import Sample, Split
from harness.detectors.arguments import check_whole
from harness.detectors.cache import StageCache
from harness.detectors.context import StageContext
from harness.detectors.default import BatchScores, Learnt, ScoringHead
from harness.detectors.features import PRECISIONS, Extractor, FeatureMaps, Features, build_extractor
from harness.detectors.group import Group
from harness.detectors.maps import Scores
from harness.detectors.memory import Memory
from harness.detectors.options import Options, check_names, image_sizes
from harness.detectors.reporter import Reporter
from harness.detectors.saving import save
from harness.detectors.sources import ImageLike, ImageSource, Preprocessing, fingerprint, image_list
from harness.detectors.stages import Stage, Stages
from harness.metrics.evaluate import evaluate
from harness.predictions.decision import Thresholds
from harness.predictions.detection import join

# The tensors of a fitted detector by name: with the backbone, everything that scoring needs.
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """The scores of one image; larger values are more anomalous.

    Attributes:
        score: raw image score.
        anomaly_map: (height, width), raw, at the size of the network's input.
    """

    score: float
    anomaly_map: npt.NDArray[np.float32]


class Detector(ABC):
    """A detector that learns from normal images.

    Args:
        backbone: timm's name.
        layers: names of the feature layers, or depths in percent; see `harness.backbones.layers.default_layers`.
        options: see `harness.detectors.options.Options`.

    Attributes:
        name: name in the registry.
        default_image_size: default of `image_size`, in pixels.
        uses_seed: whether the result depends on the seed, apart from random weights.
        trains_in_epochs: whether the training takes several passes over the images.
        least_images: smallest number of normal training images.
        only_transformers: whether the backbone must be a plain vision transformer.
        rotations: number of rotations of each training image.
        default_folds: default of `threshold.folds`. None for a method whose models may have scores of different scales:
            out-of-fold scores say little about the final model; `benchmarks/trust_false_alarms.py` measures it.
        implied: values of parameters that earlier versions had no name for. A run with these values keeps its identity.
        state: tensors of the fitted detector; None before `fit`.
        weights: source of the backbone's weights.
        preprocessing: preprocessing of the images.
    """

    name: ClassVar[str]
    default_image_size: ClassVar[int] = 256
    uses_seed: ClassVar[bool] = False
    trains_in_epochs: ClassVar[bool] = False
    least_images: ClassVar[int] = 1
    only_transformers: ClassVar[bool] = False
    rotations: int = 1
    default_folds: ClassVar[int | None] = FOLDS
    implied: ClassVar[Mapping[str, object]] = MappingProxyType({})

    def __init__(self, backbone: str, layers: Sequence[str], **options: Unpack[Options]) -> None:
        check_names(type(self).__name__, options)
        self.backbone = backbone
        self.precision = options.get("precision", "fp32")
        self.seed = options.get("seed", 0)
        check_whole("batch_size", options.get("batch_size", 32))
        check_whole("num_workers", options.get("num_workers", 0), minimum=0)
        self.state: State | None = None
        self._options = options
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: found {self.precision!r}, expected {', '.join(PRECISIONS)}.")
        size, crop = image_sizes(options, self.default_image_size)
        known_backbone(backbone)
        if self.only_transformers and not is_transformer(backbone):
            raise ConfigError(
                f"backbone: found {backbone}; {self.name} expects a plain vision transformer, such as "
                "vit_small_patch14_dinov2."
            )
        named = (layers,) if isinstance(layers, str) else tuple(layers)
        # Depths become names here.
        self.layers = default_layers(backbone, named) if any(str(name).endswith("%") for name in named) else named
        chosen_layers(backbone, self.layers)
        self.weights: Weights = resolve(options.get("weights", "auto"), backbone)
        normalization = effective(options.get("normalization", BACKBONE), self.weights.normalization)
        self.preprocessing = Preprocessing(size, crop, normalization)
        # An unsupported image size raises a ConfigError here.
        construction(backbone, self.preprocessing.input_size)
        self.device: Device = pick(options.get("device", "auto"))
        self._extractor: Extractor | None = None

    # ---- functions that each method defines

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The method's own constructor arguments."""

    def learn(self, features: FeatureMaps) -> State:
        """Compute the state from the features of all training images.

        A method that overrides `fit_stage` does not need this function.

        Args:
            features: features of `needed_layers()`, (images, channels, height, width) each, on the device.

        Raises:
            NotImplementedError: the method defines neither `learn` nor `fit_stage`.
        """
        raise NotImplementedError(f"{self.name}: expected learn() or fit_stage().")

    @abstractmethod
    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch.

        Args:
            state: result of `learn`, on the device.
            features: features of `needed_layers()`, on the device.
            size: (height, width) of the maps.
        """

    def head(self) -> nn.Module:
        """`score` as a module for export: from features by layer to scores (n,) and maps (n, height, width).

        A method overrides this function if `score` has loops over data or operations that ONNX lacks.
        """
        return ScoringHead(self)

    def as_exported(self) -> Self:
        """A detector that computes as its exported file does; this one, unless a method overrides the function."""
        return self

    # ---- functions that a method may override to share work within a group

    def fit_stage(self, group: Group) -> Stage:
        """The stage whose result is the `State` of this detector.

        Args:
            group: all detectors of the call, with this one; one stage may serve several of them.
        """
        return self._learnt(group)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage whose result is the `Scores` of this detector for the images of a role.

        Args:
            role: train, val or test.
            group: see `fit_stage`.
        """
        return BatchScores(self._learnt(group), self.features(role, group))

    def sharing_key(self) -> Hashable:
        """Detectors of one class with equal keys share stages beyond the features; see `Group.alike`.

        The key has each argument that changes a shared stage. It leaves out those that one stage serves together.
        """
        return self.layers, self.extraction(training=True)

    def _learnt(self, group: Group) -> Learnt:
        key = (self.name, self.layers, repr(self.parameters()), self.seed if self.uses_seed else 0)
        return Learnt(self.features("train", group), key, self)

    def problems(self, train_images: int) -> list[str]:
        """Reasons why `fit` would fail, one sentence each; the check needs no images.

        Args:
            train_images: number of normal training images.
        """
        problems = []
        stride = chosen_layers(self.backbone, self.layers)[0].stride
        height, width = self.preprocessing.input_size
        if is_transformer(self.backbone) and (height % stride or width % stride):
            axis = "center_crop" if self.preprocessing.crop else "image_size"
            multiple = f"{max(height // stride, 1) * stride}x{max(width // stride, 1) * stride}"
            problems.append(
                f"{axis}: {height}x{width} found; expected multiples of {stride}, the patch size of {self.backbone}, "
                f"such as {multiple}."
            )
        if train_images < self.least_images:
            problems.append(
                f"{self.name}: {train_images} normal training images found; expected {self.least_images} or more."
            )
        return problems

    def patches(self, images: int) -> int:
        """Number of patches of some images.

        Args:
            images: number of images.
        """
        return patches_of(images, chosen_layers(self.backbone, self.layers)[0], self.preprocessing.input_size)

    def bytes_of_all_patches(self, train_images: int) -> int:
        """Most bytes of vectors that `fit` stores for a selection from all patches at once; 0 without one.

        Args:
            train_images: number of normal training images.
        """
        del train_images
        return 0

    def needed_layers(self) -> tuple[str, ...]:
        """Names of the layers that the method uses."""
        return self.layers

    def state_warnings(self) -> list[str]:
        """Warnings about parameters that the training images do not allow, one sentence each."""
        return []

    def notes(self, state: State) -> list[str]:
        """Facts about a fitted detector for its report; a subclass may have some.

        Args:
            state: the fitted state.
        """
        del state
        return []

    def limits(self) -> list[str]:
        """Facts about all scores of this detector that a user must know; a subclass may have some."""
        return []

    def timing_key(self) -> Hashable:
        """Everything that the time of an image depends on, beside network and preprocessing.

        One timing serves all detectors with equal keys.
        """
        return self.name, repr(self.parameters())

    @property
    def weights_seed(self) -> int:
        """The seed of random weights; 0 for other weights."""
        return self.seed if self.weights.source == "random" else 0

    def extraction(self, training: bool) -> tuple[str, int, int]:
        """Precision, seed of random weights and number of rotations. Detectors with equal values share one pass.

        Args:
            training: whether the images are the training images.
        """
        return self.precision, self.weights_seed, self.rotations if training else 1

    def features(self, role: str, group: Group) -> Features:
        """The stage of the features; one pass computes the layers of all detectors with the same network.

        Args:
            role: train, val or test.
            group: see `fit_stage`.
        """
        training = role == "train"
        precision, seed, rotations = self.extraction(training)
        return Features(role, group.layers(self, training), precision, seed, rotations=rotations)

    # ---- functions for users

    def fit(self, images: str | Path | Split | Iterable[ImageLike]) -> Self:
        """Train on normal images.

        Args:
            images: a folder, a `Split` (its training images), or an iterable. Its items are paths, 8-bit RGB arrays,
                PIL images, float tensors (3, height, width) in [0, 1], (image, label) pairs, or have an `image`.

        Raises:
            DataError: there are no images, or an image can't be read.
            WeightsError: there are no weights for the backbone.
        """
        train = image_list(images)
        self.forget()
        with Reporter(self._options.get("progress", True), self.name) as reporter:
            contents = fingerprint(train) if self._options.get("cache") is not None else None
            context = self.stage_context({"train": train}, reporter.show, contents)
            root = self.fit_stage(Group([self]))
            stages = Stages([root], context)
            self.state = {name: _compact(tensor) for name, tensor in stages.value(root).items()}
        reporter.warn([*stages.warnings(root), *self.state_warnings()])
        return self

    def predict(self, image: ImageLike) -> Prediction:
        """Score one image.

        Raises:
            NotFittedError: the detector is not fitted.
        """
        scores = self.score_batch(self.preprocessing(image)[None])
        return Prediction(float(scores.images[0]), scores.maps[0].cpu().numpy())

    def evaluate(self, data: str | Path | Split) -> dict[str, float | None]:
        """Compute the metrics of the test images, as in the sheet of a sweep.

        Args:
            data: a folder in MVTec layout, or a `Split`.

        Returns:
            Values by metric. `*_F1Score` is None, because there is no threshold.
        """
        samples = data.real_test if isinstance(data, Split) else _mvtec_test(Path(data))
        source = self._source([sample.path for sample in samples])
        raw: dict[str, tuple[float, npt.NDArray[np.float32] | None]] = {}
        done = 0
        with Reporter(self._options.get("progress", True), self.name) as reporter:
            for batch in source.batches():
                scores = self.score_batch(batch)
                for score, anomaly_map in zip(scores.images.tolist(), scores.maps.cpu().numpy(), strict=True):
                    raw[samples[done].path] = (score, anomaly_map)
                    done += 1
                reporter.show(f"scores {done / len(samples):.0%}")
        test = join(samples, raw, self.preprocessing.size)
        return evaluate(test, Thresholds(None, None, "none"))

    def save(self, path: str | Path) -> Path:
        """Write the detector with its backbone to one safetensors file, for `load`.

        Raises:
            NotFittedError: the detector is not fitted.
            StoreError: the file can't be written.
        """
        return save(self, Path(path))

    def restore(self, state: State, extractor: Extractor) -> None:
        """Set the state and the network of a saved detector.

        Args:
            state: tensors of the fitted detector.
            extractor: the network with its weights.
        """
        self.state = state
        self._extractor = extractor.to(self.device.torch)

    def lend(self, extractor: Extractor) -> None:
        """Use a network of another detector with the same parameters, on the same device."""
        self._extractor = extractor

    def forget(self) -> None:
        """Delete the state and the network, to free their memory."""
        self.state = None
        self._extractor = None

    # ---- functions for backends

    def stage_context(
        self,
        images: Mapping[str, Sequence[ImageLike]],
        on_progress: Any,
        contents: str | None,
        scratch: Path | None = None,
    ) -> StageContext:
        """The context of the stages of all detectors with the same backbone, weights and preprocessing.

        Args:
            images: images by role.
            on_progress: called with a text about the progress.
            contents: fingerprint of the images, for the cache; None for no cache.
            scratch: folder for features that exceed the memory limit.
        """
        context = StageContext(
            device=self.device,
            images={role: self._source(role_images) for role, role_images in images.items()},
            backbone=self.backbone,
            weights=self.weights,
            memory=Memory(self._options.get("memory_limit"), scratch),
            fingerprint=contents or "",
            on_progress=on_progress,
        )
        folder = self._options.get("cache")
        if folder is not None and contents is not None:
            context.cache = StageCache(Path(folder), self._options.get("cache_limit", 20 * 10**9), context.warn)
        return context

    def _source(self, images: Sequence[ImageLike]) -> ImageSource:
        options = self._options
        return ImageSource(images, self.preprocessing, options.get("batch_size", 32), options.get("num_workers", 0))

    def fitted(self) -> State:
        """The state of the fitted detector.

        Raises:
            NotFittedError: the detector is not fitted.
        """
        if self.state is None:
            raise NotFittedError(f"{self.name}: not fitted; expected a fitted detector. Call fit() or load().")
        return self.state

    def extractor(self) -> Extractor:
        """The backbone on the device, built on the first call."""
        if self._extractor is None:
            self._extractor = build_extractor(
                self.backbone,
                self.needed_layers(),
                self.preprocessing.input_size,
                self.weights,
                self.weights_seed,
                self.precision,
            )
            self._extractor.to(self.device.torch)
        return self._extractor

    def prepare(self) -> State:
        """Build everything that scoring needs, so that the first image is not slower.

        Returns:
            The state, on the device.
        """
        device = self.device.torch
        state = self.fitted()
        if any(tensor.device != device for tensor in state.values()):
            self.state = state = {name: tensor.to(device) for name, tensor in state.items()}
        self.extractor()
        return state

    def grids(self) -> list[tuple[int, int]]:
        """(height, width) of the features of each layer, in the order of `layers`."""
        with torch.no_grad():
            features = self.extractor()(torch.zeros(1, 3, *self.preprocessing.input_size, device=self.device.torch))
        return [(features[layer].shape[2], features[layer].shape[3]) for layer in self.layers]

    def score_batch(self, batch: torch.Tensor) -> Scores:
        """Score a batch of images (n, 3, height, width), normalised."""
        state = self.prepare()
        with torch.no_grad():
            features = self.extractor()(batch.to(self.device.torch))
            return self.score(state, features, self.preprocessing.input_size)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without the rest of a larger storage."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _mvtec_test(root: Path) -> Sequence[Sample]:
    from harness.data.mvtec import load_tree

    return load_tree(existing_dir(root, "evaluate"), "").test
