"""Model -> file and its JSON, in place whole and checked, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import __version__
from harness.backends.formats import INPUT, NEEDED, SUFFIXES, Format, check_installed
from harness.common.errors import ConfigError, StoreError
from harness.common.files import file_hash, make_folder, scratch_folder
from harness.export.check import Check, compare
from harness.inference.exported import FORMAT, OPENVINO_OPTIONS, OUTPUTS, SUFFIX, ExportedFile
from harness.inference.find import SavedRun
from harness.inference.model import Model


def export(
    model: Model,
    chosen: Format,
    target: Path | None,
    images: Sequence[Path],
) -> tuple[Path, Check]:
    """Write, check, put in place.

    Args:
        model: of a run.
        chosen: the file's format.
        target: where to; None for `exported/model.<suffix>` in the run's folder.
        images: what it is checked on.

    Returns:
        The file, and what the check found.

    Raises:
        ConfigError: the format's packages are not installed, the model can't be exported, or the suffix is wrong.
        ExportError: the file gives other answers than the model; nothing is left of it.
        StoreError: it can't be written.
    """
    run = model.run
    if run is None:
        raise ConfigError("export: a file found; expected a run's folder, or a sweep's.")
    check_installed(chosen)
    suffix = SUFFIXES[chosen]
    file = target or run.folder / "exported" / f"model{suffix}"
    if file.suffix != suffix:
        raise ConfigError(f"--out: {file} found; expected a name that ends in {suffix} for {chosen}.")
    make_folder(file.parent, "--out")
    with scratch_folder(file.parent, ".export-") as scratch:
        made = scratch / file.name
        outputs = _written(model, chosen, made)
        about = _about(model, run, chosen, made, outputs)
        beside = made.with_name(made.name + SUFFIX)
        try:
            beside.write_text(json.dumps(about, indent=2))
            # What was written just now is trusted.
            check = compare(model, ExportedFile(made, trust=True), images)
            beside.write_text(json.dumps({**about, "checked": asdict(check)}, indent=2) + "\n")
            # The JSON comes last: a file without one is not loaded.
            for name in [*about["sha256"], beside.name]:
                shutil.move(str(scratch / name), str(file.parent / name))
        except OSError as error:
            raise StoreError(f"{file}: can't be written ({error.strerror or error}).") from error
    return file, check


def _written(model: Model, chosen: Format, made: Path) -> list[str]:
    try:
        return model.scorer.export(model.thresholds, chosen, made)
    except (ConfigError, MemoryError):
        raise
    # What a model can't do in another format, Torch's exporter, onnxscript and OpenVINO say in their own ways.
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
        advice = ""
        if "2GB" in str(error) or "2 GiB" in str(error) or "protobuf" in str(error).lower():
            advice = " ONNX holds at most 2 GB in one file: take a smaller coreset or gallery, or --format torchscript."
        raise ConfigError(
            f"export: {model.scorer.name} could not be written as {chosen} ({type(error).__name__}: {said}).{advice}"
        ) from error


def _about(model: Model, run: SavedRun, chosen: Format, made: Path, outputs: list[str]) -> dict[str, Any]:
    scorer = model.scorer
    seen = list(scorer.input_size or (0, 0))
    parts = [made.name] + ([made.with_suffix(".bin").name] if chosen == "openvino" else [])
    return {
        "version": FORMAT,
        "format": chosen,
        "sha256": {part: file_hash(made.parent / part) for part in parts},
        "model": scorer.name,
        "run": run.record.run_id,
        "spec": run.record.spec,
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": ["batch", 3, "height", "width"],
            "values": "RGB in 0 to 1 (8-bit values divided by 255), of any size: resizing is in the file",
        },
        "preprocessing": {"resized_to": list(scorer.resized or seen), "cut_to": seen},
        "outputs": {name: OUTPUTS[name] for name in outputs},
        "thresholds": asdict(model.thresholds),
        "notes": [*(model.run.warnings if model.run else ()), *scorer.notes],
        **({"runtime": {"openvino": OPENVINO_OPTIONS}} if chosen == "openvino" else {}),
        **({"runtime": {"device": "cpu"}} if chosen == "torchscript" else {}),
        "versions": {"harness": __version__, **_versions(["torch", "timm", "anomalib", *NEEDED[chosen]])},
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
