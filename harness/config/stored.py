"""config.yaml of a result folder: the complete config of the last call."""

from __future__ import annotations

from pathlib import Path

import yaml

from harness.common.errors import StoreError
from harness.common.reading import read_bytes
from harness.common.secrets import concealed
from harness.config.sweep import SweepConfig, keys_of_others
from harness.config.yaml_file import LARGEST

# First line of a stored config without a `name`: the path of the file follows.
NAMED_BY = "# name from: "


def as_yaml(config: SweepConfig) -> str:
    """The config as YAML: with overrides, resolved interpolations and defaults."""
    values = config.model_dump(exclude={"seed"} if config.grid else {"seed", "grid"}, exclude_none=True)
    if config.datasets:
        values["data"] = [options.model_dump(exclude_none=True) for options in config.datasets]
    values["threshold"] = {key: value for key, value in config.common_threshold.policy().items() if value is not None}
    values = {key: value for key, value in values.items() if key not in keys_of_others(config.task)}
    text = yaml.safe_dump(concealed(values, config.references), sort_keys=False, allow_unicode=True)
    return f"{NAMED_BY}{_one_line(config.named_by)}\n{text}" if config.named_by else text


def other_file_of(folder: Path, config: SweepConfig) -> Path | None:
    """Find another config file of the same name, which wrote into the same result folder.

    Args:
        folder: the result folder.
        config: the config of the new sweep.

    Returns:
        The path of the other file; None without such a file.
    """
    if config.named_by is None:
        return None
    try:
        first = read_bytes(folder / "config.yaml", LARGEST).decode(errors="replace").partition("\n")[0]
    except (OSError, StoreError):
        return None
    file = Path(first.removeprefix(NAMED_BY))
    if not first.startswith(NAMED_BY) or first == f"{NAMED_BY}{_one_line(config.named_by)}":
        return None
    return file if len(first) < 4096 and file.is_file() else None


def _one_line(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode().replace("\n", " ")
