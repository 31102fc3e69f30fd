"""The file of a saved classification: a header, and tensors by name. Reading executes nothing in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.common.errors import HarnessError, WeightsError
from harness.data.labelled.base import LabelSpec

MODEL = "model.safetensors"


class ModelFile:
    """An open file.

    Args:
        file: the file, opened by `safe_open`.
        key: name of the header in the file's metadata.

    Attributes:
        header: everything but the tensors.
    """

    def __init__(self, file: Any, key: str) -> None:
        self._file = file
        self.header: dict[str, Any] = json.loads((file.metadata() or {})[key])

    def label_specs(self, key: str) -> list[LabelSpec]:
        """Class and condition of each label.

        Args:
            key: their name in the header.
        """
        return [(class_name, condition) for class_name, condition in self.header[key]]

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin with a prefix, by the rest of their names."""
        names = [name for name in self._file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
        # The copies are aligned in memory; tensors inside a file may not be.
        return {name.removeprefix(prefix): self._file.get_tensor(name).clone() for name in names}


@contextmanager
def opened(path: Path, key: str, newest: int, kind: str) -> Iterator[ModelFile]:
    """Open a file.

    Args:
        path: of the file.
        key: name of the header in the file's metadata.
        newest: newest known format.
        kind: word for such a file, for messages.

    Raises:
        WeightsError: the file is damaged or no such file, also where the caller can't use its content; or its format
            is newer.
    """
    try:
        with safe_open(path, framework="pt") as file:
            saved = ModelFile(file, key)
            if saved.header["format"] > newest:
                raise WeightsError(f"{path}: format {saved.header['format']} is newer than {newest}; update harness.")
            yield saved
    except HarnessError:
        raise
    # For a damaged or foreign file, the libraries may raise any error.
    except Exception as error:
        raise WeightsError(f"{path}: not a saved {kind} ({type(error).__name__}: {error}).") from error


def write_model(folder: Path, key: str, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write a file that `opened` reads, `model.safetensors`.

    Args:
        folder: an existing folder.
        key: name of the header in the file's metadata.
        tensors: by name.
        header: everything but the tensors, with `format`.
    """
    # The format takes no views and no shared memory.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, folder / MODEL, {key: json.dumps(header)})
