"""The recommended configurations: their runs, whose models are kept and used, and the answer in full."""

from __future__ import annotations

import yaml

from harness.common.errors import ConfigError
from harness.config.recommend import Limits
from harness.report.budget import Budget
from harness.report.facts import short_names
from harness.report.parts import task_report
from harness.report.recommend import answers
from harness.report.results import Results
from harness.results.record import RunRecord


def recommended_runs(results: Results) -> list[RunRecord]:
    """The run of each recommended configuration on each category; of several seeds the best one."""
    return [run for configuration in task_report(results).recommended(results) for run in configuration.best_runs]


def answer_lines(stored: Results, limits: Limits) -> tuple[list[str], bool]:
    """The answer of `harness recommend`, and whether every data set has a recommended configuration.

    Args:
        stored: results of a detection, with the limits of the stored config.
        limits: of this answer.

    Raises:
        ConfigError: the results are of another task.
    """
    if stored.task != "detection":
        raise ConfigError(f"recommend: results of task {stored.task!r} found; expected a detection. See report.html.")
    results = stored.under(limits)
    lines = []
    items = answers(results)
    names = short_names([answer.dataset for answer in items])
    for name, answer, without in zip(names, items, answers(stored), strict=True):
        if answer.configuration is None:
            lines += [f"No recommendation on {name}.", *answer.reasons]
            continue
        lines += [f"{answer.word} on {name}: {answer.configuration.name}.", *answer.doubts, *answer.reasons]
        files = [results.folder.model_file(run.run_id) for run in answer.configuration.best_runs]
        lines += [f"Model: {file}" for file in files if file is not None]
        changed = without.configuration != answer.configuration
        if changed:
            other = without.configuration.name if without.configuration else "no configuration"
            lines.append(f"These limits hold for this answer only. The report, predict, export and demo take {other}.")
        if None in files:
            lines.append(f"Not every model was kept. Make and keep them: {_command(results)}")
        elif changed:
            lines.append(f"To store the limits: {_command(results)}")
    return lines, all(answer.configuration for answer in items)


def _command(results: Results) -> str:
    """The command that makes the missing models of the recommended configurations, with the limits of the answer."""
    documents = list(yaml.safe_load_all(results.folder.read_config()))
    stored = documents[0] if len(documents) == 1 and isinstance(documents[0], dict) else {}
    words = ["python -m harness", "tune" if "search" in stored else "sweep", str(results.folder.config)]
    if stored.get("save_models") == "none":
        words.append("save_models=best")
    return " ".join([*words, *Budget.overrides(results.limits)])
