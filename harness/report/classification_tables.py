"""Tables of classifications: settings, runs, folds, labels, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.config.axes import columns
from harness.metrics.classification import macro_f1, macro_f1_draws
from harness.metrics.intervals import interval
from harness.predictions.classification import ClassPredictions
from harness.report.configurations import Configuration
from harness.report.facts import axis_columns, costs, parameter, weights_source
from harness.report.results import Results
from harness.report.tables import damaged_notice, left_out_notice, random_weights_notice, unfinished_notice
from harness.report.ties import BEST, LEVEL, TIED, WORSE, Standing
from harness.results.record import RunRecord

HEADLINE = ("macro_F1", "accuracy", "tail_F1", "class_F1", "state_F1")
MORE = ("plain_macro_F1", "test_macro_F1", "test_accuracy")
LOW, HIGH = "macro_F1_low", "macro_F1_high"
SETTINGS_SHOWN = 24  # columns of the sheet Labels
PAIRS_OF = 8  # settings whose confusions are listed


@dataclass(frozen=True)
class ClassificationResults:
    """What is asked of a classification's results, read once.

    Attributes:
        results: records and what lies beside them.
    """

    results: Results
    _predictions: dict[str, ClassPredictions] = field(default_factory=dict)
    _draws: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def configurations(self) -> list[Configuration]:
        """All, best first, data set by data set."""
        return [configuration for found in self.results.configurations.values() for configuration in found]

    def predictions(self, run_id: str) -> ClassPredictions:
        """Of a run.

        Raises:
            StoreError: the file is missing or damaged.
        """
        if run_id not in self._predictions:
            self._predictions[run_id] = ClassPredictions.load(self.results.folder.run_folder(run_id))
        return self._predictions[run_id]

    def draws(self, run_id: str) -> npt.NDArray[np.float64]:
        """Macro F1 of each draw of the bootstrap; runs on the same images draw the same ones."""
        if run_id not in self._draws:
            found = self.predictions(run_id)
            self._draws[run_id] = macro_f1_draws(found.truth, found.predicted, len(found.labels))
        return self._draws[run_id]

    def interval(self, configuration: Configuration) -> tuple[float, float] | None:
        """95% interval of a setting's mean macro F1 over seeds: images drawn anew, the same for all seeds."""
        mean = configuration.metric("macro_F1")
        if mean is None:
            return None
        draws = np.mean([self.draws(record.run_id) for record in configuration.records], axis=0)
        return interval(mean, draws, len(self.predictions(configuration.first.run_id).names))

    def standing(self, best: Configuration, other: Configuration) -> Standing:
        """Against the best, by a paired bootstrap over the images of each label."""
        if other is best:
            return Standing(BEST)
        names = {self.predictions(record.run_id).names for s in (best, other) for record in s.records}
        if len(names) > 1:
            return Standing()
        difference = np.mean([self.draws(r.run_id) for r in best.records], axis=0) - np.mean(
            [self.draws(r.run_id) for r in other.records], axis=0
        )
        p = min(1.0, 2 * min(float((difference <= 0).mean()), float((difference >= 0).mean())))
        return Standing(TIED if p >= LEVEL else WORSE, p)


def _described(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    # Networks of a classification have neither layers to choose nor several backends.
    shown = {name: value for name, value in columns(record.spec).items() if name not in {"backend", "layers"}}
    return {**shown, **{axis: parameter(record, axis) for axis in axes}}


def summary_table(naming: ClassificationResults) -> pd.DataFrame:
    """A row a setting, the best first: figures out of fold, averaged over seeds, with interval and tie mark."""
    axes = axis_columns(naming.results.records)
    described = [_described(configuration.first, axes) for configuration in naming.configurations]
    differs = [name for name in described[0] if len({what[name] for what in described}) > 1] if described else []
    rows = []
    for found in naming.results.configurations.values():
        for configuration in found:
            ends, standing = naming.interval(configuration), naming.standing(found[0], configuration)
            what = _described(configuration.first, axes)
            rows.append({
                # First what tells the settings apart, last what they share.
                "model": what["model"],
                **{name: what[name] for name in differs},
                **{name: configuration.metric(name) for name in HEADLINE},
                LOW: ends[0] if ends else None,
                HIGH: ends[1] if ends else None,
                "vs_best": standing.mark or None,
                "p_vs_best": standing.p,
                **{name: configuration.metric(name) for name in MORE},
                **{name: configuration.cost(name) for name in ("fit_seconds", "ms_per_image_p50", "model_MB")},
                **{name: value for name, value in what.items() if name not in differs},
                "seeds": len(configuration.records),
                "best_run": configuration.best_run,
            })  # fmt: skip
    return _frame(rows, axes)


def runs_table(naming: ClassificationResults, failed: bool = False) -> pd.DataFrame:
    """A row a run, the best first; with `failed` the others too, at the end."""
    results = naming.results
    axes = axis_columns(results.records)
    chosen = results.records if failed else results.ok()
    ranked = sorted(chosen, key=lambda record: (record.status != "ok", [-v for v in record.rank()[:2]], record.run_id))
    rows = [_run_row(record, axes) for record in ranked]
    return _frame(rows, axes)


def _run_row(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    ends = record.intervals.get("macro_F1", [None, None])
    what = _described(record, axes)
    folds = [fold["macro_F1"] for fold in record.folds]
    return {
        "model": what.pop("model"),
        **{name: record.metrics.get(name) for name in HEADLINE},
        LOW: ends[0],
        HIGH: ends[1],
        "folds_mean": float(np.mean(folds)) if folds else None,
        "folds_sd": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        **what,
        "seed": record.spec["seed"],
        **{name: record.metrics.get(name) for name in MORE},
        **{name: value for name, value in costs(record).items() if name not in {"alone_seconds", "spent_seconds"}},
        "folds": len(record.data["folds"]),
        "epochs": max((fold["epochs"] for fold in record.folds), default=None),
        "weights": record.spec["weights"],
        "weights_source": weights_source(record),
        "train_images": record.data["train"],
        "judged_images": record.data["judged"],
        "test_images": record.data["test"],
        "labels": record.data["labels"],
        "data": record.data["fingerprint"],
        "device": record.device,
        "status": record.status,
        "warnings": "; ".join(record.warnings) or None,
        "run": record.run_id,
    }


def _frame(rows: list[dict[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for axis in axes if rows else ():
        # Whole numbers stay whole beside runs that have no such parameter.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    empty = [str(name) for name in frame if frame[name].isna().all() and name not in HEADLINE]
    return frame.drop(columns=empty)


def folds_table(naming: ClassificationResults) -> pd.DataFrame:
    """A row a run and fold."""
    rows = [
        {"run": configuration.name, "seed": record.spec["seed"], **fold}
        for configuration in naming.configurations
        for record in configuration.records
        for fold in record.folds
    ]
    return pd.DataFrame(rows)


def labels_table(naming: ClassificationResults) -> pd.DataFrame:
    """A row a label, those with the fewest images first; a column for each setting with its F1, best first."""
    frames = []
    for found in naming.results.configurations.values():
        shown = found[:SETTINGS_SHOWN]
        rows: dict[str, dict[str, Any]] = {}
        for configuration in shown:
            for one in naming.results.details(configuration.best_run).get("labels", []):
                row = rows.setdefault(one["label"], {"label": one["label"], "images": one["images"]})
                row[configuration.label] = one["f1"]
        frames.append(pd.DataFrame(rows.values()).sort_values(["images", "label"], ignore_index=True) if rows else None)
    present = [frame for frame in frames if frame is not None]
    return pd.concat(present, ignore_index=True) if present else pd.DataFrame()


def groups_table(naming: ClassificationResults) -> pd.DataFrame:
    """A row a class and a state; a column for each setting with its F1, best first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for configuration in naming.configurations[:SETTINGS_SHOWN]:
        details = naming.results.details(configuration.best_run)
        for kind in ("classes", "states"):
            for one in details.get(kind, []):
                key = ({"classes": "class", "states": "state"}[kind], one["name"])
                row = rows.setdefault(key, {"kind": key[0], "name": key[1], "images": one["images"]})
                row[configuration.label] = one["f1"]
    return pd.DataFrame(rows.values())


def confusion_table(naming: ClassificationResults) -> pd.DataFrame:
    """The best run's confusion matrix: a row a true label, a column a label said."""
    if not naming.configurations:
        return pd.DataFrame()
    details = naming.results.details(naming.configurations[0].best_run)
    names = [one["label"] for one in details.get("labels", [])]
    # Blank where there is nothing, so that what is confused stands out.
    rows = [
        {"true label": name, **{said: count or None for said, count in zip(names, counts, strict=True)}}
        for name, counts in zip(names, details.get("confusion", []), strict=True)
    ]
    frame = pd.DataFrame(rows)
    for name in names:
        frame[name] = pd.Series([row[name] for row in rows], dtype=object)
    return frame


def confused_table(naming: ClassificationResults) -> pd.DataFrame:
    """A row a pair of labels that a setting's best run confuses, the most frequent first."""
    rows = [
        {"run": configuration.name, "true label": pair["label"], "said instead": pair["said"], "images": pair["images"],
         "of": pair["of"], "examples": ", ".join(one["name"] for one in pair["examples"])}
        for configuration in naming.configurations[:PAIRS_OF]
        for pair in naming.results.details(configuration.best_run).get("confused", [])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def notices(naming: ClassificationResults) -> list[str]:
    """What a reader must know before any number, one sentence each."""
    results = naming.results
    ok = results.ok()
    found = [*random_weights_notice(ok), *unfinished_notice(results), *damaged_notice(results)]
    found += dict.fromkeys(note for record in ok for note in record.data.get("notes", []))
    flattered = sum(_chose_by_figures(record) for record in ok)
    if flattered:
        found.append(
            f"{flattered} of {len(ok)} runs chose epochs, or when to stop or slow down, by the images that their "
            "figures are about (keep, early_stopping, plateau): those figures are somewhat too high."
        )
    return [*found, *left_out_notice(results)]


def _chose_by_figures(record: RunRecord) -> bool:
    given = record.spec["params"]
    return bool(given.get("keep") == "best" or given.get("early_stopping") or given.get("schedule") == "plateau")


def answers(naming: ClassificationResults) -> list[str]:
    """The best setting in words, a sentence for each data set."""
    found = []
    for configurations in naming.results.configurations.values():
        best = configurations[0]
        value, ends = best.metric("macro_F1"), naming.interval(best)
        if value is None:
            continue
        first = naming.predictions(best.first.run_id)
        always = int(np.bincount(first.truth, minlength=len(first.labels)).argmax())
        dull = macro_f1(first.truth, np.full(len(first.truth), always, dtype=np.int64), len(first.labels))
        text = f"Best: {best.name}: macro F1 {value:.3f} out of fold"
        text += f" (95%: {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        tied = sum(naming.standing(best, other).mark == TIED for other in configurations[1:])
        text += (
            f"; {tied} of the {len(configurations) - 1} others can't be told from it" if len(configurations) > 1 else ""
        )
        found.append(f"{text}. Calling everything {first.labels[always]!r} would give {dull:.3f}.")
    return found
