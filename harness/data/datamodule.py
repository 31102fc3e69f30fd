"""Any other kind: one of anomalib's image datamodules by class name, with its own arguments.

anomalib lists the samples (and downloads the data where it can); the roles are the harness's: its normal training
images are split as `data.val` says, its test images are the test.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator

from harness.common.errors import DataError, nearest, unknown_name
from harness.common.paths import expanded
from harness.data.base import GOOD, DataOptions, Sample, SampleLists

# What the harness decides itself.
RESERVED = {"val_split_mode", "val_split_ratio", "seed", "train_augmentations", "val_augmentations",
            "test_augmentations", "augmentations"}  # fmt: skip


class DatamoduleData(DataOptions):
    """Options of any other kind: those shared by all, and the datamodule's own arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """The datamodule's own arguments have no field here."""
        if isinstance(value, dict) and isinstance(value.get("root"), str):
            return {**value, "root": expanded(value["root"])}
        return value

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """See `DataOptions.load`."""
        del work_dir
        datamodule = self._build(category)
        try:
            _keep_normal_test_images(datamodule)
            datamodule.prepare_data()
            datamodule.setup()
        # Whatever a third-party datamodule raises, the user sees which one and why.
        except Exception as error:
            raise DataError(f"data.kind: anomalib's {self.kind} failed ({type(error).__name__}: {error}).") from error
        root = Path(str(getattr(datamodule, "root", None) or ".")).absolute()
        train = _samples(datamodule.train_data.samples, root, self.kind)
        test = _samples(datamodule.test_data.samples, root, self.kind)
        return SampleLists(root, tuple(s for s in train if s.label == 0), tuple(test))

    def _build(self, category: str) -> Any:
        import anomalib.data
        from anomalib.data import AnomalibDataModule

        found = {
            name: cls
            for name in anomalib.data.__all__
            if inspect.isclass(cls := getattr(anomalib.data, name))
            and issubclass(cls, AnomalibDataModule)
            and cls.__module__.startswith("anomalib.data.datamodules.image")
        }
        by_lower = {name.lower(): cls for name, cls in found.items()}
        if self.kind.lower() not in by_lower:
            raise DataError(f"data.kind: {unknown_name('kind of data', self.kind, [*found, 'folder', 'mvtec', 'toy'])}")
        cls = by_lower[self.kind.lower()]
        known = set(inspect.signature(cls.__init__).parameters) - {"self"} - RESERVED
        arguments: dict[str, Any] = dict(self.model_extra or {})
        for name in arguments:
            if name not in known:
                near = nearest(name, known)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"data.{name}: {cls.__name__} has no such argument.{hint} Known: {', '.join(sorted(known))}."
                )
        if category and "category" in known:
            arguments["category"] = category
        # No validation part: `data.val` holds out normal training images instead.
        if "val_split_mode" in inspect.signature(cls.__init__).parameters:
            arguments["val_split_mode"] = "none"
        return cls(**arguments)


def _keep_normal_test_images(datamodule: Any) -> None:
    """Without a `test_split_mode` (MVTecAD2 has none to give) anomalib drops the normal images of a test set."""
    mode = getattr(datamodule, "test_split_mode", None)
    if getattr(mode, "value", mode) == "none":
        datamodule._create_test_split = lambda: None


def _samples(frame: Any, root: Path, kind: str) -> list[Sample]:
    samples = []
    for row in frame.to_dict("records"):
        mask = row.get("mask_path")
        # An empty cell is None, "" or NaN, as pandas and the datamodule have it.
        if mask is None or mask == "" or (isinstance(mask, float) and math.isnan(mask)):
            mask = None
        if mask is not None and not isinstance(mask, str | Path):
            raise DataError(f"data.kind: {kind} has several masks an image, one expected.")
        path = Path(row["image_path"]).absolute()
        label = int(row["label_index"])
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        given = row.get("label", path.parent.name)
        defect = (given if isinstance(given, str) else path.parent.name) if label else GOOD
        samples.append(Sample(str(path), name, label, defect, str(mask) if mask and label else None))
    return samples
