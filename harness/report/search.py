"""What a search tried, as a table, in sentences, and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.common.errors import StoreError
from harness.metrics.selection import auroc_draws, corrected, macro_f1_draws
from harness.predictions.classification import ClassPredictions
from harness.report.facts import cell
from harness.report.results import Results
from harness.results.record import RunRecord


class SearchReport:
    """A search, as search.json has it.

    Args:
        results: records and what lies beside them.
        found: what `ResultFolder.read_search` gave.
    """

    def __init__(self, results: Results, found: dict[str, Any]) -> None:
        self._results = results
        self.metric: str = found["metric"]
        self.sign = -1 if found.get("mode") == "min" else 1
        self.wanted: int = found.get("num_samples", 0)
        self.axes: dict[str, dict[str, Any]] = found.get("axes", {})
        self.importance: dict[str, float] = found.get("importance", {})
        self._records = {record.run_id: record for record in results.records}
        self.trials: list[dict[str, Any]] = [
            trial
            for trial in sorted(found["trials"], key=lambda trial: trial["number"])
            if trial["state"] != "running"
            and trial.get("inside", True)
            and (trial["state"] != "done" or self._made(trial))
        ]

    @classmethod
    def of(cls, results: Results) -> SearchReport | None:
        """The search of a result folder; None where there was none, nothing was tried, or search.json is damaged."""
        found = results.search()
        searched = None if found is None else cls(results, found)
        return searched if searched and searched.trials else None

    def _made(self, trial: dict[str, Any]) -> list[RunRecord]:
        """Its runs that ended well; empty unless all did."""
        found = [self._records.get(run) for run in trial["runs"]]
        ok = [record for record in found if record is not None and record.status == "ok"]
        return ok if len(ok) == len(found) else []

    @cached_property
    def done(self) -> list[dict[str, Any]]:
        """Trials made to the end."""
        return [trial for trial in self.trials if trial["state"] == "done"]

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """Of those."""
        return max(self.done, key=lambda trial: self.sign * trial["value"], default=None)

    def table(self) -> pd.DataFrame:
        """A row a trial, in the order in which they were begun."""
        rows, best = [], None
        for trial in self.trials:
            value = trial["value"] if trial["state"] == "done" else None
            if value is not None and (best is None or self.sign * value > self.sign * best):
                best = value
            looks = trial["looks"]
            stopped = trial["state"] == "stopped"
            rows.append({
                "trial": trial["number"],
                "state": "stopped early" if stopped else trial["state"],
                self.metric: value,
                "best_so_far": best,
                "stopped_after_epoch": looks[-1][0] if stopped and looks else None,
                f"{self.metric}_by_then": looks[-1][1] if stopped and looks else None,
                **{axis: cell(trial["point"].get(axis)) for axis in self.axes},
                "seconds": trial["seconds"],
                "began": trial["began"].replace("T", " ")[:19],
                "run": trial["runs"][0] if trial["state"] != "stopped" and trial["runs"] else None,
                "why": trial["why"] or None,
            })  # fmt: skip
        frame = pd.DataFrame(rows)
        return frame.drop(columns=[name for name in frame if frame[name].isna().all() and name not in self.axes])

    def sentences(self) -> list[str]:
        """What came of it, in few words."""
        counts = [(len(self.done), "made to the end")]
        for state, words in (("stopped", "stopped early"), ("failed", "failed")):
            counts.append((sum(trial["state"] == state for trial in self.trials), words))
        aim = "largest" if self.sign > 0 else "smallest"
        told = ", ".join(f"{count} {words}" for count, words in counts if count)
        found = [f"A search for the {aim} {self.metric}: {len(self.trials)} of {self.wanted} trials ({told})."]
        if self.best is not None:
            found += self._about_best(self.best)
        shares = sorted(self.importance.items(), key=lambda item: -item[1])
        if shares:
            told = ", ".join(f"{name} {share:.0%}" for name, share in shares)
            found.append(f"What {self.metric} depends on, among the trials made to the end (functional ANOVA): {told}.")
        return found

    def _about_best(self, best: dict[str, Any]) -> list[str]:
        where = ", ".join(f"{axis} {cell(best['point'].get(axis))}" for axis in self.axes)
        found = [f"The best is trial {best['number']}, {self.metric} {best['value']:.3f}: {where}."]
        others = len(self.done)
        if others < 2:
            return found
        honest = self.corrected
        chosen = f"It was chosen among {others} by the very images that its figure is about"
        if honest is None:
            found.append(f"{chosen}: expect it to be worse on others.")
        else:
            found.append(
                f"{chosen}: on images that did not choose, expect {honest:.3f} rather than {best['value']:.3f} "
                "(bootstrap bias corrected)."
            )
        return found

    @cached_property
    def corrected(self) -> float | None:
        """What the best is worth on images that did not choose it; None where that is not known for the metric."""
        if len(self.done) < 2 or self.sign < 0:
            return None
        runs = [self._made(trial) for trial in self.done]
        if self.metric == "image_AUROC":
            return self._corrected_auroc(runs)
        return self._corrected_f1(runs) if self.metric == "macro_F1" else None

    def _corrected_auroc(self, trials: Sequence[Sequence[RunRecord]]) -> float | None:
        """The mean over categories and seeds, as the metric is."""
        parts = []
        for place, category in enumerate(dict.fromkeys(record.spec["category"] for record in trials[0])):
            of_seeds = []
            for seed in dict.fromkeys(record.spec["seed"] for record in trials[0]):
                own = [r for runs in trials for r in runs if (r.spec["category"], r.spec["seed"]) == (category, seed)]
                found = [self._results.scores(record.run_id) for record in own]
                known = [one for one in found if one is not None]
                if len(known) < len(trials) or any(one.names != known[0].names for one in known):
                    return None
                if not known[0].both_classes:
                    continue
                # Equal draws for all seeds of a category.
                draws = auroc_draws(known[0].labels, [one.scores for one in known], place)
                if draws is None:
                    return None
                of_seeds.append(draws)
            if of_seeds:
                parts.append(np.mean(of_seeds, axis=0))
        if not parts:
            return None
        drawn, left_out = np.mean(parts, axis=0)
        return corrected(drawn, left_out)

    def _corrected_f1(self, trials: Sequence[Sequence[RunRecord]]) -> float | None:
        of_seeds = []
        for seed in dict.fromkeys(record.spec["seed"] for record in trials[0]):
            own = [record for runs in trials for record in runs if record.spec["seed"] == seed]
            try:
                found = [ClassPredictions.load(self._results.folder.run_folder(record.run_id)) for record in own]
            except StoreError:
                return None
            if len(found) < len(trials) or any(one.names != found[0].names for one in found):
                return None
            # Equal draws for all seeds.
            of_seeds.append(macro_f1_draws(found[0].truth, [one.predicted for one in found], len(found[0].labels)))
        drawn, left_out = np.mean(of_seeds, axis=0)
        return corrected(drawn, left_out)

    def page(self) -> dict[str, Any]:
        """What the page draws."""
        return {
            "metric": self.metric,
            "sign": self.sign,
            "sentences": self.sentences(),
            "axes": [{"name": name, "log": bool(axis.get("log"))} for name, axis in self.axes.items()],
            "importance": self.importance,
            "trials": [
                {
                    "number": trial["number"],
                    "state": trial["state"],
                    "value": trial["value"],
                    "looks": trial["looks"],
                    "point": {axis: cell(trial["point"].get(axis)) for axis in self.axes},
                    "run": trial["runs"][0] if trial["runs"] and trial["runs"][0] in self._records else None,
                }
                for trial in self.trials
            ],
        }
