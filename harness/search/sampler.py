"""What is tried next: Optuna's Tree-structured Parzen Estimator (Bergstra et al., 2011) behind Ray Tune's interface.

Ray's own OptunaSearch takes no points that were stopped early, tells Optuna the value that a stopped training had as
if it were its last, and proposes again what is known.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from harness.config.search import Domain, Search
from harness.search.history import VALUE, Trial
from harness.search.points import Point

# Proposals in a row that turn out to be known before others are drawn blindly.
MOST_KNOWN = 20
BLIND = 500  # such draws, where the space can't be counted
COUNTABLE = 20_000  # points
STATES = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class NoCheckpoint:
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


class Sampler(NoCheckpoint, Searcher):  # type: ignore[misc]
    """See the module.

    Args:
        search: the configured search.
        domains: what varies.
        begin: called with Ray Tune's name of a trial and a point; gives what to hand to it, or None where the point
            is known.
        end: called with that name when it is over, and what it said last.
        seed: of what is drawn.
        limit: trials at once; None for no limit.

    Attributes:
        study: Optuna's.
        exhausted: whether there is nothing left to try.
    """

    def __init__(
        self,
        search: Search,
        domains: dict[str, Domain],
        begin: Callable[[str, Point], dict[str, Any] | None],
        end: Callable[[str, dict[str, Any]], Trial | None],
        seed: int,
        limit: int | None = None,
    ) -> None:
        super().__init__(metric=VALUE, mode=search.mode)
        self._domains, self._begin, self._end = domains, begin, end
        self._space = {name: distribution(domain) for name, domain in domains.items()}
        # Few trials are too few for ten of them to be drawn blindly, which is Optuna's default.
        first = max(4, min(10, search.num_samples // 4))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        self.study = optuna.create_study(direction="maximize" if search.mode == "max" else "minimize", sampler=sampler)
        self._asked: dict[str, Any] = {}
        self._limit, self._random = limit, random.Random(seed)
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

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What Ray Tune runs next; None where as many run as may, FINISHED where there is nothing left."""
        if self._limit is not None and len(self._asked) >= self._limit:
            return None
        for _ in range(MOST_KNOWN):
            found = self._ask(trial_id)
            if found is not None:
                return found
        for point in self._blind():
            self.study.enqueue_trial(encoded(point, self._domains))
            found = self._ask(trial_id)
            if found is not None:
                return found
        self.exhausted = True
        return str(Searcher.FINISHED)

    def _ask(self, trial_id: str) -> dict[str, Any] | None:
        """A proposal that is not known, or None."""
        asked = self.study.ask(self._space)
        handed = self._begin(trial_id, decoded(asked.params, self._domains))
        if handed is None:
            self.study.tell(asked, state=TrialState.FAIL)
            return None
        self._asked[trial_id] = asked
        return handed

    def _blind(self) -> Iterator[dict[str, Any]]:
        """All points in any order, or where there are too many to be counted some."""
        known = {name: _all(one) for name, one in self._domains.items()}
        counted = [values for values in known.values() if values is not None]
        if len(counted) == len(known) and math.prod(map(len, counted)) <= COUNTABLE:
            points = list(itertools.product(*counted))
            self._random.shuffle(points)
            yield from (dict(zip(known, point, strict=True)) for point in points)
            return
        for _ in range(BLIND):
            yield {name: _drawn(one, self._random) for name, one in self._domains.items()}

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
    """And back; numbers as short as the range allows to tell ten thousand apart."""
    return {name: _value(values[name], one) for name, one in domains.items()}


def _value(value: Any, domain: Domain) -> Any:
    if domain.kind == "choice":
        return json.loads(value)
    if not domain.continuous:
        return value
    low, high = domain.values
    if domain.kind == "uniform":
        short = round(value, max(0, 4 - math.floor(math.log10(high - low))))
    else:
        short = float(f"{value:.{4 + max(0, -math.floor(math.log10(high / low - 1)))}g}")
    return min(max(short, low), high)


def _all(domain: Domain) -> list[Any] | None:
    """Its values, where they can be counted."""
    if domain.kind == "choice":
        return list(domain.values)
    return list(range(*domain.values)) if domain.kind == "randint" else None


def _drawn(domain: Domain, draw: random.Random) -> Any:
    found = _all(domain)
    if found is not None:
        return draw.choice(found)
    low, high = domain.values
    log = domain.kind == "loguniform"
    value = math.exp(draw.uniform(math.log(low), math.log(high))) if log else draw.uniform(low, high)
    return _value(min(max(value, low), high), domain)


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
