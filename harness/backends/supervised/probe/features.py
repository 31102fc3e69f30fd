"""Features of the frozen network, computed once for all runs of a process with the same images and network."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harness.backbones.resolve import Weights
from harness.backends.base import RunContext
from harness.backends.supervised.decoding import Pixels, decode_once
from harness.backends.supervised.fold_data import as_images
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.probe.heads import Features
from harness.backends.supervised.probe.settings import ProbeSettings
from harness.common.devices import Device
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of all images of the data.

    Attributes:
        network: the frozen network; its head is not used.
        train: (n, width) features of the training images.
        test: (m, width) features of the test images.
        train_seconds: time of the training images, with the reading of all images.
        test_seconds: time of the test images.
    """

    network: Classifier
    train: Features
    test: Features
    train_seconds: float
    test_seconds: float


# The features of the last call of `features_once`, by everything that they depend on.
_CACHE: dict[str, FrozenFeatures] = {}


def features_once(
    spec: RunSpec,
    settings: ProbeSettings,
    split: LabelledSplit,
    weights: Weights,
    device: Device,
    context: RunContext,
) -> FrozenFeatures:
    """Compute the features of all images, or return those of the last call.

    Args:
        spec: the run.
        settings: settings of the run.
        split: the data.
        weights: weights of the backbone.
        device: the device of the network.
        context: resources and options.

    Raises:
        MemoryLimitError: the images fit neither into memory nor on the disk.
        DataError: an image cannot be read.
        WeightsError: the weights do not fit the backbone.
    """
    normalization = settings.normalization.as_dict() if settings.normalization else None
    # Only random weights depend on the seed.
    identity = weights.sha256 or spec.seed
    key = json.dumps(
        [split.fingerprint, spec.backbone, identity, settings.image_size, normalization, str(device.torch)]
    )
    if key not in _CACHE:
        # The old features must not take memory from the new ones.
        _CACHE.clear()
        _CACHE[key] = _computed(spec, settings, split, weights, device, context)
    return _CACHE[key]


def _computed(
    spec: RunSpec,
    settings: ProbeSettings,
    split: LabelledSplit,
    weights: Weights,
    device: Device,
    context: RunContext,
) -> FrozenFeatures:
    start = time.perf_counter()
    context.stage("reading images")
    paths = [sample.path for sample in (*split.train, *split.test)]
    pixels = decode_once(split.fingerprint, paths, settings.image_size, context.scratch, context.memory_limit)
    network = build(str(spec.backbone), 1, settings.of_network, weights, spec.seed).eval()
    context.stage("computing features")
    count, batch = len(split.train), spec.eval_batch_size
    train = embed_all(network, pixels, range(count), batch, device)
    train_seconds = time.perf_counter() - start
    start = time.perf_counter()
    test = embed_all(network, pixels, range(count, len(pixels)), batch, device)
    return FrozenFeatures(network, train, test, train_seconds, time.perf_counter() - start)


def embed_all(network: Classifier, pixels: Pixels, indices: Sequence[int], batch_size: int, device: Device) -> Features:
    """Compute the features of images.

    Args:
        network: the frozen network; afterwards on the cpu.
        pixels: all images, (n, 3, height, width).
        indices: positions of the wanted images.
        batch_size: images in a batch.
        device: the device of the network.

    Returns:
        Features (len(indices), width).
    """
    network.to(device.torch).eval()
    batches = [np.zeros((0, network.width), dtype=np.float32)]
    for start in range(0, len(indices), batch_size):
        batch = torch.from_numpy(np.stack([pixels[i] for i in indices[start : start + batch_size]]))
        with torch.inference_mode():
            batches.append(network.embed(as_images(batch.to(device.torch))).cpu().numpy())
    network.cpu()
    return np.concatenate(batches)
