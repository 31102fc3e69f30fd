"""A plain script that trains a classifier with timm's own functions and defaults.

Augmentation, optimiser groups, schedule and label smoothing are those of timm's `train.py`: random resized crops, flips
and colour jitter, no weight decay of norms and biases, a cosine, smoothing 0.1. Its defaults for 300 epochs of ImageNet
are shortened: the warm-up takes a tenth of the epochs. The loop validates after each epoch, as `train.py` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.utils.data import DataLoader, Dataset

from benchmarks.recipe_tasks import Pixels
from harness.backbones.inject import load_into
from harness.backbones.resolve import Weights

# Name in timm -> learning rate and weight decay. SGD has those of train.py: 0.1 for 256 images in a batch.
OPTIMISERS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1 * 16 / 256, "weight_decay": 2e-5},
    "adamw": {"lr": 1e-3, "weight_decay": 2e-2},
}


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Images of an array through timm's transform."""

    def __init__(self, pixels: Pixels, targets: npt.NDArray[np.int64], transform: Any) -> None:
        self._pixels, self._targets, self._transform = pixels, targets, transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self._pixels[index].transpose(1, 2, 0))
        return self._transform(image), int(self._targets[index])


def train_plain(
    backbone: str, weights: Weights, pixels: Pixels, targets: npt.NDArray[np.int64],
    train: Any, test: Any, *, optimiser: str, epochs: int, batch: int, seed: int,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Train, and return the predicted labels of the test images.

    Args:
        backbone: timm's name.
        weights: of the backbone.
        pixels: all images, (n, 3, side, side).
        targets: all labels, (n,).
        train: training positions.
        test: test positions.
        optimiser: a key of `OPTIMISERS`.
        epochs: number of epochs.
        batch: images in a batch.
        seed: of all random numbers.
    """
    timm.utils.random_seed(seed)
    network = timm.create_model(backbone, num_classes=0)
    load_into(network, backbone, weights, seed)
    network.reset_classifier(int(targets.max()) + 1)
    network = network.to(memory_format=torch.channels_last)
    config = timm.data.resolve_model_data_config(network)
    side, norm = pixels.shape[-1], {"mean": config["mean"], "std": config["std"]}
    learn = create_transform(side, is_training=True, **norm)
    plain = create_transform(side, crop_pct=1.0, **norm)
    train_loader = DataLoader(Images(pixels[train], targets[train], learn), batch, shuffle=True, drop_last=True)
    test_loader = DataLoader(Images(pixels[test], targets[test], plain), 64)
    optimizer = create_optimizer_v2(network, opt=optimiser, **OPTIMISERS[optimiser])
    schedule, _ = create_scheduler_v2(optimizer, num_epochs=epochs, warmup_epochs=max(1, epochs // 10))
    criterion = LabelSmoothingCrossEntropy(0.1)
    predicted: list[torch.Tensor] = []
    for epoch in range(epochs):
        network.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            criterion(network(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
        schedule.step(epoch + 1)
        network.eval()
        with torch.inference_mode():
            predicted = [network(images).argmax(dim=1) for images, _ in test_loader]
    return torch.cat(predicted).numpy()
