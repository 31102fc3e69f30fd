"""The cost of the exported models in a run's folder, from their JSON files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.common.errors import StoreError
from harness.common.reading import MB, read_json

EXPORTED = "exported"
EXPORTED_FILES = frozenset({".onnx", ".xml", ".pt"})


class _Cost(BaseModel):
    seconds_p50: float = Field(gt=0)
    latency_busy: bool
    file_size: int = Field(gt=0)


class _File(BaseModel):
    model_config = ConfigDict(extra="allow")

    format: str
    cost: _Cost


@dataclass(frozen=True)
class ExportedCost:
    """The cost of an exported model.

    Attributes:
        format: onnx, openvino or torchscript.
        ms: median milliseconds of a single image, on the machine that exported the model.
        busy: whether other programs made the time too long.
        megabytes: size of the files.
    """

    format: str
    ms: float
    busy: bool
    megabytes: float


def exported_costs(run_folder: Path) -> list[ExportedCost]:
    """The costs of all exported models of a run; files that can't be read and those of earlier versions have none."""
    costs = []
    for file in sorted((run_folder / EXPORTED).glob("*.json")):
        try:
            values = read_json(file, _File, 16 * MB)
        except (StoreError, FileNotFoundError):
            continue
        cost = values["cost"]
        costs.append(
            ExportedCost(values["format"], cost["seconds_p50"] * 1000, cost["latency_busy"], cost["file_size"] / MB)
        )
    return costs
