"""What is tried next: Optuna's Tree-structured Parzen Estimator (Bergstra et al., 2011) behind Ray Tune's interface.

Ray's own OptunaSearch takes no points that were stopped early, tells Optuna the value that a stopped training had as
if it were its last, and proposes again what is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from harness.search.history import Trial
from harness.search.points import Point
from harness.search.space import Domain, Search

# Words of what trials report.
EPOCH, REACHED, VALUE, FAILED = "epoch", "reached", "value", "failed"
# Proposals in a row that turn out to be known before the space counts as exhausted.
MOST_KNOWN = 200
STATES = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Unkept:
    """Nothing of it is written into Ray Tune's own folder: what was tried lies in the result folder."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Proposer(Unkept, Searcher):  # type: ignore[misc]
    """See the module.

    Args:
        search: the configured search.
        domains: what varies.
        begin: called with Ray Tune's name of a trial and a point; gives what to hand to it, or None where the point
            is known.
        end: called with that name when it is over, and what it said last.
        seed: of what is drawn.
    """

    def __init__(
        self,
        search: Search,
        domains: dict[str, Domain],
        begin: Callable[[str, Point], dict[str, Any] | None],
        end: Callable[[str, dict[str, Any]], Trial | None],
        seed: int,
    ) -> None:
        super().__init__(metric=VALUE, mode=search.mode)
        self._domains, self._begin, self._end = domains, begin, end
        self._space = {name: distribution(domain) for name, domain in domains.items()}
        # Few trials are too few for ten of them to be drawn blindly, which is Optuna's default.
        first = max(4, min(10, search.num_samples // 4))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        self.study = optuna.create_study(direction="maximize" if search.mode == "max" else "minimize", sampler=sampler)
        self._asked: dict[str, Any] = {}
        self.exhausted = False

    def know(self, point: Point, state: str, value: float | None, looks: Sequence[tuple[int, float]] = ()) -> None:
        """A point that was tried before."""
        if state == "failed" or value is None:
            return
        trial = create_trial(
            state=STATES[state],
            value=value if state == "done" else None,
            params=encoded(point, self._domains),
            distributions=self._space,
            intermediate_values=dict(looks),
        )
        self.study.add_trial(trial)

    def first(self, point: Point) -> None:
        """A point to be proposed before any other."""
        self.study.enqueue_trial(encoded(point, self._domains))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """What Ray Tune runs next; nothing if all that is proposed is known."""
        for _ in range(MOST_KNOWN):
            asked = self.study.ask(self._space)
            point = decoded(asked.params, self._domains)
            handed = self._begin(trial_id, point)
            if handed is not None:
                self._asked[trial_id] = asked
                return handed
            self.study.tell(asked, state=TrialState.FAIL)
        self.exhausted = True
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """What a training had reached is told when it is over."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """It is over, one way or the other."""
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        trial = self._end(trial_id, {} if error else result or {})
        for epoch, reached in trial.looks if trial is not None else ():
            asked.report(reached, epoch)
        state = TrialState.FAIL if trial is None else STATES[trial.state]
        self.study.tell(asked, trial.value if trial and state == TrialState.COMPLETE else None, state=state)


def distribution(domain: Domain) -> BaseDistribution:
    """As Optuna has it; choices are texts, since it takes no lists."""
    if domain.kind == "choice":
        return CategoricalDistribution([json.dumps(value) for value in domain.values])
    low, high = domain.values
    if domain.kind == "randint":
        return IntDistribution(low, high - 1)
    return FloatDistribution(low, high, log=domain.kind == "loguniform")


def encoded(point: Point, domains: dict[str, Domain]) -> dict[str, Any]:
    """A point in Optuna's terms."""
    return {name: _text(point[name], one) if one.kind == "choice" else point[name] for name, one in domains.items()}


def _text(value: Any, domain: Domain) -> str:
    """The choice that a value is: 1 is 1.0."""
    return json.dumps(next(one for one in domain.values if one == value))


def decoded(values: dict[str, Any], domains: dict[str, Domain]) -> dict[str, Any]:
    """And back; of numbers four digits, which says as much and can be read."""
    return {name: _value(values[name], one) for name, one in domains.items()}


def _value(value: Any, domain: Domain) -> Any:
    if domain.kind == "choice":
        return json.loads(value)
    if not domain.continuous:
        return value
    low, high = domain.values
    return min(max(float(f"{value:.4g}"), low), high)


def importance(study: Any) -> dict[str, float]:
    """Share of each axis in what the metric varies by: functional ANOVA (Hutter et al., 2014) of Optuna's.

    Empty where too few trials are known, or all came to the same.
    """
    done = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(done) < 4 or len(set(done)) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    # A space in which nothing could vary, say.
    except (RuntimeError, ValueError):
        return {}
    return {name: float(share) for name, share in found.items()}
