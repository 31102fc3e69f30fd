"""Supervised networks: losses, mixing and merging by hand; training that lowers its loss, resumes, and stops at NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.backends.supervised.augment import augmentation, mixing
from harness.backends.supervised.checks import SPAWNING
from harness.backends.supervised.losses import Loss, arcface, focal, label_weights
from harness.backends.supervised.module import FoldData, Pictures
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.one_class import class_targets, classes, merge
from harness.backends.supervised.pictures import decode, to_size
from harness.backends.supervised.settings import CHOICES, Settings
from harness.backends.supervised.training import DONE, LAST, WEIGHTS, Trained, predict_all, train
from harness.backends.supervised.views import probabilities, views
from harness.common.devices import pick
from harness.common.errors import ConfigError, TrainingError

SIZE = (32, 32)
BACKBONE = "test_resnet"
CPU = pick("cpu")


def settings(**given: Any) -> Settings:
    return Settings(image_size=SIZE, **{"lr": 3e-3, **given})


def pictures(n: int = 24, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Squares whose colour is their label, and noise."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % labels
    found = rng.integers(0, 90, (n, 3, *SIZE), dtype=np.uint8)
    found[np.arange(n), targets, 8:24, 8:24] += 150
    return found, targets.astype(np.int64)


def lesson(seed: int = 0, n: int = 24, **changes: Any) -> FoldData:
    found, targets = pictures(n)
    values: dict[str, Any] = {
        "pixels": found, "targets": targets, "learnt": range(n - 6), "judged": range(n - 6, n), "outputs": 3,
        "with_margin": None, "batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "seed": seed,
    }  # fmt: skip
    return FoldData(**values | changes)


def learn(
    folder: Path,
    epochs: int = 3,
    what: FoldData | None = None,
    stage: Callable[[str], None] = str,
    trainer: dict[str, Any] | None = None,
    **given: Any,
) -> Trained:
    made, chosen = settings(**given), what or lesson()
    network = build(BACKBONE, chosen.outputs, made, None, chosen.seed)
    return train(network, made, chosen, folder, CPU, {"max_epochs": epochs, **(trainer or {})}, None, stage)


# ---- by hand


def test_focal_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    shares = torch.tensor([[1.0, 0, 0]])
    assert focal(logits, shares, 0).item() == pytest.approx(-math.log(0.7), rel=1e-5)
    assert focal(logits, shares, 2).item() == pytest.approx(-(0.3**2) * math.log(0.7), rel=1e-5)
    both = torch.tensor([[0.5, 0.5, 0]])
    expected = -0.5 * 0.3 * math.log(0.7) - 0.5 * 0.8 * math.log(0.2) * 3
    assert focal(logits, both, 1, torch.tensor([1.0, 3, 1])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_of_a_sure_answer_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[30.0, 0, 0], [0.0, 1, 0]], requires_grad=True)
    focal(logits, torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), gamma).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() > 0


def test_label_smoothing_and_cross_entropy_are_torchs() -> None:
    network = build(BACKBONE, 3, settings(), None, 0).eval()
    images, targets = torch.rand(5, 3, *SIZE), torch.tensor([0, 1, 2, 1, 0])
    for smooth in (0.0, 0.1):
        ours = Loss(settings(label_smoothing=smooth), 3)(network, images, targets)
        theirs = torch.nn.functional.cross_entropy(network(images), targets, label_smoothing=smooth)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_label_weights_by_hand() -> None:
    # 6, 3 and 0 images: each label that is there weighs as much in all.
    found = label_weights(torch.tensor([6.0, 3, 0]))
    assert found.tolist() == pytest.approx([9 / 12, 9 / 6, 0])
    assert (found * torch.tensor([6.0, 3, 0])).sum().item() == pytest.approx(9)
    # 9 and 4 images at half the strength: 1/3 and 1/2, so a total of 3 + 2 before and 13 after.
    assert label_weights(torch.tensor([9.0, 4]), 0.5).tolist() == pytest.approx([13 / 15, 13 / 10])


def test_arcface_adds_the_margin_to_the_angle() -> None:
    made = settings(loss="arcface", arcface_margin=30.0, arcface_scale=10.0)
    network = build(BACKBONE, 2, made, None, 0)
    network.width = 2
    network.head = torch.nn.Linear(2, 2, bias=False)
    network.head.weight.data = torch.tensor([[1.0, 0], [0, 2.0]])
    embedded = torch.tensor([[math.cos(math.radians(20)), math.sin(math.radians(20))]]) * 3
    assert network.logits(embedded)[0].tolist() == pytest.approx(
        [10 * math.cos(math.radians(20)), 10 * math.cos(math.radians(70))], rel=1e-5
    )
    own, other = 10 * math.cos(math.radians(20 + 30)), 10 * math.cos(math.radians(70))
    expected = -own + math.log(math.exp(own) + math.exp(other))
    assert arcface(network, embedded, torch.tensor([0]), made).item() == pytest.approx(expected, rel=1e-4)


def test_arcface_of_named_classes_leaves_the_others_without_margin() -> None:
    made = settings(loss="arcface", arcface_margin=40.0, arcface_classes=("x",))
    network = build(BACKBONE, 2, made, None, 0).eval()
    images = torch.rand(2, 3, *SIZE)
    loss = Loss(made, 2, with_margin=torch.tensor([True, False]))
    plain = torch.nn.functional.cross_entropy(network(images), torch.tensor([1, 1])).item()
    assert loss(network, images, torch.tensor([1, 1])).item() == pytest.approx(plain, rel=1e-5)
    without = torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 0])).item()
    assert loss(network, images, torch.tensor([0, 0])).item() > without + 0.1
    # The head learns through the margin too.
    loss(network, images, torch.tensor([0, 1])).backward()
    assert network.head.weight.grad is not None
    assert float(network.head.weight.grad.abs().sum()) > 0


def test_mixup_and_cutmix_targets_say_what_was_mixed() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0] = torch.arange(4).view(4, 1, 1) / 4
    targets = torch.tensor([0, 1, 2, 3])
    for name in ("mixup", "cutmix"):
        mixer = mixing(name, 1.0, 4)
        assert mixer is not None
        mixed, shares = mixer(images, targets)
        assert shares.sum(dim=1).tolist() == pytest.approx([1] * 4)
        # Each image is mixed with the one before it: its mean brightness is that of its shares.
        expected = (shares * torch.arange(4) / 4).sum(dim=1)
        assert mixed[:, 0].mean(dim=(1, 2)).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert 0 < float(shares.max()) < 1


def test_the_merge_of_class_networks_by_hand() -> None:
    parts = classes([("a", "good"), ("a", "cut"), ("b", "good")])
    assert parts == {"a": [0, 1], "b": [2]}
    assert class_targets(np.array([0, 1, 2, 2]), parts["a"]).tolist() == [0, 1, 2, 2]
    answers = {
        # One claim; two claims, the surer wins; no claim, all share.
        "a": np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]),
        "b": np.array([[0.45, 0.55], [0.9, 0.1], [0.4, 0.6]]),
    }
    found, claims = merge(answers, parts, 3)
    assert claims.tolist() == [1, 2, 0]
    assert found[0].tolist() == pytest.approx([0.7 / 0.9, 0.2 / 0.9, 0])
    assert found[1].tolist() == pytest.approx([0.5 / 1.7, 0.3 / 1.7, 0.9 / 1.7])
    assert found[2].tolist() == pytest.approx([0.1 / 0.8, 0.3 / 0.8, 0.4 / 0.8])


def test_views_are_what_they_say() -> None:
    images = torch.rand(2, 3, 4, 4)
    seen = [view(images) for view in views(("flips", "rotations", "brightness"))]
    assert len(seen) == 1 + 2 + 3 + 2
    assert torch.equal(seen[0], images)
    assert torch.equal(seen[1], images.flip(3))
    assert torch.equal(seen[2], images.flip(2))
    assert torch.equal(torch.rot90(seen[3], 3, (2, 3)), images)
    assert float(seen[-1].max()) <= 1
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    expected = torch.stack([network(view).softmax(dim=1) for view in seen[:3]]).mean(dim=0)
    assert torch.allclose(probabilities(network, images, views(("flips",))).float(), expected, atol=1e-6)


# ---- what goes in


def test_images_that_do_not_fit_go_to_a_file(tmp_path: Path) -> None:
    from PIL import Image

    paths = []
    for i in range(3):
        Image.new("RGB", (20 + i, 10), (i, 50, 100)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    inside = decode(paths, (8, 16), tmp_path, None)
    outside = decode(paths, (8, 16), tmp_path, 100)
    assert isinstance(outside, np.memmap)
    assert np.array_equal(inside, outside)
    assert inside.shape == (3, 3, 8, 16)
    assert inside[2, :, 0, 0].tolist() == [2, 50, 100]
    same = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    assert np.array_equal(to_size(same, (8, 16)), same.transpose(2, 0, 1))


@pytest.mark.parametrize("name", CHOICES["augment"])
def test_augmentation_changes_training_images_only(name: str) -> None:
    found, targets = pictures()
    made = augmentation(name)
    if name == "none":
        assert made is None
        return
    augmented = Pictures(found, targets, range(24), made, seed=1)
    again, other = (Pictures(found, targets, range(24), made, seed=seed) for seed in (1, 2))
    images = [augmented[i][0] for i in range(24)]
    assert all(image.shape == (3, *SIZE) and image.dtype == torch.uint8 for image in images)
    # A function of seed and image, whatever was drawn before.
    assert torch.equal(again[20][0], images[20])
    assert any(not torch.equal(other[i][0], images[i]) for i in range(24))
    assert any(not torch.equal(images[i], torch.from_numpy(found[i])) for i in range(24))
    plain = Pictures(found, targets, range(24))
    assert torch.equal(plain[3][0], torch.from_numpy(found[3]))


@pytest.mark.parametrize(
    ("strength", "shares"), [(1.0, [1 / 3, 1 / 3, 1 / 3]), (0.5, [9 / 13, 3 / 13, 1 / 13]), (0.0, [0.9, 0.09, 0.01])]
)
def test_the_sampler_draws_rare_labels_more_often(strength: float, shares: list[float]) -> None:
    targets = (
        np.array([0] * 81 + [1] * 9 + [2], dtype=np.int64) if strength == 0.5 else np.repeat([0, 1, 2], (90, 9, 1))
    )
    count = len(targets)
    what = lesson(pixels=np.zeros((count, 3, *SIZE), np.uint8), targets=targets, learnt=range(count))
    sampler, none = settings(balance="sampler", balance_strength=strength), settings()
    drawn = np.concatenate([targets[what.order(sampler, epoch)] for epoch in range(60)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx(shares, abs=0.03)
    assert sorted(what.order(none, 0)) == list(range(count))
    assert what.order(none, 0) != what.order(none, 1)


def test_a_last_batch_of_one_image_is_dropped() -> None:
    assert [len(batch) for batch in lesson(learnt=range(17)).batches(settings(), 0)] == [8, 8]
    assert [len(batch) for batch in lesson(learnt=range(18)).batches(settings(), 0)] == [8, 8, 2]


def test_processes_share_the_images_of_an_epoch() -> None:
    what, made = lesson(learnt=range(19)), settings()
    shares = [[i for batch in what.batches(made, 0, (rank, 2)) for i in batch] for rank in range(2)]
    assert [len(share) for share in shares] == [10, 10]
    # 19 images for 20 places: the first one has two.
    assert sorted([*shares[0], *shares[1]]) == sorted([*range(19), what.order(made, 0)[0]])


# ---- training

VARIANTS: list[dict[str, Any]] = [
    *({"loss": name} for name in CHOICES["loss"]),
    *({"augment": name} for name in CHOICES["augment"]),
    *({"mix": name, "mix_alpha": 0.1} for name in CHOICES["mix"]),
    *({"optimizer": name, "lr": 0.02 if name == "sgd" else 3e-3} for name in CHOICES["optimizer"]),
    *({"schedule": name, "schedule_epochs": 2} for name in CHOICES["schedule"]),
    *({"average": name, "ema_decay": 0.5} for name in CHOICES["average"]),
    *({"balance": name} for name in CHOICES["balance"]),
    {"label_smoothing": 0.1, "head_init": "xavier", "head_activation": "silu", "dropout": 0.1},
    {"keep": "best"},
    {"loss": "arcface", "balance": "class_weights"},
]


@pytest.mark.parametrize("given", VARIANTS, ids=lambda given: "-".join(map(str, given.values())))
def test_each_variant_lowers_its_loss(tmp_path: Path, given: dict[str, Any]) -> None:
    found = learn(tmp_path / "t", epochs=5, **given)
    losses = [entry["train_loss"] for entry in found.history]
    assert len(losses) == 5
    assert losses[-1] < losses[0], losses
    assert all(math.isfinite(value) for entry in found.history for value in entry.values())
    named = predict_all(found.network, lesson().pixels, range(24), (), 8, CPU)
    assert named.shape == (24, 3)
    assert named.sum(axis=1) == pytest.approx(np.ones(24))


def test_schedules_move_the_learning_rate(tmp_path: Path) -> None:
    rates = {
        name: [e["lr"] for e in learn(tmp_path / name, 6, schedule=name, schedule_epochs=2, lr=1e-3).history]
        for name in ("none", "step", "cosine_restarts", "one_cycle")
    }
    assert rates["none"] == [1e-3] * 6
    assert rates["step"] == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4])
    assert rates["cosine_restarts"][1] == pytest.approx(1e-3)  # back at the start
    assert rates["cosine_restarts"][0] == pytest.approx(5e-4)
    assert max(rates["one_cycle"]) > rates["one_cycle"][0]
    assert rates["one_cycle"][-1] < 1e-4


def test_a_plateau_lowers_the_learning_rate(tmp_path: Path) -> None:
    # With so large a step validation loss rises at once.
    found = learn(tmp_path, 6, schedule="plateau", schedule_epochs=1, schedule_factor=0.1, optimizer="sgd", lr=5.0)
    rates = [entry["lr"] for entry in found.history]
    assert rates[-1] < rates[0]


def test_curves_go_to_tensorboard_too(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = build(BACKBONE, 3, settings(), None, 0)
    found = train(network, settings(), lesson(), tmp_path / "t", CPU, {"max_epochs": 3}, tmp_path / "board", str)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    for name in ("train_loss", "val_loss", "val_macro_F1"):
        assert [e.value for e in events.Scalars(name)] == pytest.approx([e[name] for e in found.history], rel=1e-6)


def test_mixed_precision_and_clipping_train(tmp_path: Path) -> None:
    found = learn(tmp_path, 4, trainer={"precision": "bf16-mixed", "gradient_clip_val": 1.0})
    assert found.history[-1]["train_loss"] < found.history[0]["train_loss"]
    assert found.network.head.weight.dtype == torch.float32


def test_early_stopping_and_the_best_epoch(tmp_path: Path) -> None:
    found = learn(tmp_path, 12, early_stopping=2, keep="best", lr=1e-2)
    figures = [entry["val_macro_F1"] for entry in found.history]
    best = int(np.argmax(figures))
    assert len(figures) == min(12, best + 3)
    assert found.epoch == best + 1
    named = predict_all(found.network, lesson().pixels, lesson().judged, (), 8, CPU)
    from harness.metrics.classification import macro_f1

    assert macro_f1(lesson().targets[18:], named.argmax(axis=1), 3) == pytest.approx(figures[best])


class Killed(BaseException):
    """A kill in the middle of training."""


@pytest.mark.parametrize(
    "given",
    [
        {"schedule": "one_cycle", "augment": "heavy", "mix": "mixup", "dropout": 0.2},
        {"average": "ema", "schedule": "plateau", "schedule_epochs": 1, "balance": "sampler"},
        {"average": "swa", "schedule": "cosine_restarts", "augment": "randaugment", "keep": "best"},
        {"loss": "arcface", "optimizer": "sgd", "schedule": "step"},
    ],
    ids=["one_cycle", "ema", "swa", "arcface"],
)
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, given: dict[str, Any]) -> None:
    whole = learn(tmp_path / "whole", 5, **given)

    def stop(text: str) -> None:
        if text.startswith("epoch 4"):
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path / "cut", 5, stage=stop, **given)
    assert (tmp_path / "cut" / LAST).is_file()
    assert not (tmp_path / "cut" / DONE).exists()
    resumed = learn(tmp_path / "cut", 5, **given)
    assert (whole.resumed, resumed.resumed) == (0, 3)
    assert len(resumed.history) == 5
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    # A third call trains nothing: the network is there.
    again = learn(tmp_path / "cut", 5, stage=pytest.fail, **given)
    for one in (whole, again):
        named = predict_all(one.network, lesson().pixels, range(24), ("flips",), 8, CPU)
        assert np.array_equal(named, predict_all(resumed.network, lesson().pixels, range(24), ("flips",), 8, CPU))
    assert set(load_file(tmp_path / "cut" / WEIGHTS)) == set(again.network.state_dict())


@pytest.mark.parametrize(
    "given",
    [{"average": "ema"}, {"early_stopping": 2, "lr": 1e-2}, {"average": "swa", "keep": "best"}],
    ids=["ema", "early_stopping", "swa"],
)
def test_a_kill_after_the_last_epoch_changes_nothing(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(tmp_path / "whole", 6, **given)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("harness.backends.supervised.training.save_file", kill)
        with pytest.raises(Killed):
            learn(tmp_path / "cut", 6, **given)
    resumed = learn(tmp_path / "cut", 6, stage=pytest.fail, **given)
    assert [e["train_loss"] for e in resumed.history] == [e["train_loss"] for e in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


@pytest.mark.parametrize("extra", [{}, {"early_stopping": 2}, {"keep": "best"}], ids=["plain", "stopping", "best"])
def test_weights_are_averaged_at_the_end_and_judged_as_they_are_kept(tmp_path: Path, extra: dict[str, Any]) -> None:
    from harness.metrics.classification import macro_f1

    first = build(BACKBONE, 3, settings(), None, 0)
    found = learn(tmp_path / "swa", 8, average="swa", lr=1e-2, **extra)
    plain = learn(tmp_path / "plain", 8, lr=1e-2, **extra)
    assert not torch.equal(found.network.head.weight, first.head.weight)
    # Until the averaging begins, with epoch 7, all is as without it.
    for one, other in list(zip(found.history, plain.history, strict=False))[:6]:
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    named = predict_all(found.network, lesson().pixels, lesson().judged, (), 8, CPU)
    judged = macro_f1(lesson().targets[18:], named.argmax(axis=1), 3)
    assert judged == pytest.approx(found.history[found.epoch - 1]["val_macro_F1"])
    if not extra:
        assert not torch.equal(found.network.head.weight, plain.network.head.weight)


def test_schedules_count_steps_and_not_batches(tmp_path: Path) -> None:
    given = {"schedule": "one_cycle", "lr": 1e-3, "what": lesson(n=46)}
    found = learn(tmp_path, 6, trainer={"accumulate_grad_batches": 3}, **given)
    assert found.history[-1]["lr"] < 1e-5
    assert max(entry["lr"] for entry in found.history) > 5e-4


def test_averaging_does_not_copy_the_images() -> None:
    from copy import deepcopy

    what = lesson()
    assert deepcopy(what) is what


def test_images_that_judge_are_never_augmented(tmp_path: Path) -> None:
    from harness.backends.supervised.module import Training

    module = Training(build(BACKBONE, 3, settings(), None, 0), settings(augment="heavy", mix="mixup"), lesson(), 1)
    images = torch.cat([batch[0] for batch in module.val_dataloader()])
    assert torch.equal(images, torch.from_numpy(lesson().pixels[list(lesson().judged)]))


def test_a_label_without_images_to_learn_from(tmp_path: Path) -> None:
    what = lesson(outputs=4)  # and no image of the fourth
    for number, given in enumerate(({"loss": "arcface", "balance": "class_weights"}, {"balance": "sampler"})):
        found = learn(tmp_path / str(number), 2, what, **given)
        assert all(math.isfinite(value) for entry in found.history for value in entry.values())


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


def test_a_loss_that_is_no_number_stops_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf|-inf) in epoch \d, batch \d: training was stopped"):
        learn(tmp_path, 4, optimizer="sgd", lr=1e30)


def train_in_several_processes(folder: Path, strategy: str) -> None:
    several = {"devices": 2, "strategy": strategy}
    found = learn(folder / "t", 3, trainer=several, average="ema", ema_decay=0.5)
    losses = [entry["train_loss"] for entry in found.history]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    first = build(BACKBONE, 3, settings(), None, 0)
    assert not torch.equal(found.network.head.weight, first.head.weight)
    with pytest.raises(TrainingError, match=r"^the loss is .*training was stopped"):
        learn(folder / "nan", 4, trainer=several, optimizer="sgd", lr=1e30)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SPAWNING)
def test_several_processes_train_one_network(tmp_path: Path, strategy: str) -> None:
    """From a new process, as with the command: a fork takes along the locks of threads that other tests started."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(train_in_several_processes, tmp_path, strategy).result()


def test_a_batch_with_one_label_only_trains(tmp_path: Path) -> None:
    what = lesson(targets=np.zeros(24, dtype=np.int64))
    for loss in CHOICES["loss"]:
        found = learn(tmp_path / loss, 2, what, loss=loss, balance="class_weights")
        assert math.isfinite(found.history[-1]["train_loss"])


# ---- settings


def test_what_does_not_go_together_is_refused() -> None:
    def problems(**given: Any) -> str:
        made = settings(**given)
        return " ".join([*made._choice_problems(), *made._range_problems(), *made._combination_problems()])

    assert not problems()
    assert "Did you mean arcface?" in problems(loss="arcfase")
    assert "margin needs one label" in problems(loss="arcface", mix="mixup")
    assert "with loss arcface; expected 0" in problems(loss="arcface", label_smoothing=0.1)
    assert "some of flips, rotations, brightness" in problems(tta="flips+flops")
    assert "dropout: found 1.5, expected a number from 0 to 0.95" in problems(dropout=1.5)
    oblong = Settings(image_size=(32, 64), tta="rotations")
    assert "square images" in oblong._combination_problems()[0]


def test_a_transformer_is_built_for_its_size() -> None:
    network = Classifier("test_vit", 3, Settings(image_size=(64, 64)))
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_spec_values_are_checked_together() -> None:
    from harness.backends.supervised import SupervisedBackend

    with pytest.raises(ConfigError, match="unknown method 'resnet18'"):
        SupervisedBackend().parameters("resnet18")
    assert SupervisedBackend().parameters("One-Class").name == "one_class"
