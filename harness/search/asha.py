"""Asynchronous Successive Halving (ASHA, Li et al., 2018): Ray Tune's scheduler, with the trials of earlier calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from harness.config.search import LONGEST, Search
from harness.search.history import EPOCH, REACHED, Trial
from harness.search.sampler import NoCheckpoint


class ASHA(NoCheckpoint, ASHAScheduler):  # type: ignore[misc]
    """Stops a training whose metric at a rung is worse than that of most other trainings.

    Args:
        search: `search:` of the config.
        earlier: trials of earlier calls, whose intermediate metrics count at the rungs.

    Attributes:
        stopped: Ray Tune's ids of the stopped trials.
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
            stand_in = SimpleNamespace(trial_id=f"earlier {trial.number}")
            self.on_trial_add(None, stand_in)
            for epoch, value in trial.looks:
                super().on_trial_result(None, stand_in, {EPOCH: epoch, REACHED: value})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide at a rung whether the trial continues, and record a stopped trial.

        Args:
            tune_controller: of Ray Tune.
            trial: of Ray Tune.
            result: the reported epoch and metric.

        Returns:
            An action of `TrialScheduler`.
        """
        action = str(super().on_trial_result(tune_controller, trial, result))
        if action == TrialScheduler.STOP:
            self.stopped.add(trial.trial_id)
        return action
