"""The recommendation: one configuration of each data set, inside the limits of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import reasons
from harness.report.budget import Budget
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL
from harness.report.false_alarms import rate_sentence
from harness.report.results import Results
from harness.report.standings import WORSE, Standing, of_configurations
from harness.report.synthetic import agreement, dataset_ranking, synthetic_ranking

# A configuration is recommended instead of the best only if it is so many times faster: less is noise of the timing.
FASTER = 1.1


@dataclass(frozen=True)
class Recommendation:
    """The recommendation on one data set.

    Attributes:
        dataset: its name.
        configuration: the recommended one; None where no configuration keeps the limits, or where image AUROC is
            undefined and synthetic defects give no answer.
        others: those that are as good as the best inside the limits or not significantly different, best first.
        reasons: sentences, the most important first.
        doubts: sentences against relying on the recommendation; usually none.
        synthetic: whether synthetic defects chose the configuration, because image AUROC is undefined.
    """

    dataset: str
    configuration: Configuration | None
    others: Sequence[tuple[Configuration, Standing]]
    reasons: Sequence[str]
    doubts: Sequence[str] = ()
    synthetic: bool = False

    @property
    def verdict(self) -> str:
        """One word for tables: recommended; or leading, where the result is too uncertain to rely on."""
        return "leading" if self.doubts else "recommended"

    @property
    def word(self) -> str:
        """How far to rely on the recommendation, in a few words."""
        word = f"{self.verdict.capitalize()}{', not to be relied on yet' if self.doubts else ''}"
        return f"{word} (by synthetic defects)" if self.synthetic else word


def answers(results: Results) -> list[Recommendation]:
    """A recommendation for each data set."""
    return results.once(
        "answers", lambda: [_answer(results, name, group) for name, group in results.configurations.items()]
    )


def configuration_standings(results: Results, dataset: str) -> list[Standing]:
    """The standings of all configurations of a data set, in their order.

    Args:
        results: of the result folder.
        dataset: name of the data set.
    """
    return results.once(("standings", dataset), lambda: of_configurations(results, results.configurations[dataset]))


def recommendations(results: Results) -> list[str]:
    """A short sentence for each data set, for the terminal."""
    items = answers(results)
    sentences = []
    for answer in items:
        place = f" on {answer.dataset}" if len(items) > 1 else ""
        if answer.configuration is None:
            sentences.append(f"No recommendation{place}: {answer.reasons[0]}")
        else:
            sentences.append(f"{answer.word}{place}: {answer.configuration.name}. report.html says why.")
    return sentences


def _answer(results: Results, dataset: str, group: Sequence[Configuration]) -> Recommendation:
    best, budget = group[0], Budget.of(results.limits)
    if best.metric(INTERVAL) is None:
        return _without_labels(results, dataset, group, budget)
    complete = [configuration for configuration in group if len(configuration.by_category) == len(best.by_category)]
    inside = [configuration for configuration in complete if not budget.exceeded(configuration)]
    if not inside:
        return Recommendation(dataset, None, [], reasons.none_inside(budget, complete))
    standings = (
        configuration_standings(results, dataset)[: len(complete)]
        if len(inside) == len(complete)
        else of_configurations(results, inside)
    )
    tested = list(zip(inside, standings, strict=True))
    alike = [(one, standing) for one, standing in tested if standing.mark and standing.mark != WORSE]
    margin = results.limits.margin
    leader = _fastest([one for one, _ in alike if not reasons.metrics_below(one, inside[0], margin)], inside[0])
    sentences = [
        reasons.quality(results, leader),
        reasons.choice(results, leader, tested),
        reasons.faster(leader, inside[0], [one for one, _ in alike], margin),
        reasons.cost_of_limits(results, budget, leader, complete),
        reasons.left_out(group, complete, best),
        agreement(results, dataset),
        reasons.cost(results, leader),
        reasons.in_full(leader),
    ]
    return Recommendation(
        dataset,
        leader,
        [(one, standing) for one, standing in alike if one is not leader],
        [sentence for sentence in sentences if sentence],
        reasons.doubts(results, leader),
    )


def _without_labels(results: Results, dataset: str, group: Sequence[Configuration], budget: Budget) -> Recommendation:
    """The answer where image AUROC is undefined: by synthetic defects, where the runs scored them."""
    ranking = dataset_ranking(results, dataset)
    if ranking is None:
        reason = (
            "Image AUROC is undefined, because the test images are all normal or all anomalous. To rank by synthetic "
            "defects, set rank to synthetic."
        )
        return Recommendation(dataset, None, [], [reason])
    inside = [one for one in ranking.configurations if not budget.exceeded(one)]
    if not inside:
        return Recommendation(dataset, None, [], reasons.none_inside(budget, ranking.configurations))
    if len(inside) < len(ranking.configurations):
        ranking = synthetic_ranking(results, inside) or ranking
    leader = ranking.configurations[0]
    if not ranking.stable:
        return Recommendation(dataset, None, [], [ranking.unstable()])
    alarms = rate_sentence(leader.records)
    sentences = [*ranking.sentences(), alarms, reasons.cost(results, leader), reasons.in_full(leader)]
    doubts = reasons.doubts(results, leader)
    return Recommendation(dataset, leader, [], [*filter(None, sentences)], doubts, synthetic=True)


def _fastest(candidates: Sequence[Configuration], best: Configuration) -> Configuration:
    """The fastest candidate on the machine of the best one; the best one if the gain is below `FASTER`.

    Times from a busy machine decide nothing.
    """
    timed = [
        (ms, configuration)
        for configuration in candidates
        if (ms := configuration.latency) is not None
        and not configuration.busy
        and _machines(configuration) == _machines(best)
    ]
    if best.latency is None or best.busy or not timed:
        return best
    ms, fastest = min(timed, key=lambda pair: pair[0])
    return fastest if best.latency / ms >= FASTER else best


def _machines(configuration: Configuration) -> set[tuple[str, str]]:
    return {(record.device, str(record.provenance.get("cpu"))) for record in configuration.records}
