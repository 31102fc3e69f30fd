"""Settings that exclude each other, and the identity of a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.backends.supervised.settings import Settings
from harness.common.errors import ConfigError
from harness.config.revisions import revisions
from harness.config.spec import RunSpec
from tests.backends.trainings import settings
from tests.conftest import ROOT


def test_what_does_not_go_together_is_refused() -> None:
    def problems(**options: Any) -> str:
        return " ".join(settings(**options).problems())

    assert not problems()
    assert "Did you mean arcface?" in problems(loss="arcfase")
    assert "eta_min: found 0.1, above lr 0.003; expected a smaller" in problems(schedule="cosine", eta_min=0.1)
    assert "margin needs one label" in problems(loss="arcface", mix="mixup")
    assert not problems(loss="arcface", label_smoothing=0.1)
    assert "found 1.6 radians; expected at most 1.57" in problems(arcface_margin=1.6, arcface_unit="radians")
    assert "some of flips, rotations, brightness" in problems(tta="flips+flops")
    assert "dropout: found 1.5, expected a number from 0 to 0.95" in problems(dropout=1.5)
    oblong = Settings(image_size=(32, 64), tta="rotations")
    assert "bn_statistics: found 'run', expected one of running, recomputed. Did you mean running?" in problems(
        bn_statistics="run"
    )
    for momentum in (0, 2.0, "much", True):
        assert f"bn_momentum: found {momentum!r}, expected a number from 0.0001 to 1." in problems(bn_momentum=momentum)
    assert "square images" in oblong.problems()[0]


def test_spec_values_are_checked_together() -> None:
    from harness.backends.supervised import SupervisedBackend

    with pytest.raises(ConfigError, match="unknown method 'resnet18'"):
        SupervisedBackend().parameters("resnet18")
    assert SupervisedBackend().parameters("One-Class").name == "one_class"


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"average": "none", "balance": "none", "augment": "flips", "keep": "last", "early_stopping": 0}, []),
        ({"average": "ema"}, ["average-of-short-trainings"]),
        ({"average": "swa", "keep": "best"}, ["average-of-short-trainings", "predicted-labels-count"]),
        ({"balance": "sampler", "augment": "none"}, []),
        ({"balance": "sampler", "augment": "flips"}, ["augmentation-of-each-draw"]),
        ({"early_stopping": 2}, ["predicted-labels-count"]),
        ({"augment": "heavy"}, ["heavy-rotate90"]),
        ({"loss": "arcface"}, []),
        ({"model": "one_class", "loss": "arcface"}, ["null-without-margin"]),
    ],
)
def test_runs_with_other_numbers_have_another_identity(params: dict[str, Any], names: list[str]) -> None:
    record = json.loads(next((ROOT / "tests/stored/results/named/runs").glob("*/record.json")).read_text())
    model = {"model": params.pop("model")} if "model" in params else {}
    spec = RunSpec.from_dict({**record["spec"], **model, "params": {**record["spec"]["params"], **params}})
    assert revisions(spec) == names
