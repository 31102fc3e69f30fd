"""Whether more images would help: the last doubling of the learning curve of each recommended configuration."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from harness.metrics.delong import difference
from harness.metrics.learning import FEWEST_SEEDS, paired_interval
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL
from harness.report.learning_curve import Curve, Point, by_seed, curves, short_name
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.standings import mean_components

# A step between two points counts as a doubling if the number of images grows by a factor in this range.
LEAST_FACTOR, LARGEST_FACTOR = 1.4, 3.0


@dataclass(frozen=True)
class Step:
    """The last step of a curve, about a doubling.

    Attributes:
        before, after: its ends.
        rise: difference of the mean image AUROCs.
        low, high: 95% interval of the rise.
        seeds: number of seeds on both ends.
    """

    before: Point
    after: Point
    rise: float
    low: float
    high: float
    seeds: int

    def of_doubling(self, value: float) -> float:
        """A rise over this step as a rise over a doubling: the curve is about straight over the logarithm."""
        return value / log2(self.after.images / self.before.images)

    def sentences(self, margin: float) -> list[str]:
        """What the step shows, and what this means for twice as many images.

        Args:
            margin: of equal quality.
        """
        seeds = f"; {self.seeds} seeds" if self.seeds > 1 else ""
        text = (
            f"From {self.before.images:.0f} to {self.after.images:.0f} images, image AUROC changed by {self.rise:+.3f} "
            f"(95%: {self.low:+.3f} to {self.high:+.3f}{seeds})."
        )
        doubt = [] if self.seeds >= FEWEST_SEEDS else [FEW_SEEDS]
        return [text, self._twice(margin), *doubt]

    def _twice(self, margin: float) -> str:
        room = max(0.0, 1 - (self.after.value or 0.0))
        low, high = (min(self.of_doubling(end), room) for end in (self.low, self.high))
        if high < margin:
            return (
                f"So twice as many images would not raise it by the margin of {margin:g}, if the curve goes on as in "
                "this step: no more images are needed."
            )
        if low > 0:
            return (
                f"Twice as many images would raise it by {low:.3f} to {high:.3f}, if the curve goes on as in this "
                "step. Usually each doubling brings less than the one before."
            )
        return (
            f"It is not clear whether twice as many images would raise it. By this step they would change it by "
            f"{low:+.3f} to {high:+.3f}."
        )


FEW_SEEDS = (
    f"With fewer than {FEWEST_SEEDS} seeds, the interval hardly covers which images were drawn. Set {FEWEST_SEEDS} "
    "seeds or more."
)


def more_images(results: Results) -> dict[str, list[str]]:
    """The sentences on the recommended configuration of each data set with learning curves, by data set."""
    sentences: dict[str, list[str]] = {}
    for answer in answers(results):
        configuration = answer.configuration
        runs = set() if configuration is None else {run.run_id for run in configuration.records}
        for curve in curves(results):
            if curve.dataset == answer.dataset and runs & {run.run_id for run in curve.last.runs.records}:
                sentences[answer.dataset] = [f"{curve.name}:", *_sentences(results, curve)]
    return sentences


def in_few_words(results: Results) -> list[str]:
    """The sentences for the terminal, one for each data set with a learning curve."""
    return [
        f"{short_name(results, name)} {' '.join(sentences)}".strip() for name, sentences in more_images(results).items()
    ]


def _sentences(results: Results, curve: Curve) -> list[str]:
    step = last_step(results, curve)
    if step is None:
        return [
            f"The curve has no runs on about half of {curve.last.images:.0f} images, with the same seeds and "
            "categories. So it does not say whether more images would help. Add this number to n_train."
        ]
    return step.sentences(results.limits.margin)


def last_step(results: Results, curve: Curve) -> Step | None:
    """The step to the last point of a curve from the point next to half its images.

    Args:
        results: of the result folder.
        curve: the curve.

    Returns:
        The step; None without a point near half the images, or where the two points share no seeds, categories or
        test images.
    """
    after = curve.last
    factors = [(abs(log2(after.images / one.images) - 1), one) for one in curve.points[:-1] if one.images > 0]
    near = [(distance, one) for distance, one in factors if LEAST_FACTOR <= after.images / one.images <= LARGEST_FACTOR]
    if not near:
        return None
    before = min(near, key=lambda pair: pair[0])[1]
    seeds = sorted(by_seed(before.runs).keys() & by_seed(after.runs).keys())
    first, second = (_with_seeds(point.runs, seeds) for point in (before, after))
    if not seeds or set(first.by_category) != set(second.by_category):
        return None
    categories = [name for name in second.by_category if second.metric(INTERVAL, name) is not None]
    tested = [mean_components(results, one, categories) for one in (second, first)]
    if tested[0] is None or tested[1] is None or tested[0][0] != tested[1][0]:
        return None
    result = difference(tested[0][1], tested[1][1])
    if result is None:
        return None
    smaller = sum(min(len(one.anomalous), len(one.normal)) for one in tested[0][1])
    of_seeds = [by_seed(second)[seed] - by_seed(first)[seed] for seed in seeds]
    low, high = paired_interval(*result, smaller, of_seeds)
    return Step(before, after, result[0], low, high, len(seeds))


def _with_seeds(runs: Configuration, seeds: list[int]) -> Configuration:
    return Configuration(runs.label, tuple(run for run in runs.records if run.spec["seed"] in seeds))
