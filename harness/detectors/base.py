"""What all detectors share: the face that Python users see, and the contract that lets a group of them share work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones.layers import chosen_layers, construction, is_transformer
from harness.backbones.networks import known_backbone
from harness.backbones.normalization import BACKBONE, effective
from harness.backbones.resolve import Weights, resolve
from harness.common.devices import Device, pick
from harness.common.errors import ConfigError, NotFittedError
from harness.data.base import Sample, Split, existing_dir
from harness.detectors.arguments import check_pixels
from harness.detectors.cache import StageCache
from harness.detectors.context import StageContext
from harness.detectors.default import BatchScores, Learnt, ScoringHead
from harness.detectors.features import PRECISIONS, Extractor, FeatureMaps, Features, build_extractor
from harness.detectors.maps import Scores
from harness.detectors.memory import Memory
from harness.detectors.reporter import Reporter
from harness.detectors.saving import save
from harness.detectors.sources import ImageLike, ImageSource, Preprocessing, contents, image_list
from harness.detectors.stages import Stage, Stages
from harness.metrics.evaluate import evaluate
from harness.predictions.decision import Thresholds
from harness.predictions.detection import join

# What a fitted detector keeps: names and tensors, all that scoring needs beside the backbone.
State = dict[str, torch.Tensor]


class Options(TypedDict, total=False):
    """Keyword arguments of every detector.

    Attributes:
        image_size: size of the image after resizing, in pixels: one number, or (height, width). Default: the
            method's own size, 256 for most.
        center_crop: size of the centre that stays after that, in pixels. Default: everything.
        precision: of the backbone: fp32, bf16 or fp16. Default fp32.
        weights: auto, pretrained, random or a path. Default auto.
        normalization: of the input: backbone (the values of the network's training), imagenet, or a mapping with mean
            and std, three numbers each for RGB in 0 to 1. Default backbone.
        device: auto, cpu, cuda, cuda:N or mps. Default auto.
        seed: of everything random. Default 0.
        batch_size: number of images in a batch. Default 32.
        num_workers: processes that decode images. Default 0: the process itself.
        memory_limit: bytes that features may take in memory. Default half of what is free.
        cache: a folder that keeps the results of long stages. Default none.
        cache_limit: bytes of the cache. Default 20 GB.
        progress: whether to draw a bar. Default True.
    """

    image_size: int | Sequence[int]
    center_crop: int | Sequence[int] | None
    precision: str
    weights: str
    normalization: str | Mapping[str, Sequence[float]]
    device: str
    seed: int
    batch_size: int
    num_workers: int
    memory_limit: int | None
    cache: str | Path | None
    cache_limit: int
    progress: bool


@dataclass(frozen=True)
class Prediction:
    """The prediction of a detector for one image; a larger score is more anomalous.

    Attributes:
        score: raw.
        anomaly_map: (height, width), raw, at the size of the network's input.
    """

    score: float
    anomaly_map: npt.NDArray[np.float32]


class Detector(ABC):
    """A detector that learns from images of normal parts.

    Attributes:
        name: the name in the registry.
        default_image_size: height and width in pixels of resized images, where the user asks for no size.
        uses_seed: whether the result depends on the seed, with weights that do not.
        trains_in_epochs: whether it trains in epochs, and not in one pass over the images.
        least_images: the smallest number of normal images.
        state: the tensors that it has learnt; None before `fit`.
        weights: where the backbone's weights come from.
    """

    name: ClassVar[str]
    default_image_size: ClassVar[int] = 256
    uses_seed: ClassVar[bool] = False
    trains_in_epochs: ClassVar[bool] = False
    least_images: ClassVar[int] = 1

    def __init__(self, backbone: str, layers: Sequence[str], **options: Unpack[Options]) -> None:
        unknown = set(options) - set(Options.__annotations__)
        if unknown:
            raise TypeError(f"{type(self).__name__}: unknown argument {', '.join(sorted(unknown))}")
        self.backbone = backbone
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.precision = options.get("precision", "fp32")
        self.seed = options.get("seed", 0)
        self.state: State | None = None
        self._options = options
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision: found {self.precision!r}, expected {', '.join(PRECISIONS)}.")
        size = check_pixels("image_size", options.get("image_size", self.default_image_size))
        crop = options.get("center_crop")
        cropped = None if crop is None else check_pixels("center_crop", crop)
        if cropped is not None and (cropped[0] > size[0] or cropped[1] > size[1]):
            raise ConfigError(f"center_crop: found {cropped}, expected at most the image size, {size}.")
        known_backbone(backbone)
        chosen_layers(backbone, self.layers)
        self.weights: Weights = resolve(options.get("weights", "auto"), backbone)
        normalization = effective(options.get("normalization", BACKBONE), self.weights.normalization)
        self.view = Preprocessing(size, cropped, normalization)
        # Refuses a size that the network does not take.
        construction(backbone, self.view.input_size)
        self.device: Device = pick(options.get("device", "auto"))
        self._extractor: Extractor | None = None

    # ---- what a method defines: parameters, learn and score

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The method's own constructor arguments."""

    def learn(self, features: FeatureMaps) -> State:
        """The state that scoring needs, from the features of all training images.

        A method with stages of its own (`fit_stage`) does not need this function.

        Args:
            features: of `needed_layers()`, each (images, channels, height, width), on the device.
        """
        raise NotImplementedError(f"{self.name}: expected learn() or fit_stage().")

    @abstractmethod
    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Scores for a batch, from what was learnt.

        Args:
            state: on the device.
            features: of `needed_layers()`, on the device.
            size: (height, width) of the maps.
        """

    def head(self) -> nn.Module:
        """`score` as a module for export: features by layer -> scores (n,), maps (n, height, width).

        A method overrides this function where `score` has operations that ONNX lacks, or loops over data.
        """
        return ScoringHead(self)

    # ---- what a method may define to share work with others of its group

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """The stage whose result is this detector's `State`.

        Args:
            group: all detectors that are worked on together, this one among them: a stage may be made large enough
                for several.
        """
        return self._learnt(group)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """The stage whose result is this detector's `Scores` for the images of a role.

        Args:
            role: train, val or test.
            group: as for `fit_stage`.
        """
        return BatchScores(self._learnt(group), self.features(role, group))

    def _learnt(self, group: Sequence[Detector]) -> Learnt:
        key = (self.name, self.layers, repr(self.parameters()), self.seed if self.uses_seed else 0)
        return Learnt(self.features("train", group), key, self)

    def problems(self, train_images: int) -> list[str]:
        """What would make `fit` fail on so many images, found before any work; one sentence each.

        Args:
            train_images: number of normal training images.
        """
        problems = []
        stride = chosen_layers(self.backbone, self.layers)[0].stride
        height, width = self.view.input_size
        if is_transformer(self.backbone) and (height % stride or width % stride):
            axis = "center_crop" if self.view.crop else "image_size"
            fitting = f"{max(height // stride, 1) * stride}x{max(width // stride, 1) * stride}"
            problems.append(
                f"{axis}: {height}x{width} found; {self.backbone} cuts images into patches of {stride} pixels and "
                f"needs multiples of that, such as {fitting}."
            )
        if train_images < self.least_images:
            problems.append(
                f"{self.name}: {train_images} normal training images found; expected {self.least_images} or more."
            )
        return problems

    def needed_layers(self) -> tuple[str, ...]:
        """Layers that it takes features of."""
        return self.layers

    def state_warnings(self) -> list[str]:
        """What could not be had of what was asked for, from the images that were learnt; one sentence each."""
        return []

    def timing_key(self) -> Hashable:
        """What the time of an image depends on, beside network and view: those of equal speed are timed once."""
        return self.name, repr(self.parameters())

    @property
    def weights_seed(self) -> int:
        """Random weights are drawn from the seed; others do not depend on it."""
        return self.seed if self.weights.source == "random" else 0

    def features(self, role: str, group: Sequence[Detector]) -> Features:
        """Features of all layers that the group wants of images of a role, where the network is the same."""
        network = (self.precision, self.weights_seed)
        alike = [one for one in group if (one.precision, one.weights_seed) == network]
        wanted = {layer for one in alike for layer in one.needed_layers()}
        return Features(role, tuple(sorted(wanted)), self.precision, self.weights_seed)

    # ---- what users call

    def fit(self, images: str | Path | Split | Iterable[ImageLike]) -> Self:
        """Learn what normal parts look like.

        Args:
            images: a folder, a `Split` (its training images), or an iterable of images. An image is a path, an 8-bit
                RGB array, a PIL image, or a float tensor (3, height, width) in [0, 1]. An item may also be an
                (image, label) pair, or have an `image`.

        Raises:
            DataError: there are no images, or one can't be read.
            WeightsError: there are no weights for the backbone.
        """
        pictures = image_list(images)
        self.forget()
        with Reporter(self._options.get("progress", True), self.name) as reporter:
            known = contents(pictures) if self._options.get("cache") is not None else None
            context = self.stage_context({"train": pictures}, reporter.say, known)
            root = self.fit_stage([self])
            stages = Stages([root], context)
            self.state = {name: _own(tensor) for name, tensor in stages.value(root).items()}
        reporter.warn([*stages.warnings(root), *self.state_warnings()])
        return self

    def predict(self, image: ImageLike) -> Prediction:
        """Score one image.

        Raises:
            NotFittedError: call `fit` or `load` first.
        """
        scores = self.score_batch(self.view(image)[None])
        return Prediction(float(scores.images[0]), scores.maps[0].cpu().numpy())

    def evaluate(self, data: str | Path | Split) -> dict[str, float | None]:
        """Metrics on the test images, as in the workbook. There is no threshold, so `*_F1Score` is None.

        Args:
            data: a folder in MVTec layout, or a `Split`.
        """
        samples = data.test if isinstance(data, Split) else _mvtec_test(Path(data))
        source = self._source([sample.path for sample in samples])
        raw: dict[str, tuple[float, npt.NDArray[np.float32] | None]] = {}
        done = 0
        with Reporter(self._options.get("progress", True), self.name) as reporter:
            for batch in source.batches():
                scores = self.score_batch(batch)
                for score, one in zip(scores.images.tolist(), scores.maps.cpu().numpy(), strict=True):
                    raw[samples[done].path] = (score, one)
                    done += 1
                reporter.say(f"scores {done / len(samples):.0%}")
        test = join(samples, raw, self.view.size)
        return evaluate(test, Thresholds(None, None, "none"))

    def save(self, path: str | Path) -> Path:
        """Write the detector and its backbone to one safetensors file, for `load`.

        Raises:
            NotFittedError: call `fit` first.
        """
        return save(self, Path(path))

    def remember(self, state: State, extractor: Extractor) -> None:
        """Take over what a saved detector had learnt, and its network."""
        self.state = state
        self._extractor = extractor.to(self.device.torch)

    def lend(self, extractor: Extractor) -> None:
        """Take a network that is built already, the same as one's own, on the device."""
        self._extractor = extractor

    def forget(self) -> None:
        """Drop what was learnt, and the network: a detector of a sweep keeps them only while they are needed."""
        self.state = None
        self._extractor = None

    # ---- in between

    def stage_context(
        self,
        pictures: Mapping[str, Sequence[ImageLike]],
        tell: Any,
        data: str | None,
        scratch: Path | None = None,
    ) -> StageContext:
        """What the stages of this detector, and of others with the same backbone and view, work with.

        Args:
            pictures: by role.
            tell: called with a word on what goes on.
            data: fingerprint of the pictures' contents, for the cache; None keeps nothing.
            scratch: where features go that exceed the memory allowed.
        """
        context = StageContext(
            device=self.device,
            images={role: self._source(chosen) for role, chosen in pictures.items()},
            backbone=self.backbone,
            weights=self.weights,
            memory=Memory(self._options.get("memory_limit"), scratch),
            data=data or "",
            tell=tell,
        )
        folder = self._options.get("cache")
        if folder is not None and data is not None:
            context.cache = StageCache(Path(folder), self._options.get("cache_limit", 20 * 10**9), context.warn)
        return context

    def _source(self, pictures: Sequence[ImageLike]) -> ImageSource:
        return ImageSource(
            pictures, self.view, self._options.get("batch_size", 32), self._options.get("num_workers", 0)
        )

    def fitted(self) -> State:
        """What was learnt.

        Raises:
            NotFittedError: nothing yet.
        """
        if self.state is None:
            raise NotFittedError(f"{self.name}: has not learnt anything yet; call fit() first, or load a saved model.")
        return self.state

    def extractor(self) -> Extractor:
        """The backbone, on the device; built when it is first asked for."""
        if self._extractor is None:
            self._extractor = build_extractor(
                self.backbone,
                self.needed_layers(),
                self.view.input_size,
                self.weights,
                self.weights_seed,
                self.precision,
            )
            self._extractor.to(self.device.torch)
        return self._extractor

    def grids(self) -> dict[str, tuple[int, int]]:
        """(height, width) of the features of each layer."""
        with torch.no_grad():
            features = self.extractor()(torch.zeros(1, 3, *self.view.input_size, device=self.device.torch))
        return {layer: (one.shape[2], one.shape[3]) for layer, one in features.items()}

    def score_batch(self, batch: torch.Tensor) -> Scores:
        """(n, 3, height, width), normalised -> scores."""
        device = self.device.torch
        state = self.fitted()
        if any(tensor.device != device for tensor in state.values()):
            self.state = state = {name: tensor.to(device) for name, tensor in state.items()}
        with torch.no_grad():
            features = self.extractor()(batch.to(device))
            return self.score(state, features, self.view.input_size)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without what it may be a part of."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _mvtec_test(root: Path) -> Sequence[Sample]:
    from harness.data.mvtec import load_tree

    return load_tree(existing_dir(root, "evaluate"), "").test
