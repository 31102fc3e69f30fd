"""The command `audit`. It returns the exit status."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape

from harness.common.errors import ConfigError, DataError
from harness.common.paths import expanded, name_of_file
from harness.common.terminal import terminal
from harness.config.load import load_configs
from harness.config.sweep import SweepConfig
from harness.execution.log_capture import capture_logs

FOLDER = "audit"


def audit(
    data: Path, overrides: Sequence[str], output: Path | None, with_model: bool, options: Mapping[str, str | None]
) -> int:
    """Audit the images of a config or a folder, write the files, and print the findings in a few sentences.

    Args:
        data: a YAML file, also one with a list of data sets; or a folder of any kind of detection data.
        overrides: KEY=VALUE pairs for the config.
        output: parent of the result folder; None for the value of the config, or results.
        with_model: whether a detector scores the training images.
        options: backbone, layers, weights and device of the detector; None for the default.

    Returns:
        0, with or without findings.

    Raises:
        HarnessError: the config, the folder or the options have errors.
    """
    console = terminal()
    configs = _configs(data, overrides)
    config = configs[0] if configs else None
    with capture_logs(io.StringIO(), show=False):
        from harness.audit.audit import audit as look
        from harness.audit.images import images_of, of_folder
        from harness.audit.unusual import model_of
        from harness.audit.write import write_audit

    name = config.name if config else name_of_file(data.resolve())
    parent = Path(expanded(str(output))) if output else Path(config.output if config else "results")
    defaults = {"weights": config.weights, "device": config.device} if config else {}
    model = model_of({**defaults, **{key: value for key, value in options.items() if value is not None}})
    content = images_of(configs) if configs else of_folder(data)
    with console.status("images") as status, capture_logs(io.StringIO(), show=False):
        result = look(name, content, model if with_model else None, lambda text: status.update(escape(text)))
    files = write_audit(parent / name / FOLDER, result)
    for sentence in result.notes:
        console.print(f"[yellow]{escape(sentence)}[/]")
    for sentence in result.summary():
        console.print(f"[bold]{escape(sentence)}[/]")
    for file in files:
        console.print(escape(str(file)))
    return 0


def _configs(data: Path, overrides: Sequence[str]) -> list[SweepConfig]:
    """The config of each data set of a YAML file; none for a folder.

    Raises:
        ConfigError: overrides for a folder.
        DataError: the path does not exist.
    """
    if data.is_dir():
        if overrides:
            raise ConfigError(
                f"{overrides[0]}: an override found for the folder {data}; expected a config with it. Write a config: "
                "`python -m harness init`."
            )
        return []
    if not data.exists():
        raise DataError(f"{data}: nothing found; expected a config or a folder of images. Correct the path.")
    return load_configs(data, overrides)
