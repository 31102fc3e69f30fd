"""Asynchronous Successive ASHA (Li et al., 2018), Ray Tune's, with a memory of earlier calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from harness.config.search import LONGEST, Search
from harness.search.history import EPOCH, REACHED, Trial
from harness.search.sampler import NoCheckpoint


class ASHA(NoCheckpoint, ASHAScheduler):  # type: ignore[misc]
    """See the module.

    Args:
        search: as configured.
        earlier: trials that rungs are filled with.

    Attributes:
        stopped: Ray Tune's names of those that looked hopeless.
    """

    def __init__(self, search: Search, earlier: Sequence[Trial]) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=REACHED,
            mode=search.mode,
            max_t=LONGEST,
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction_factor,
        )
        self.stopped: set[str] = set()
        for trial in earlier:
            known = SimpleNamespace(trial_id=f"earlier {trial.number}")
            self.on_trial_add(None, known)
            for epoch, value in trial.looks:
                super().on_trial_result(None, known, {EPOCH: epoch, REACHED: value})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See ASHAScheduler."""
        action = str(super().on_trial_result(tune_controller, trial, result))
        if action == TrialScheduler.STOP:
            self.stopped.add(trial.trial_id)
        return action
