"""The harness's split as an anomalib datamodule, with the images, roles and decoding of every backend."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from torchvision.tv_tensors import Image, Mask

from harness.data.images import read_image
from harness.data.mask_images import union
from harness.data.samples import Sample, Split


class SplitDataset(AnomalibDataset):
    """The samples of one subset.

    Args:
        samples: the samples, one image each.
        with_masks: whether the data has masks; a normal image then gets an empty mask.
    """

    def __init__(self, samples: Sequence[Sample], with_masks: bool) -> None:
        super().__init__()
        # anomalib reads the task from the attributes of the frame, and all other values from the frame itself.
        frame = pd.DataFrame(
            {
                "image_path": [s.path for s in samples],
                "label": [s.defect for s in samples],
                "label_index": [s.label for s in samples],
                "mask_path": [s.masks[0] if s.masks else "" for s in samples],
                "split": "",
            }
        )
        frame.attrs["task"] = "segmentation" if with_masks else "classification"
        self.samples = frame
        self._by_path = {s.path: s for s in samples}

    def __getitem__(self, index: int) -> ImageItem:
        sample = self._by_path[self.samples.iloc[index].image_path]
        pixels = read_image(sample.path)
        image = Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).float() / 255
        mask = None
        if self.task == "segmentation":
            size = (pixels.shape[0], pixels.shape[1])
            truth = torch.from_numpy(union(sample.masks)) if sample.masks else torch.zeros(size)
            mask = Mask(truth.to(torch.uint8))
        if self.augmentations:
            # anomalib puts the model's resizing here, so that images of different sizes fit into one batch.
            image, mask = self.augmentations(image, mask) if mask is not None else (self.augmentations(image), None)
        return ImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(sample.label),
            image_path=sample.path,
            mask_path=sample.masks[0] if sample.masks else None,
        )


class SplitDataModule(AnomalibDataModule):
    """anomalib's loaders and transforms for a `Split`.

    anomalib fits its own normaliser and threshold on the validation subset. The subset is the held-out normal images.
    Without held-out images the subset is the test images, which is anomalib's default for MVTec AD.

    Args:
        split: the data.
        train_batch_size: images in a training batch.
        eval_batch_size: images in a validation or test batch.
        num_workers: processes that load images.
    """

    def __init__(self, split: Split, train_batch_size: int, eval_batch_size: int, num_workers: int) -> None:
        super().__init__(train_batch_size, eval_batch_size, num_workers)
        self._split = split
        self._category = split.category
        self.root = split.root

    @property
    def name(self) -> str:
        """Kind of the dataset."""
        return self._split.kind

    def prepare_data(self) -> None:
        """Do nothing, because the samples are on disk and already checked."""

    def _setup(self, _stage: str | None = None) -> None:
        masks = self._split.has_masks
        self.train_data = SplitDataset(self._split.train, masks)
        self.val_data = SplitDataset(self._split.val or self._split.real_test, masks)
        self.test_data = SplitDataset(self._split.test, masks)

    def _create_test_split(self) -> None:
        """Do nothing, because the split is fixed."""

    def _create_val_split(self) -> None:
        """Do nothing, because the split is fixed."""
