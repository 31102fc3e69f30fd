"""A stopped training goes on, and damaged files begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.backends.supervised.callbacks import LAST
from harness.backends.supervised.training import DONE, WEIGHTS, predict_all
from tests.backends.trainings import CPU, FLIPPED, fold_data, learn


class Killed(BaseException):
    """A kill in the middle of training."""


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "one_cycle", "augment": "heavy", "mix": "mixup", "dropout": 0.2},
        {"average": "ema", "schedule": "plateau", "schedule_epochs": 1, "balance": "sampler"},
        {"average": "swa", "schedule": "cosine_restarts", "augment": "randaugment", "keep": "best"},
        {"loss": "arcface", "optimizer": "sgd", "schedule": "step"},
        {"bn_statistics": "recomputed", "bn_momentum": 0.01, "balance": "sampler", "augment": "heavy"},
        {"optimizer": "lamb", "schedule": "cosine", "warmup_epochs": 1},
    ],
    ids=["one_cycle", "ema", "swa", "arcface", "recomputed", "cosine"],
)
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends.supervised.callbacks.CHECKPOINT_SHARE", 1e9)
    whole = learn(tmp_path / "whole", 5, **options)

    def stop(text: str) -> None:
        if text.startswith("epoch 4"):
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path / "cut", 5, stage=stop, **options)
    assert (tmp_path / "cut" / LAST).is_file()
    assert not (tmp_path / "cut" / DONE).exists()
    resumed = learn(tmp_path / "cut", 5, **options)
    assert (whole.resumed, resumed.resumed) == (0, 3)
    assert len(resumed.history) == 5
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    # A third call trains nothing: the network is there.
    again = learn(tmp_path / "cut", 5, stage=pytest.fail, **options)
    for one in (whole, again):
        probabilities = predict_all(one.network, fold_data().pixels, range(24), FLIPPED, 8, CPU)
        assert np.array_equal(
            probabilities, predict_all(resumed.network, fold_data().pixels, range(24), FLIPPED, 8, CPU)
        )
    assert set(load_file(tmp_path / "cut" / WEIGHTS)) == set(again.network.state_dict())


@pytest.mark.parametrize(
    "options",
    [{"average": "ema"}, {"early_stopping": 2, "lr": 1e-2}, {"average": "swa", "keep": "best"}],
    ids=["ema", "early_stopping", "swa"],
)
def test_a_kill_after_the_last_epoch_changes_nothing(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(tmp_path / "whole", 6, **options)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("harness.backends.supervised.callbacks.CHECKPOINT_SHARE", 1e9)
        patched.setattr("harness.backends.supervised.training.save_file", kill)
        with pytest.raises(Killed):
            learn(tmp_path / "cut", 6, **options)
    resumed = learn(tmp_path / "cut", 6, stage=pytest.fail, **options)
    assert [e["train_loss"] for e in resumed.history] == [e["train_loss"] for e in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


@pytest.mark.parametrize("keep", ["last", "best"])
def test_epochs_after_the_checkpoint_are_repeated_with_the_same_numbers(
    tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(tmp_path / "whole", 5, keep=keep)

    def stop(text: str) -> None:
        if text.startswith("epoch 4"):
            raise Killed

    # Only the first epoch has a checkpoint, and each better one with `keep: best`.
    monkeypatch.setattr("harness.backends.supervised.callbacks.CHECKPOINT_SHARE", 0.0)
    with pytest.raises(Killed):
        learn(tmp_path / "cut", 5, stage=stop, keep=keep)
    resumed = learn(tmp_path / "cut", 5, keep=keep)
    if keep == "last":
        assert resumed.resumed == 1
    assert resumed.epoch == whole.epoch
    assert [entry["train_loss"] for entry in resumed.history] == [entry["train_loss"] for entry in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_a_torn_checkpoint_begins_anew(tmp_path: Path) -> None:
    tmp_path.joinpath(LAST).write_bytes(b"half a file")
    assert learn(tmp_path, 2).resumed == 0


@pytest.mark.parametrize("damaged", [DONE, WEIGHTS])
def test_a_finished_training_whose_files_are_damaged_begins_anew(tmp_path: Path, damaged: str) -> None:
    whole = learn(tmp_path, 2)
    (tmp_path / damaged).write_bytes(b"{half")
    again = learn(tmp_path, 2)
    assert again.resumed == 0
    assert [entry["train_loss"] for entry in again.history] == [entry["train_loss"] for entry in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key]), key
    assert (tmp_path / DONE).stat().st_size > 10
