"""Views of test-time augmentation, by hand, and what `tta` may say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.backends.supervised.settings import Settings, canonical
from harness.backends.supervised.tta import PLAIN, View, Views, tta_problems, views_of
from harness.backends.supervised.views import probabilities, transformed

SIZE = (32, 32)
MANY = {"flips": ["none", "horizontal"], "rotations": [0, 90], "scales": [1.0, 1.1], "multiply": [0.9, 1.0, 1.1]}


def image(*rows: list[float]) -> torch.Tensor:
    """An image with the same rows in each channel."""
    return torch.tensor([[rows] * 3])


def pixels_of_views(tta: Any, images: torch.Tensor) -> list[list[list[float]]]:
    size = (images.shape[2], images.shape[3])
    views = [transformed(view, images, size)[0, 0] for view in views_of(tta)]
    return [[[round(float(value), 4) for value in row] for row in view] for view in views]


def test_a_text_joins_the_views_of_its_kinds() -> None:
    images = torch.rand(2, 3, 4, 4)
    views = [transformed(view, images, (4, 4)) for view in views_of("brightness+rotations+flips")]
    assert len(views) == 1 + 2 + 3 + 2
    assert torch.equal(views[0], images)
    assert torch.equal(views[1], images.flip(3))
    assert torch.equal(views[2], images.flip(2))
    for turns, view in enumerate(views[3:6], start=1):
        assert torch.equal(torch.rot90(view, 4 - turns, (2, 3)), images)
    assert torch.equal(views[6], images * 0.9)
    assert torch.equal(views[7], (images * 1.1).clamp(0, 1))


def test_a_mapping_is_a_product() -> None:
    assert pixels_of_views({"flips": ["none", "horizontal"], "rotations": [0, 90]}, image([0.1, 0.2], [0.3, 0.4])) == [
        [[0.1, 0.2], [0.3, 0.4]],
        [[0.2, 0.4], [0.1, 0.3]],  # counterclockwise
        [[0.2, 0.1], [0.4, 0.3]],
        [[0.1, 0.3], [0.2, 0.4]],  # first the flip, then the rotation
    ]
    assert pixels_of_views({"flips": ["both", "vertical"]}, image([0.1, 0.2], [0.3, 0.4])) == [
        [[0.3, 0.4], [0.1, 0.2]],
        [[0.4, 0.3], [0.2, 0.1]],
    ]
    assert pixels_of_views({"multiply": [0.5, 2]}, image([0.1, 0.6])) == [[[0.05, 0.3]], [[0.2, 1.0]]]
    assert pixels_of_views({"scales": 2}, image([0.0, 0.4])) == [[[0.0, 0.1, 0.3, 0.4], [0.0, 0.1, 0.3, 0.4]]]
    views = views_of(MANY)
    assert len(views) == len(set(views)) == 2 * 2 * 2 * 3
    assert View("horizontal", 90, 1.1, 0.9) in views


def test_scales_resize_as_torch_does() -> None:
    images = torch.rand(2, 3, 30, 20)
    for scale in (0.5, 1.1, 1.75):
        sides = (round(30 * scale), round(20 * scale))
        expected = torch.nn.functional.interpolate(images, sides, mode="bilinear", antialias=True)
        assert torch.allclose(transformed(View(scale=scale), images, (30, 20)), expected, atol=1e-5)


def test_the_average_is_of_probabilities_or_of_logits() -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        value = images.mean(dim=(1, 2, 3))
        return torch.stack([10 * value, torch.zeros_like(value)], dim=1)

    def mean(**options: Any) -> float:
        views = Settings(image_size=(1, 1), **options).views
        return float(probabilities(network, image([0.8]), views, (1, 1))[0, 0])  # type: ignore[arg-type]

    def sigmoid(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float64).sigmoid())

    halves = {"multiply": [0.25, 1.0]}  # logits 2 and 8
    assert mean(tta=halves) == pytest.approx((sigmoid(2) + sigmoid(8)) / 2, abs=1e-6)
    assert mean(tta=halves, tta_average="logits") == pytest.approx(sigmoid(5), abs=1e-6)
    assert mean() == mean(tta_average="logits") == pytest.approx(sigmoid(8), abs=1e-6)
    assert Settings(image_size=SIZE).views == PLAIN == Views()


@pytest.mark.parametrize(
    ("tta", "words"),
    [
        ("flips+flops", "tta: found 'flips+flops', expected none, some of flips, rotations, brightness joined by +"),
        ("flips+flips", "tta: found 'flips+flips'"),
        ({}, "tta: found an empty mapping, expected some of flips, rotations, scales, multiply, or none."),
        ({"flip": ["none"]}, "tta: found the key 'flip', expected some of flips, rotations, scales, multiply. Did you"),
        ({"flips": []}, "tta.flips: found an empty list, expected some of none, horizontal, vertical, both; name at"),
        ({"flips": ["left"]}, "tta.flips: found 'left', expected some of none, horizontal, vertical, both."),
        ({"rotations": [0, 45]}, "tta.rotations: found 45, expected some of 0, 90, 180, 270 degrees."),
        ({"rotations": [True]}, "tta.rotations: found True"),
        ({"scales": [1.0, 9]}, "tta.scales: found 9, expected numbers from 0.25 to 4."),
        ({"scales": [0.3]}, "tta: found scales 0.3 with images of 32 x 32; expected views with sides of 16 pixels or"),
        ({"multiply": [0]}, "tta.multiply: found 0, expected numbers above 0, up to 10."),
        ({"multiply": [-1.0, 1]}, "tta.multiply: found -1.0,"),
        ({"multiply": ["much"]}, "tta.multiply: found 'much',"),
        ({"multiply": [1, 1.0]}, "tta.multiply: found [1, 1.0], expected each value once."),
        ({"multiply": [[1]]}, "tta.multiply: found [1], expected numbers"),
        ({**MANY, "multiply": [0.1 * n for n in range(1, 10)]}, "found 72 views (2 x 2 x 2 x 9), expected at most 64."),
    ],
)  # fmt: skip
def test_what_is_no_view_is_one_sentence(tta: Any, words: str) -> None:
    (problem,) = tta_problems(tta, SIZE)
    assert words in problem
    assert problem in Settings(image_size=SIZE, tta=tta).problems()


def test_rotations_need_square_images_at_the_size_of_the_evaluation() -> None:
    turned = {"rotations": [0, 90]}
    assert "square images" in Settings(image_size=SIZE, eval_image_size=(32, 48), tta=turned).problems()[0]
    assert not Settings(image_size=SIZE, eval_image_size=(32, 48), tta={"rotations": [0, 180]}).problems()
    assert not Settings(image_size=(32, 48), eval_image_size=48, tta=turned).problems()


@pytest.mark.parametrize(
    ("tta", "form"),
    [
        ("rotations+flips", "rotations+flips"),
        ({"multiply": 1, "flips": "none"}, "none"),
        ({"multiply": [1, 0.9], "flips": ["horizontal", "none"], "scales": [1]},
         {"flips": ["none", "horizontal"], "multiply": [0.9, 1.0]}),
        ({"flips": ["left"]}, {"flips": ["left"]}),
    ],
)  # fmt: skip
def test_equal_views_have_one_form(tta: Any, form: Any) -> None:
    assert canonical({"tta": tta, "lr": 1}, SIZE) == {"tta": form, "lr": 1}


def test_equal_sizes_have_one_form() -> None:
    def form(size: Any, image_size: tuple[int, int] | None = SIZE) -> Any:
        return canonical({"eval_image_size": size}, image_size)["eval_image_size"]

    assert form(32) is form([32, 32]) is None
    assert form(48) == form([48, 48]) == 48
    assert form([48, 64]) == [48, 64]
    assert form(224, None) is None
