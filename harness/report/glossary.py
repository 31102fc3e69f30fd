"""The words of a report in plain English: for the glossary of the page, its answer, and the headers of the workbook."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.registry import SYNTHETIC_AUROC
from harness.report.category_ranks import MEAN_RANK
from harness.report.facts import ENDS, LATENCIES
from harness.report.false_alarms import EXPECTED, GUARANTEE, ON_TEST


@dataclass(frozen=True)
class Term:
    """A term and its meaning.

    Attributes:
        names: the term, and other terms with the same meaning.
        text: the meaning, in sentences; `{margin}` stands for the margin of equal quality.
        forms: how else the term appears in a sentence.
        glossary_only: whether only the glossary explains the names, because sentences use them in other meanings too.
    """

    names: tuple[str, ...]
    text: str
    forms: tuple[str, ...] = ()
    glossary_only: bool = False


CONFIGURATION = Term(("configuration",), "One point of the grid: the values of all axes except category and seed.")
INTERVAL = Term(
    ("95% interval",),
    "The range in which the metric probably lies on other test images of the same kind. Few images make it wide.",
    ("95%:",),
)
LOWER = Term(
    ("may be lower by",),
    "The largest difference from the best that the test images do not exclude, with a confidence of 95%.",
)
IMAGE_AUROC = Term(
    ("image AUROC",),
    "The probability that an anomalous image gets a higher score than a normal one: 1 is perfect, 0.5 is guessing.",
)
BIAS_CORRECTED = Term(
    ("bootstrap bias corrected",),
    "The best of many is partly lucky. Resamples of the images measure this luck, and it is subtracted.",
)
DETECTION = (
    CONFIGURATION,
    IMAGE_AUROC,
    Term(
        ("synthetic AUROC",),
        "The image AUROC of synthetic defects against held-out normal images. It ranks configurations without a "
        "defective test image.",
    ),
    Term(
        ("pixel AUROC", "AUPRO"),
        "How well the anomaly map separates the pixels of defects from all others. In AUPRO each defect has the same "
        "weight, also a small one.",
    ),
    Term(
        ("F1Score", "precision", "recall"),
        "All three use the threshold that was fixed before the test. Recall is the share of detected defects, "
        "precision the share of correct alarms. F1 is high if both are high.",
        glossary_only=True,
    ),
    Term(
        ("promised",),
        "The rate of false alarms holds for new images of the same kind. The model did not learn from the images that "
        "fixed the threshold.",
    ),
    Term(
        ("estimated",),
        "The rate of false alarms is expected, without a proof. Training images fixed the threshold, each with the "
        "score of a model that was trained without it.",
    ),
    INTERVAL,
    Term(
        ("as good", "worse", "no significant difference"),
        "The comparison with the best one on the same images. Worse: image AUROC is significantly lower. As good: with "
        "a confidence of 95% it is lower by less than {margin}. With few test images most runs are neither.",
    ),
    Term(
        ("p",),
        "The p-value of the difference from the best, adjusted for the choice of the best and for the number of tests. "
        "At most 5% of such reports call an equally good one worse.",
        glossary_only=True,
    ),
    LOWER,
    BIAS_CORRECTED,
    Term(("Pareto front",), "The Pareto-optimal configurations: no other configuration is both better and cheaper."),
)
MACRO_F1 = Term(
    ("macro F1",),
    "The mean of F1 over labels, from 0 to 1. F1 of a label is high if its precision and its recall are high. A label "
    "with three images has the same weight as one with three hundred.",
)
OUT_OF_FOLD = Term(
    ("out of fold",), "A network that was not trained on the image predicts its label.", ("out-of-fold",)
)
PROMISED_COVERAGE = Term(
    ("promised coverage",),
    "The probability that the set of a new image contains its true label. The key coverage of the YAML file sets it.",
)
REALISED_COVERAGE = Term(
    ("realised coverage",),
    "The share of test images whose set contains the true label. It should reach the promised one.",
)
CLASSIFICATION = (
    CONFIGURATION,
    MACRO_F1,
    OUT_OF_FOLD,
    INTERVAL,
    Term(("tail F1",), "The mean of F1 over the rarer half of the labels."),
    Term(("class F1", "state F1"), "Macro F1 of the class alone, or of the condition alone."),
    Term(("plain macro F1",), "Macro F1 without test-time augmentation."),
    Term(
        ("vs best",),
        "The comparison with the best configuration on the same images. As good: macro F1 is lower by less than "
        "{margin}, with a confidence of 95%. Worse: macro F1 is significantly lower. No significant difference: the "
        "images do not show which one is better.",
    ),
    Term(
        ("p vs best",),
        "The p-value, adjusted for the choice of the best and for the number of configurations. If all are equally "
        "good, at most 5% of reports call any of them worse.",
    ),
    LOWER,
    BIAS_CORRECTED,
    Term(
        ("prediction set",),
        "The labels that an image may have. A set with one label is an answer; for other sets the answer is \"don't "
        'know".',
        ("prediction sets",),
    ),
    PROMISED_COVERAGE,
    REALISED_COVERAGE,
    Term(
        ("calibrated",),
        "Of all images with a calibrated probability of 0.8, about 80% have the predicted label. One number, the "
        "temperature, makes this so. It changes no label.",
    ),
    Term(
        ("expected calibration error",),
        "The mean difference between the probability of the predicted label and the share of right labels, in 15 bins.",
    ),
)
OUT_OF_FOLD_TOO = f"Out of fold: {OUT_OF_FOLD.text[0].lower()}{OUT_OF_FOLD.text[1:]}"
# By column, the comment on its header in the workbook.
COLUMNS = {
    "image_AUROC": IMAGE_AUROC.text,
    "image_F1Score": "F1 at the threshold of the run: high if few defects are missed and few alarms are false.",
    "pixel_AUROC": "The same as image_AUROC for the pixels of the anomaly map.",
    "pixel_F1Score": "F1 of the pixels at the threshold of the map.",
    ENDS: INTERVAL.text,
    "macro_F1": f"{MACRO_F1.text} {OUT_OF_FOLD_TOO}",
    "accuracy": f"The share of images with the right label. {OUT_OF_FOLD_TOO}",
    "tail_F1": "The mean of F1 over the rarer half of the labels.",
    "class_F1": "Macro F1 of the class alone.",
    "state_F1": "Macro F1 of the condition alone.",
    "macro_F1 95%": INTERVAL.text,
    LATENCIES[0]: "Milliseconds of a single image: half of the images took longer.",
    "configurations_tried": "A configuration is a point of the grid: all axes except category and seed.",
    "vs_best": "The first metric against the best one on the same images. 'as good': lower by less than the margin. "
    "'worse': significantly lower. At most 5% of such reports call one worse that is equally good.",
    "p_vs_best": "p-value of the difference, adjusted for the choice of the best and for the number of tests.",
    SYNTHETIC_AUROC: "AUROC of synthetic defects against held-out normal images (rank: synthetic).",
    "synthetic_rank": "The rank by synthetic AUROC, among all configurations of the data set.",
    MEAN_RANK: "Mean over the categories of the rank by image AUROC of all configurations; 1 is the best. See Ranks.",
    "may_be_lower_by": "With a confidence of 95%, the first metric is lower than that of the best by at most this.",
    EXPECTED: "The share of new normal images above the threshold is at most this.",
    GUARANTEE: "promised: the model did not learn from the images that fixed the threshold, so the rate holds for new "
    "images of the same kind. estimated: training images fixed it, and the rate has no proof.",
    ON_TEST: "The share of the normal test images above the threshold.",
    "promised_coverage": PROMISED_COVERAGE.text,
    "realised_coverage": REALISED_COVERAGE.text,
    "largest_promise": "The largest coverage that so many calibration images can promise.",
}


def with_margin(terms: Sequence[Term], margin: float) -> list[Term]:
    """The terms with the margin of equal quality in their meanings.

    Args:
        terms: of the task.
        margin: of the result folder.
    """
    return [replace(term, text=term.text.replace("{margin}", f"{margin:g}")) for term in terms]


def glossary(terms: Sequence[Term]) -> list[tuple[str, str]]:
    """The names and the meaning of each term, for the glossary of a page."""
    return [(", ".join(term.names), term.text) for term in terms]


def used(terms: Sequence[Term], texts: Sequence[str]) -> list[tuple[str, str]]:
    """The terms that appear in texts, with their meaning, in the order of their first appearance.

    Args:
        terms: of the task.
        texts: plain text.
    """
    text = " ".join(texts)
    known = [term for term in terms if not term.glossary_only]
    matches = [_pattern([*term.names, *term.forms]).search(text) for term in known]
    places = sorted((match.start(), index) for index, match in enumerate(matches) if match)
    return [(known[index].names[0], known[index].text) for _, index in places]


def pieces(text: str, terms: Sequence[Term]) -> Iterator[tuple[str, str]]:
    """The parts of a text, each with the meaning of the term that it is; empty for the text between terms.

    Only the first place of a term has its meaning.

    Args:
        text: plain text.
        terms: of the task.
    """
    known = [term for term in terms if not term.glossary_only]
    meanings = {name.lower(): term.text for term in known for name in (*term.names, *term.forms)}
    end = 0
    for match in _pattern([*meanings]).finditer(text):
        meaning = meanings.pop(match[0].lower(), "")
        if meaning:
            yield text[end : match.start()], ""
            yield match[0], meaning
            end = match.end()
    yield text[end:], ""


def _pattern(names: Sequence[str]) -> re.Pattern[str]:
    """Whole words, the longest term first."""
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
