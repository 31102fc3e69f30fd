"""The two configurations of public solutions give the labels of the arithmetic that those solutions describe."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.ensemble.blend import Blend, blend
from harness.ensemble.recipe import load_recipe
from tests.conftest import ROOT
from tests.ensemble.written import write_run

CLASSES = ("cable", "carpet", "grid", "metal_nut", "pill", "tile", "toothbrush", "wood", "zipper")
LABELS = tuple(f"{name}-{state}" for name in CLASSES for state in ("combined", "cut", "good"))
IMAGES = 400
Values = npt.NDArray[np.float64]


def softmax(values: Values) -> Values:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def class_of(label: str) -> str:
    return label.split("-", maxsplit=1)[0]


def state_of(label: str) -> str:
    return label.split("-")[1]


def labels_of(values: Values) -> list[str]:
    return [LABELS[i] for i in values.argmax(axis=1)]


def logits(rng: np.random.Generator, truth: npt.NDArray[np.int64], folds: int) -> Values:
    """Networks that find the class almost always, and often the wrong condition; shape (folds, images, labels)."""
    same_class = np.arange(len(LABELS))[None] // 3 == truth[:, None] // 3
    return rng.normal(0, 1.5, (folds, len(truth), len(LABELS))) + 4.0 * same_class + 1.0 * np.eye(len(LABELS))[truth]


def write(name: str, values: Values) -> None:
    rows = np.full((3, len(LABELS)), 1 / len(LABELS))
    write_run(f"results/{name}", LABELS, [0, 1, 2], rows, softmax(values))


def predicted(result: Blend) -> list[str]:
    return [LABELS[i] for i in result.predictions.test_predicted]


def blend_of(name: str) -> Blend:
    return blend(load_recipe(ROOT / "configs" / f"{name}.yaml"))


def test_the_first_place() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(len(LABELS), size=IMAGES)
    b6, rotate45, arcface, smooth = (logits(rng, truth, 10) for _ in range(4))
    arcface_smooth, one_class = (logits(rng, truth, 5) for _ in range(2))
    for name, values in {
        "first_place_b6_plain": b6,
        "first_place_b6_rotate45": rotate45,
        "first_place_arcface": arcface,
        "first_place_arcface_smooth": arcface_smooth,
        "first_place_b6": smooth,
        "first_place_one_class": one_class,
    }.items():
        write(name, values)
    # Softmax forgets the mean of a network's logits, and the label of an average does not depend on it.
    eight = np.concatenate([b6[[2, 3, 4, 7, 8, 9]], rotate45[[0, 1]]]).mean(axis=0)
    larger = labels_of(0.6 * eight + 0.1 * arcface[2] + 0.1 * arcface[8] + 0.15 * arcface_smooth[0])
    expected = labels_of(eight)
    changed = [0, 0, 0]
    for i, other in enumerate(larger):
        if other != expected[i] and state_of(other) != "good" and state_of(expected[i]) != "combined":
            expected[i] = other
            changed[0] += 1
    for i, other in enumerate(labels_of(smooth.mean(axis=0))):
        if other != expected[i] and (class_of(other) in ("tile", "carpet", "zipper") or state_of(other) == "combined"):
            expected[i] = other
            changed[1] += 1
    votes = [labels_of(fold) for fold in one_class]
    for target in ("cable", "grid", "metal_nut", "pill", "wood"):
        for i in range(IMAGES):
            if class_of(expected[i]) != target:
                continue
            # "" is null, and sorts before all labels.
            cast = Counter(vote[i] if class_of(vote[i]) == target else "" for vote in votes)
            winner = min(label for label, count in cast.items() if count == max(cast.values()))
            if winner and winner != expected[i] and state_of(winner) != "good":
                expected[i] = winner
                changed[2] += 1
    assert min(changed) > 10
    assert predicted(blend_of("blend_first_place")) == expected


def test_the_third_place() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(len(LABELS), size=IMAGES)
    b1, pill_zipper = (logits(rng, truth, 5) for _ in range(2))
    others = [logits(rng, truth, 1) for _ in range(8)]
    names = ("b2_0", "b2_1", "b2_2", "b2_3")
    for name, values in zip(names, others[:4], strict=True):
        write(f"third_place_{name}", values)
    write("third_place_b1", b1)
    write("third_place_b1_pill_zipper", pill_zipper)
    experts = ("toothbrush", "zipper_0", "zipper_1", "zipper_2")
    for name, values in zip(experts, others[4:], strict=True):
        # A network for one class knows no label of another class.
        values[..., [class_of(label) != name.split("_")[0] for label in LABELS]] = -60
        write(f"third_place_{name}", values)
    judge_labels = [f"{name}-{state}" for name in CLASSES for state in ("bad", "good")]
    good = rng.uniform(0.4, 1, IMAGES)
    good[::2] = 0.9999999
    judge = np.zeros((IMAGES, len(judge_labels)))
    judge[np.arange(IMAGES), truth // 3 * 2 + 1] = good
    judge[np.arange(IMAGES), truth // 3 * 2] = 1 - good
    Path("outside").mkdir()
    uniform = np.full((3, len(judge_labels)), 1 / len(judge_labels))
    for file, stem, rows in (("train", "", uniform), ("test", "t", judge)):
        lines = [",".join(["file_name", *judge_labels])]
        lines += [",".join([f"{stem}{i}.png", *map(repr, row)]) for i, row in enumerate(rows.tolist())]
        Path(f"outside/good_bad_{file}.csv").write_text("\n".join(lines))

    mean = softmax(np.concatenate([b1[[0, 4]], pill_zipper[[0, 4]], *others[:4]])).mean(axis=0)
    expected = labels_of(mean)
    changed = [0, 0, 0, 0]
    for i in range(IMAGES):
        sure = judge_labels[judge[i].argmax()].endswith("-good") and judge[i].max() >= 0.999999
        if state_of(expected[i]) == "good" and not sure:
            expected[i] = LABELS[np.argsort(mean[i])[-2]]
            changed[0] += 1
    labels = [labels_of(values[0]) for values in others[4:]]
    for i in range(IMAGES):
        if class_of(expected[i]) == "toothbrush":
            changed[1] += expected[i] != labels[0][i]
            expected[i] = labels[0][i]
        elif class_of(expected[i]) == "zipper":
            counts = Counter([expected[i], *(vote[i] for vote in labels[1:])]).most_common(2)
            # Two labels with 2 votes each: the label stays.
            tie = len(counts) > 1 and counts[1][1] == 2
            changed[3] += tie
            if not tie:
                changed[2] += expected[i] != counts[0][0]
                expected[i] = counts[0][0]
    assert min(changed) > 2
    assert predicted(blend_of("blend_third_place")) == expected
