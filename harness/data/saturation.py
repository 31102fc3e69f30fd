"""`defects_config.json` of MVTec LOCO AD and AutoVI: the part of each defect that a detector must find."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from harness.common.errors import DataError, StoreError
from harness.common.reading import read_json
from harness.data.samples import Saturation

FILE = "defects_config.json"


class _Defect(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    pixel_value: int = Field(ge=1, le=255)
    saturation_threshold: float = Field(gt=0)
    relative_saturation: bool


class _Defects(RootModel[list[_Defect]]):
    """Schema of the file: one entry for each defect."""


def read_saturation(folder: Path) -> tuple[Saturation, ...]:
    """Read the file of a category.

    Args:
        folder: of the category.

    Returns:
        One entry for each defect; empty without the file.

    Raises:
        DataError: the file is damaged.
    """
    file = folder / FILE
    try:
        defects = _Defects.model_validate(read_json(file, _Defects)).root
    except FileNotFoundError:
        return ()
    except (StoreError, ValidationError) as error:
        raise DataError(
            f"{file}: can't be used ({error}). Expected a list of pixel_value, saturation_threshold and "
            "relative_saturation. Restore the file of the data set."
        ) from error
    return tuple(Saturation(d.pixel_value, d.saturation_threshold, d.relative_saturation) for d in defects)
