"""Proposals of trials: Optuna's Tree-structured Parzen Estimator (Bergstra et al., 2011) behind Ray Tune's interface.

Ray's own OptunaSearch differs in three ways. It accepts no earlier trials that were stopped. It reports the last value
of a stopped trial as the value of a complete trial. And it proposes finished points again.
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

MAX_REPEATS = 20  # proposals of finished points in a row; then random points follow
RANDOM_POINTS = 500  # proposals in a space that can't be listed
MAX_LISTED = 20_000  # points; a space with more points is not listed
STATES = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class NoCheckpoint:
    """An object without a checkpoint in Ray Tune's folder, since search.json has the trials."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Write nothing.

        Args:
            checkpoint_dir: unused.
            session_str: unused.
        """

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


class Sampler(NoCheckpoint, Searcher):  # type: ignore[misc]
    """Proposes points with TPE, and random points where TPE repeats finished ones.

    Args:
        search: `search:` of the config.
        domains: the domain of each axis.
        begin: called with Ray Tune's id of a trial and its point. Returns the config of the trial, or None for a
            finished point.
        end: called with Ray Tune's id of a trial and its last result. Returns the trial, or None without a result.
        seed: of the proposals.
        limit: largest number of trials at a time; None for no limit.

    Attributes:
        study: Optuna's study.
        exhausted: whether every point has a trial.
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
        # Optuna starts with ten random trials, which is too many in a short search.
        first = max(4, min(10, search.num_samples // 4))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        self.study = optuna.create_study(direction="maximize" if search.mode == "max" else "minimize", sampler=sampler)
        self._proposals: dict[str, Any] = {}
        self._limit, self._random = limit, random.Random(seed)
        self.exhausted = False

    def add(self, point: Point, state: str, value: float | None, looks: Sequence[tuple[int, float]] = ()) -> None:
        """Add a point of an earlier call.

        Args:
            point: in the space.
            state: done, stopped or failed.
            value: of the metric; None without a value.
            looks: (epoch, value) of the intermediate evaluations.
        """
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

    def enqueue(self, point: Point) -> None:
        """Propose a point before all other points."""
        self.study.enqueue_trial(encoded(point, self._domains))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial; None at the limit, FINISHED where every point has a trial."""
        if self._limit is not None and len(self._proposals) >= self._limit:
            return None
        for point in itertools.chain(itertools.repeat(None, MAX_REPEATS), self._random_points()):
            # Without a point, TPE proposes one.
            if point is not None:
                self.enqueue(point)
            config = self._propose(trial_id)
            if config is not None:
                return config
        self.exhausted = True
        return str(Searcher.FINISHED)

    def _propose(self, trial_id: str) -> dict[str, Any] | None:
        """The config of a trial with a new point; None for a finished point."""
        proposal = self.study.ask(self._space)
        config = self._begin(trial_id, decoded(proposal.params, self._domains))
        if config is None:
            self.study.tell(proposal, state=TrialState.FAIL)
            return None
        self._proposals[trial_id] = proposal
        return config

    def _random_points(self) -> Iterator[dict[str, Any]]:
        """All points of a small space in random order; random points of any other space."""
        listed = {name: _values(domain) for name, domain in self._domains.items()}
        lists = [values for values in listed.values() if values is not None]
        if len(lists) == len(listed) and math.prod(map(len, lists)) <= MAX_LISTED:
            points = list(itertools.product(*lists))
            self._random.shuffle(points)
            yield from (dict(zip(listed, point, strict=True)) for point in points)
            return
        for _ in range(RANDOM_POINTS):
            yield {name: _random_value(domain, self._random) for name, domain in self._domains.items()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the study gets the intermediate values at the end of the trial.

        Args:
            trial_id: Ray Tune's id of the trial.
            result: the reported values.
        """

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Add an ended trial to the study.

        Args:
            trial_id: Ray Tune's id of the trial.
            result: the last reported values.
            error: whether the trial ended with an error.
        """
        proposal = self._proposals.pop(trial_id, None)
        if proposal is None:
            return
        trial = self._end(trial_id, {} if error else result or {})
        for epoch, value in trial.looks if trial is not None else ():
            proposal.report(value, epoch)
        state = TrialState.FAIL if trial is None else STATES[trial.state]
        self.study.tell(proposal, trial.value if trial and state == TrialState.COMPLETE else None, state=state)


def distribution(domain: Domain) -> BaseDistribution:
    """The domain as a distribution of Optuna. Choices become JSON texts, since Optuna accepts no lists."""
    if domain.kind == "choice":
        return CategoricalDistribution([json.dumps(value) for value in domain.values])
    low, high = domain.values
    if domain.kind == "randint":
        return IntDistribution(low, high - 1)
    return FloatDistribution(low, high, log=domain.kind == "loguniform")


def encoded(point: Point, domains: dict[str, Domain]) -> dict[str, Any]:
    """A point with the values of Optuna's distributions.

    Args:
        point: in the space.
        domains: the domain of each axis.
    """
    return {name: _encoded(point[name], domain) for name, domain in domains.items()}


def _encoded(value: Any, domain: Domain) -> Any:
    """A value for Optuna. A value of a choice becomes the JSON text of the equal choice: 1 becomes the choice 1.0."""
    return json.dumps(next(choice for choice in domain.values if choice == value)) if domain.kind == "choice" else value


def decoded(values: dict[str, Any], domains: dict[str, Domain]) -> dict[str, Any]:
    """The point of values from Optuna. Numbers are rounded so that a range still has ten thousand different values.

    Args:
        values: of Optuna's distributions, by axis.
        domains: the domain of each axis.
    """
    return {name: _decoded(values[name], domain) for name, domain in domains.items()}


def _decoded(value: Any, domain: Domain) -> Any:
    if domain.kind == "choice":
        return json.loads(value)
    if not domain.continuous:
        return value
    low, high = domain.values
    if domain.kind == "uniform":
        rounded = round(value, max(0, 4 - math.floor(math.log10(high - low))))
    else:
        rounded = float(f"{value:.{4 + max(0, -math.floor(math.log10(high / low - 1)))}g}")
    return min(max(rounded, low), high)


def _values(domain: Domain) -> list[Any] | None:
    """The values of a domain; None for a continuous range."""
    if domain.kind == "choice":
        return list(domain.values)
    return list(range(*domain.values)) if domain.kind == "randint" else None


def _random_value(domain: Domain, rng: random.Random) -> Any:
    values = _values(domain)
    if values is not None:
        return rng.choice(values)
    low, high = domain.values
    log = domain.kind == "loguniform"
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return _decoded(min(max(value, low), high), domain)


def importance(study: Any) -> dict[str, float]:
    """Share of each axis in the variance of the metric: Optuna's functional ANOVA (Hutter et al., 2014).

    Returns:
        Axis -> share; empty where fewer than 4 trials are done, or where all values are equal.
    """
    values = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(values) < 4 or len(set(values)) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    # Optuna raises these for a space without variance, for example.
    except (RuntimeError, ValueError):
        return {}
    return {name: float(share) for name, share in shares.items()}
