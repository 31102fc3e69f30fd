"""The trials of a search, as a table, in sentences, and for the page."""

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
    """The trials of a search that ended, without those outside the current search space.

    Args:
        results: the results of the folder.
        content: of search.json, as `ResultFolder.read_search` returns it.
    """

    def __init__(self, results: Results, content: dict[str, Any]) -> None:
        self._results = results
        self.metric: str = content["metric"]
        self.sign = -1 if content.get("mode") == "min" else 1
        self.num_samples: int = content.get("num_samples", 0)
        self.axes: dict[str, dict[str, Any]] = content.get("axes", {})
        self.importance: dict[str, float] = content.get("importance", {})
        self._records = {record.run_id: record for record in results.records}
        self.trials: list[dict[str, Any]] = [
            trial
            for trial in sorted(content["trials"], key=lambda trial: trial["number"])
            if trial["state"] != "running"
            and trial.get("inside", True)
            and (trial["state"] != "done" or self._finished_runs(trial))
        ]

    @classmethod
    def of(cls, results: Results) -> SearchReport | None:
        """The search of a result folder; None where it has no ended trial, or search.json is missing or damaged."""
        content = results.search()
        report = None if content is None else cls(results, content)
        return report if report and report.trials else None

    def _finished_runs(self, trial: dict[str, Any]) -> list[RunRecord]:
        """The runs of a trial; empty unless all of them finished."""
        records = [self._records.get(run) for run in trial["runs"]]
        ok = [record for record in records if record is not None and record.status == "ok"]
        return ok if len(ok) == len(records) else []

    @cached_property
    def done(self) -> list[dict[str, Any]]:
        """The completed trials."""
        return [trial for trial in self.trials if trial["state"] == "done"]

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The best completed trial; None where there is none."""
        return max(self.done, key=lambda trial: self.sign * trial["value"], default=None)

    def table(self) -> pd.DataFrame:
        """A row for each trial, in the order of their start."""
        rows, best = [], None
        for trial in self.trials:
            value = trial["value"] if trial["state"] == "done" else None
            if value is not None and (best is None or self.sign * value > self.sign * best):
                best = value
            evaluations = trial["looks"]
            stopped = trial["state"] == "stopped"
            rows.append({
                "trial": trial["number"],
                "state": "stopped early" if stopped else trial["state"],
                self.metric: value,
                "best_so_far": best,
                "stopped_after_epoch": evaluations[-1][0] if stopped and evaluations else None,
                f"{self.metric}_by_then": evaluations[-1][1] if stopped and evaluations else None,
                **{axis: cell(trial["point"].get(axis)) for axis in self.axes},
                "seconds": trial["seconds"],
                "began": trial["began"].replace("T", " ")[:19],
                "run": trial["runs"][0] if trial["state"] != "stopped" and trial["runs"] else None,
                "why": trial["why"] or None,
            })  # fmt: skip
        frame = pd.DataFrame(rows)
        return frame.drop(columns=[name for name in frame if frame[name].isna().all() and name not in self.axes])

    def sentences(self) -> list[str]:
        """The result of the search, for the workbook, the page and the terminal."""
        counts = [(len(self.done), "completed")]
        for state, words in (("stopped", "stopped early"), ("failed", "failed")):
            counts.append((sum(trial["state"] == state for trial in self.trials), words))
        aim = "largest" if self.sign > 0 else "smallest"
        text = ", ".join(f"{count} {words}" for count, words in counts if count)
        sentences = [f"A search for the {aim} {self.metric}: {len(self.trials)} of {self.num_samples} trials ({text})."]
        if self.best is not None:
            sentences += self._about_best(self.best)
        shares = sorted(self.importance.items(), key=lambda item: -item[1])
        if shares:
            text = ", ".join(f"{name} {share:.0%}" for name, share in shares)
            sentences.append(f"Importance for {self.metric} among the completed trials (functional ANOVA): {text}.")
        return sentences

    def _about_best(self, best: dict[str, Any]) -> list[str]:
        values = ", ".join(f"{axis} {cell(best['point'].get(axis))}" for axis in self.axes)
        sentences = [f"The best is trial {best['number']}, {self.metric} {best['value']:.3f}: {values}."]
        trials = len(self.done)
        if trials < 2:
            return sentences
        estimate = self.corrected
        selection = f"It was chosen among {trials} by the very images that {self.metric} is computed on"
        if estimate is None:
            sentences.append(f"{selection}: expect a worse value on other images.")
        else:
            sentences.append(
                f"{selection}: on other images expect {estimate:.3f} rather than {best['value']:.3f} (corrected for "
                "selection bias by a bootstrap)."
            )
        return sentences

    @cached_property
    def corrected(self) -> float | None:
        """The metric of the best trial, corrected for selection bias; None where no correction exists."""
        if len(self.done) < 2 or self.sign < 0:
            return None
        runs = [self._finished_runs(trial) for trial in self.done]
        if self.metric == "image_AUROC":
            return self._corrected_auroc(runs)
        return self._corrected_f1(runs) if self.metric == "macro_F1" else None

    def _corrected_auroc(self, trials: Sequence[Sequence[RunRecord]]) -> float | None:
        """The correction of the mean over categories and seeds, as `image_AUROC` of a trial is one."""
        of_categories = []
        for index, name in enumerate(dict.fromkeys(record.spec["category"] for record in trials[0])):
            of_seeds = []
            for seed in dict.fromkeys(record.spec["seed"] for record in trials[0]):
                runs = [r for trial in trials for r in trial if (r.spec["category"], r.spec["seed"]) == (name, seed)]
                scores = [self._results.scores(record.run_id) for record in runs]
                complete = [test for test in scores if test is not None]
                if len(complete) < len(trials) or any(test.names != complete[0].names for test in complete):
                    return None
                if not complete[0].both_classes:
                    continue
                # All seeds of a category share the bootstrap samples.
                draws = auroc_draws(complete[0].labels, [test.scores for test in complete], index)
                if draws is None:
                    return None
                of_seeds.append(draws)
            if of_seeds:
                of_categories.append(np.mean(of_seeds, axis=0))
        if not of_categories:
            return None
        drawn, left_out = np.mean(of_categories, axis=0)
        return corrected(drawn, left_out)

    def _corrected_f1(self, trials: Sequence[Sequence[RunRecord]]) -> float | None:
        of_seeds = []
        for seed in dict.fromkeys(record.spec["seed"] for record in trials[0]):
            runs = [record for trial in trials for record in trial if record.spec["seed"] == seed]
            try:
                predictions = [ClassPredictions.load(self._results.folder.run_folder(record.run_id)) for record in runs]
            except StoreError:
                return None
            first = predictions[0]
            if len(predictions) < len(trials) or any(one.names != first.names for one in predictions):
                return None
            # All seeds share the bootstrap samples.
            of_seeds.append(macro_f1_draws(first.truth, [one.predicted for one in predictions], len(first.labels)))
        drawn, left_out = np.mean(of_seeds, axis=0)
        return corrected(drawn, left_out)

    def page(self) -> dict[str, Any]:
        """The data of the page."""
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
