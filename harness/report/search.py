"""The trials of a search, as a table, in sentences, and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from harness.metrics.selection import with_others
from harness.report.facts import cell
from harness.report.holdout import unseen
from harness.report.results import Results
from harness.report.selection import auroc_without_bias, macro_f1_without_bias
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
        result = f"The best is trial {best['number']}, {self.metric} {best['value']:.3f}"
        tested = unseen(self._results, self._finished_runs(best), self.metric)
        if tested is None:
            return [f"{result}: {values}.", *self._optimism(best)]
        # A classification has its own metric of the test set.
        name = "" if tested.metric == self.metric else f"{tested.metric} "
        sentences = [f"{result} on the images of the search; {name}{tested}.", f"Its parameters: {values}."]
        if tested.validated:
            sentences.append("Its backend validated on all test images, the held-out ones too. Set data.val above 0.")
        return sentences

    def _optimism(self, best: dict[str, Any]) -> list[str]:
        """Why the metric of the best trial is too good, and a lower bound of its bias."""
        candidates = len(self.done) + self._stopped
        if candidates < 2:
            return []
        sentences = [
            f"This value is optimistic. The best of {candidates} trials was chosen by the same images, and the search "
            "proposes trials from them."
        ]
        if self.corrected is None:
            return [*sentences, "Expect a worse value on other images."]
        bias = max(0.0, best["value"] - self.corrected)
        return [
            *sentences,
            f"The bias is at least {bias:.3f} (bootstrap bias correction, a lower bound): on other images expect at "
            f"most {self.corrected:.3f}.",
        ]

    @property
    def _stopped(self) -> int:
        return sum(trial["state"] == "stopped" for trial in self.trials)

    @cached_property
    def corrected(self) -> float | None:
        """The metric of the best trial, corrected for the choice among all trials; None where no correction exists.

        The correction takes the trials as fixed beforehand. The search proposes them from the same images, so the
        corrected metric is still too good.
        """
        if len(self.done) < 2 or self.sign < 0 or self.best is None:
            return None
        runs = [self._finished_runs(trial) for trial in self.done]
        estimate = None
        if self.metric == "image_AUROC":
            estimate = self._corrected_auroc(runs)
        elif self.metric == "macro_F1":
            estimate = macro_f1_without_bias(self._results, runs)
        if estimate is None:
            return None
        # A trial that was stopped early has no predictions, but it took part in the choice.
        return with_others(self.best["value"], estimate, len(self.done), len(self.done) + self._stopped)

    def _corrected_auroc(self, trials: Sequence[Sequence[RunRecord]]) -> float | None:
        members = []
        for runs in trials:
            by_category: dict[str, list[RunRecord]] = {}
            for record in runs:
                by_category.setdefault(str(record.spec["category"]), []).append(record)
            members.append(by_category)
        return auroc_without_bias(self._results, members)

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
