"""All other kinds: anomalib's image datamodules by class name, with the arguments of the class.

anomalib lists the samples, and downloads some data sets. The harness holds out normal training images by `data.val`,
and tests on anomalib's test images.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator

from harness import registry
from harness.common.errors import DataError, nearest, unknown_name
from harness.common.paths import expanded
from harness.data.base import DataOptions
from harness.data.samples import GOOD, Sample, SampleLists

# The harness sets these arguments.
RESERVED = {"val_split_mode", "val_split_ratio", "seed", "train_augmentations", "val_augmentations",
            "test_augmentations", "augmentations"}  # fmt: skip

UNKNOWN = -1  # anomalib's label of images without one
PART = re.compile(r"S\d{4}")


class DatamoduleData(DataOptions):
    """Options of all other kinds: the shared keys, and the arguments of the datamodule."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """Expand `root`, which is an argument of the datamodule and has no field."""
        if isinstance(value, dict) and isinstance(value.get("root"), str):
            return {**value, "root": expanded(value["root"])}
        return value

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category with anomalib.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: the class or an argument is unknown, or anomalib fails.
        """
        del work_dir
        datamodule = self._build(category)
        try:
            _keep_normal_test_images(datamodule)
            datamodule.prepare_data()
            with _texts_as_objects():
                datamodule.setup()
        # anomalib's datamodules raise many types of exceptions.
        except Exception as error:
            raise DataError(f"data.kind: anomalib's {self.kind} failed ({type(error).__name__}: {error}).") from error
        root = Path(str(getattr(datamodule, "root", None) or ".")).absolute()
        train = _samples(datamodule.train_data.samples, root)
        test = _samples(datamodule.test_data.samples, root)
        return SampleLists(
            root,
            tuple(s for s in train if s.label == 0),
            tuple(s for s in test if not s.unlabelled),
            unlabelled=tuple(s for s in test if s.unlabelled),
        )

    def _build(self, category: str) -> Any:
        import anomalib.data
        from anomalib.data import AnomalibDataModule

        kinds = {
            name: cls
            for name in anomalib.data.__all__
            if inspect.isclass(cls := getattr(anomalib.data, name))
            and issubclass(cls, AnomalibDataModule)
            and cls.__module__.startswith("anomalib.data.datamodules.image")
        }
        by_lower = {name.lower(): cls for name, cls in kinds.items()}
        if self.kind.lower() not in by_lower:
            raise DataError(f"data.kind: {unknown_name('kind of data', self.kind, [*kinds, *registry.DATASETS])}")
        cls = by_lower[self.kind.lower()]
        parameters = set(inspect.signature(cls.__init__).parameters) - {"self"} - RESERVED
        arguments: dict[str, Any] = dict(self.model_extra or {})
        for name in arguments:
            if name not in parameters:
                near = nearest(name, parameters)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"data.{name}: {cls.__name__} has no such argument.{hint} Known: {', '.join(sorted(parameters))}."
                )
        if category and "category" in parameters:
            arguments["category"] = category
        # `data.val` holds out normal training images instead of anomalib's validation set.
        if "val_split_mode" in inspect.signature(cls.__init__).parameters:
            arguments["val_split_mode"] = "none"
        return cls(**arguments)


@contextmanager
def _texts_as_objects() -> Iterator[None]:
    """Give columns of texts the type of pandas 2: MVTecLOCO puts lists of masks into one, which pandas 3 refuses."""
    import pandas as pd

    with warnings.catch_warnings():
        # pandas 3 has the option, and announces its end with pandas 4.
        warnings.filterwarnings("ignore", message="The 'future.infer_string' option is deprecated")
        with pd.option_context("future.infer_string", False):
            yield


def _keep_normal_test_images(datamodule: Any) -> None:
    """Keep normal test images: anomalib drops them without a `test_split_mode`, which MVTecAD2 does not have."""
    mode = getattr(datamodule, "test_split_mode", None)
    if getattr(mode, "value", mode) == "none":
        datamodule._create_test_split = lambda: None


def _samples(frame: Any, root: Path) -> list[Sample]:
    samples = []
    for row in frame.to_dict("records"):
        path = Path(row["image_path"]).absolute()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        label = int(row["label_index"])
        if label == UNKNOWN:
            samples.append(Sample(str(path), name, 0, "", unlabelled=True))
            continue
        label_name = row.get("label")
        defect = (label_name if isinstance(label_name, str) else _type_of(path)) if label else GOOD
        samples.append(Sample(str(path), name, label, defect, _masks(row.get("mask_path")) if label else ()))
    return samples


def _masks(cell: Any) -> tuple[str, ...]:
    """The masks of an image. Depending on pandas and the datamodule, an empty cell is None, "" or NaN."""
    if isinstance(cell, list | tuple):
        return tuple(str(mask) for mask in cell)
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        return ()
    return (str(cell),)


def _type_of(path: Path) -> str:
    """The type of defect by the folder of an image. Real-IAD has a folder of each part, such as S0001, below it."""
    folder = path.parent
    return folder.parent.name if PART.fullmatch(folder.name) else folder.name
