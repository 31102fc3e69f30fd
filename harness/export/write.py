"""Model -> exported file and its JSON. Both are checked before they are written to their folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness import __version__
from harness.backends.formats import INPUT, NEEDED, SUFFIXES, Format, check_installed
from harness.backends.latency import some, times
from harness.common.errors import ConfigError, DataError, StoreError
from harness.common.files import file_hash, make_folder, scratch_folder
from harness.export import classification, detection
from harness.export.check import IMAGES
from harness.inference.classifier import Classifier
from harness.inference.exported import FORMATS, SUFFIX
from harness.inference.find import SavedRun
from harness.inference.model import Model
from harness.inference.runtimes import OPENVINO_OPTIONS
from harness.results.exported import EXPORTED
from harness.results.provenance import installed_version

Check = detection.Check | classification.Check


def export(
    model: Model | Classifier,
    file_format: Format,
    target: Path | None,
    images: Sequence[Path],
) -> tuple[Path, Check]:
    """Export a model, and check the exported file against the model.

    Args:
        model: the model of a run.
        file_format: format of the file.
        target: path of the file; None for `exported/model.<suffix>` in the run's folder.
        images: images of the check.

    Returns:
        The path of the file, and the result of the check.

    Raises:
        ConfigError: the format's packages are not installed, the model can't be exported, or the suffix is wrong.
        ExportError: the predictions of file and model differ; the file is removed.
        StoreError: the file can't be written.
    """
    run = model.run
    if run is None:
        raise ConfigError("export: a file found; expected a run's folder, or a sweep's.")
    check_installed(file_format)
    suffix = SUFFIXES[file_format]
    file = target or run.folder / EXPORTED / f"model{suffix}"
    if file.suffix != suffix:
        raise ConfigError(f"--out: {file} found; expected a name that ends in {suffix} for {file_format}.")
    make_folder(file.parent, "--out")
    with scratch_folder(file.parent, ".export-") as scratch:
        scratch_file = scratch / file.name
        outputs = _write(model, file_format, scratch_file)
        about = _about(model, run, file_format, scratch_file, outputs)
        json_file = scratch_file.with_name(scratch_file.name + SUFFIX)
        try:
            json_file.write_text(json.dumps(about, indent=2))
            exported, check = _check(model, scratch_file, images)
            size = sum((scratch / name).stat().st_size for name in about["sha256"])
            cost = times(exported.predict, some(images)).cost()
            about |= {"checked": asdict(check), "cost": {**cost, "file_size": size}}
            json_file.write_text(json.dumps(about, indent=2) + "\n")
            # The JSON file moves last, because a model file without JSON is never loaded.
            for name in [*about["sha256"], json_file.name]:
                shutil.move(str(scratch / name), str(file.parent / name))
        except OSError as error:
            raise StoreError(f"{file}: can't be written ({error.strerror or error}). Check its folder.") from error
    return file, check


def images_of_check(model: Model | Classifier) -> list[Path]:
    """Select images of a model's run that still exist, spread evenly over its test.

    Raises:
        DataError: no image exists any more.
    """
    assert model.run is not None
    names = detection.image_names(model.run) if isinstance(model, Model) else classification.image_names(model.run)
    root = Path(str(model.run.record.data.get("root", "")))
    paths = [root / name for name in names if (root / name).is_file()]
    if not paths:
        raise DataError(
            f"export: none of the {len(names)} test images of the run found below {root}; expected images to check the "
            "file. Name other images with --check PATH."
        )
    indices = np.linspace(0, len(paths) - 1, min(IMAGES, len(paths))).round().astype(int)
    return [paths[index] for index in indices]


def _check(model: Model | Classifier, file: Path, images: Sequence[Path]) -> tuple[Model | Classifier, Check]:
    if isinstance(model, Model):
        detector = detection.load(file)
        return detector, detection.compare(model, detector, images)
    classifier = classification.load(file)
    return classifier, classification.compare(model, classifier, images)


def _write(model: Model | Classifier, file_format: Format, file: Path) -> list[str]:
    """Write the model file and return the names of its outputs."""
    try:
        if isinstance(model, Model):
            return detection.write(model, file_format, file)
        return classification.write(model, file_format, file)
    except (ConfigError, MemoryError):
        raise
    # Torch's exporter, onnxscript and OpenVINO raise many types of exceptions for an unsupported operation.
    except Exception as error:
        text = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
        hint = ""
        if "2GB" in str(error) or "2 GiB" in str(error) or "protobuf" in str(error).lower():
            hint = " ONNX holds at most 2 GB in one file: use a smaller coreset or gallery, or --format torchscript."
        raise ConfigError(
            f"export: {model.scorer.name} could not be written as {file_format} ({type(error).__name__}: {text}).{hint}"
        ) from error


def _about(
    model: Model | Classifier, run: SavedRun, file_format: Format, file: Path, outputs: list[str]
) -> dict[str, Any]:
    """The content of the JSON file."""
    scorer = model.scorer
    facts = detection.facts(model, outputs) if isinstance(model, Model) else classification.facts(model, outputs)
    packages = ("torch", "timm", "anomalib", *NEEDED[file_format])
    versions = {package: version for package in packages if (version := installed_version(package))}
    names = [file.name] + ([file.with_suffix(".bin").name] if file_format == "openvino" else [])
    return {
        "version": FORMATS[model.task],
        "format": file_format,
        "sha256": {name: file_hash(file.parent / name) for name in names},
        "model": scorer.name,
        "run": run.record.run_id,
        "spec": run.record.spec,
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": ["batch", 3, "height", "width"],
            "values": "RGB in 0 to 1 (8-bit values divided by 255), of any size: resizing is in the file",
        },
        **facts,
        "notes": [*(model.run.warnings if model.run else ()), *scorer.notes],
        **({"runtime": {"openvino": OPENVINO_OPTIONS}} if file_format == "openvino" else {}),
        **({"runtime": {"device": "cpu"}} if file_format == "torchscript" else {}),
        "versions": {"harness": __version__, **versions},
    }
