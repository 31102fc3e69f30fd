"""How far the sentences of a report can be trusted: errors of its tests, intervals and promises, by simulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.trust_comparison import comparison, comparison_time, equivalence
from benchmarks.trust_costs import thread_costs
from benchmarks.trust_coverage import coverage, promises
from benchmarks.trust_false_alarms import before, false_alarms, small_rates
from benchmarks.trust_search import winners
from benchmarks.trust_synthetic import synthetic, synthetic_subsets
from harness import registry

# `python -m benchmarks trust --only NAME ...` makes some of them.
TABLES: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "comparison": comparison,
    "comparison_time": comparison_time,
    "equivalence": equivalence,
    "coverage": coverage,
    "promises": promises,
    # One table for each detector, since each takes up to an hour.
    **{f"false_alarms_{name}": partial(false_alarms, detector=name) for name in registry.DETECTORS},
    "false_alarms_small_rates": small_rates,
    "false_alarms_before": before,
    "winners": winners,
    "synthetic": synthetic,
    "synthetic_subsets": synthetic_subsets,
    "thread_costs": thread_costs,
}
