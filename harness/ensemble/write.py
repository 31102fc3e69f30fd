"""A blend as a run of a result folder."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.common.errors import StoreError
from harness.ensemble.blend import Blend
from harness.ensemble.outside import fingerprint
from harness.ensemble.recipe import Recipe, Source
from harness.ensemble.runs import ClassRun
from harness.execution.jobs import now
from harness.metrics.macro_f1 import macro_f1_interval
from harness.metrics.temperature import Temperature
from harness.results.provenance import provenance
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tasks.classification import metrics, write_files


def write_blend(recipe: Recipe, result: Blend) -> tuple[ResultFolder, str]:
    """Write a blend as a run to its result folder, so that `submit` and `report` accept the blend.

    Args:
        recipe: the recipe of the blend.
        result: the blend itself.

    Returns:
        The result folder, and the id of the run.

    Raises:
        StoreError: the folder holds runs of a sweep, or can't be written.
    """
    folder = ResultFolder(Path(recipe.output) / recipe.name)
    others = [record for record in folder.read_records().good if record.spec["backend"] != "blend"]
    if others:
        raise StoreError(f"name: {folder.root} holds runs of a sweep; expected another name for a blend.")
    folder.create()
    first = next(iter(result.runs.values()))[0]
    params: dict[str, Any] = {
        "runs": [_identity(name, source, result.runs.get(name, [])) for name, source in recipe.runs.items()],
        "shares": [f"{share:.4f} {name}" for name, share in result.shares.items()],
        "rules": [rule.sentence() for rule in recipe.rules],
    }
    if recipe.average != "probabilities":
        params["average"] = recipe.average
    run_id = f"blend-{recipe.name}-{sha256(repr(params).encode()).hexdigest()[:8]}"
    time = now()
    predictions = result.predictions
    temperature = Temperature.of(predictions)
    interval = macro_f1_interval(predictions.truth, predictions.predicted, len(predictions.labels))
    record = RunRecord(
        run_id=run_id,
        status="ok",
        spec={**first.record.spec, "backend": "blend", "model": "blend", "backbone": None, "image_size": None,
              "params": params, "seed": 0, "trainer": {}},
        axes=list(params),
        data=first.record.data,
        weights={**first.record.weights, "backbone": None},
        metrics=metrics(predictions),
        intervals={} if interval is None else {"macro_F1": list(interval)},
        warnings=[*result.warnings, *(f"{s.text}: {s.before:.4f} -> {s.after:.4f}" for s in result.steps)],
        provenance={**provenance(), "began": time, "ended": time},
        task="classification",
        temperature=vars(temperature),
    )  # fmt: skip
    root = Path(first.record.data["root"])
    paths = {name: root / name for name in predictions.names}
    write_files(folder.stage(run_id), predictions, temperature, None, paths)
    folder.commit(record)
    folder.clear_work([run_id])
    return folder, run_id


def _identity(name: str, source: Source, runs: Sequence[ClassRun]) -> str:
    """The complete source behind a short name. The id of a blend's run contains a hash of this text."""
    if source.out_of_fold is not None:
        labels = f", labels {', '.join(source.labels)}" if source.labels else ""
        own = ", own labels" if source.own_labels else ""
        return f"{name}: {source.values} from outside, sha256 {fingerprint(source)}{labels}{own}"
    if source.average_of is not None:
        return f"{name}: average of " + ", ".join(f"{weight!r} {part}" for part, weight in source.average_of.items())
    names = ", ".join(run.record.run_id for run in runs)
    folds = "".join(f", fold {fold} x {weight:g}" for fold, weight in sorted(source.folds.items()))
    return f"{name}: {'weights averaged of ' if source.average_weights else ''}{names}{folds}"
