"""The methods of a classification: trained networks, and probes. This module imports the libraries of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.backends.base import Failure, Outcome, RunContext
from harness.backends.supervised import checks
from harness.backends.supervised.probe import checks as probe_checks
from harness.backends.supervised.probe.run import run_probe
from harness.backends.supervised.probe.settings import MODEL as PROBE
from harness.backends.supervised.run import run_spec
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit


def check_specs(specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
    """Return the problems of all specs, each once.

    Args:
        specs: the planned runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    probes = [spec for spec in specs if spec.model == PROBE]
    trained = [spec for spec in specs if spec.model != PROBE]
    problems = checks.check_specs(trained, splits, device) if trained else []
    problems += probe_checks.check_specs(probes, splits, device) if probes else []
    return list(dict.fromkeys(problems))


def run_each(specs: Sequence[RunSpec], split: LabelledSplit, context: RunContext) -> Iterator[Outcome | Failure]:
    """Fit and test each spec in turn. A probe that fails does not fail the other probes of its group.

    Args:
        specs: the runs.
        split: their data.
        context: resources and options.
    """
    for spec in specs:
        if spec.model != PROBE:
            yield run_spec(spec, split, context)
            continue
        try:
            outcome = run_probe(spec, split, context)
        # Torch, timm and scikit-learn may raise any error.
        except Exception as error:  # noqa: BLE001
            yield Failure(spec, error)
        else:
            yield outcome
