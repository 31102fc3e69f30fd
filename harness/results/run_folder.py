"""The folder of one run: its record and its saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.common.errors import NewerVersionError
from harness.common.files import file_hash
from harness.common.reading import MB, fit, read_json
from harness.results.record import SCHEMA, RunRecord
from harness.results.schemas import RecordFile

RECORD = "record.json"
# Curves, and the list of pictures.
DETAILS = "details.json"
# File names of the backends' models.
MODELS = ("model.safetensors", "model.ckpt")
AGAIN = "Remove the run's folder to repeat the run."


def read_record(run_folder: Path) -> RunRecord | None:
    """The record in a run's folder; None without a record.

    Raises:
        StoreError: the record is damaged, or a newer version wrote the record.
    """
    values = read_versioned(run_folder / RECORD, RecordFile, SCHEMA, "record format", 16 * MB, AGAIN)
    return None if values is None else RunRecord.from_dict(values)


def read_versioned(
    file: Path, schema: type[BaseModel], newest: int, word: str, limit: int, advice: str
) -> dict[str, Any] | None:
    """Plain values from a JSON file that has the version of its format in the key `schema`.

    Args:
        file: its path.
        schema: the model that the values must match.
        newest: the newest version of the format that this version of harness knows.
        word: name of the format, for the error message.
        limit: largest allowed size in bytes.
        advice: the last sentence of an error message.

    Returns:
        The values; None without the file.

    Raises:
        StoreError: the file is damaged.
        NewerVersionError: a newer version of harness wrote the file, and may give other meanings to the keys.
    """
    try:
        values: dict[str, Any] = read_json(file, limit=limit, advice=advice)
    except FileNotFoundError:
        return None
    version = values.get("schema") if isinstance(values, dict) else None
    if isinstance(version, int) and version > newest:
        raise NewerVersionError(
            f"{file}: {word} {version} found; expected at most {newest}. A newer version of harness wrote the file. "
            "Update harness, or choose another --output."
        )
    fit(values, schema, file, advice)
    return values


def model_in(run_folder: Path) -> Path | None:
    """The saved model in a run's folder; None without a saved model. A link is no saved model."""
    return next((f for name in MODELS if (f := run_folder / name).is_file() and not f.is_symlink()), None)


def saved_model(run_folder: Path) -> dict[str, str]:
    """File name and hash of the saved model, for `RunRecord.model`. Other users may read the file."""
    file = model_in(run_folder)
    if file is None:
        return {}
    file.chmod(0o644)
    return {"file": file.name, "sha256": file_hash(file)}
