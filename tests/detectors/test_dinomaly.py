"""Dinomaly has the scores and the training of anomalib's model on the same features, and stored features are exact."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.models.image.dinomaly import torch_model
from anomalib.models.image.dinomaly.components import CosineHardMiningLoss, WarmCosineScheduler
from anomalib.models.image.dinomaly.components import StableAdamW as TheirOptimiser
from torch import nn

from harness.backbones.inject import backbone_weights
from harness.backbones.layers import default_layers
from harness.data.listing import list_images
from harness.detectors import Dinomaly, dinomaly_stages
from harness.detectors.block_means import PREFIX
from harness.detectors.dinomaly_stages import easy_share, learning_rates, loss
from harness.detectors.group import Group
from harness.detectors.reconstruction import in_groups
from harness.detectors.stable_adamw import StableAdamW
from harness.detectors.stages import Stages
from tests.conftest import Cli, write_config
from tests.detectors.cases import evaluate_predictions, make

BLOCKS = ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]


@pytest.fixture
def train(toy_tree: Path) -> list[Path]:
    return list_images(toy_tree / "plate" / "train" / "good")


def dinomaly(**changes: Any) -> Dinomaly:
    detector = make("dinomaly", layers=BLOCKS, **changes)
    assert isinstance(detector, Dinomaly)
    return detector


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> torch_model.DinomalyModel:
    """anomalib's model with the tiny network of the tests, and with the biases of the paper's code."""
    architecture = {"embed_dim": 64, "num_heads": 2, "target_layers": [1, 2, 3, 4]}
    monkeypatch.setitem(torch_model.DINO_ARCHITECTURES, "test_vit", architecture)
    with backbone_weights("random"):
        model = torch_model.DinomalyModel("test_vit", bottleneck_dropout=0.0)
    model.fuse_layer_encoder = [[0, 1], [2, 3]]
    for module in model.modules():
        if isinstance(module, torch_model.DinomalyMLP):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, nn.Linear(layer.in_features, layer.out_features))
    return model


def load_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load the trained networks, all of them, beside anomalib's own encoder."""
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert all(name.startswith(("encoder.", "gaussian_blur.")) for name in missing)


def batch(detector: Dinomaly, paths: Sequence[Path]) -> torch.Tensor:
    return torch.stack([detector.preprocessing(path) for path in paths])


def test_scores_and_maps_are_anomalibs(
    train: list[Path], unseen: list[Path], theirs: torch_model.DinomalyModel
) -> None:
    ours = dinomaly(image_size=[96, 64], decoder_depth=8, max_steps=12, lr=0.02).fit(train)
    load_state(theirs, ours.fitted())
    with torch.no_grad():
        expected = theirs.eval()(batch(ours, unseen))
    scores, maps = evaluate_predictions(ours, unseen)
    # The training changed the reconstruction, so the comparison is not one of constants.
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose(scores, expected.pred_score, rtol=0, atol=1e-4)
    np.testing.assert_allclose(maps, expected.anomaly_map[:, 0], rtol=0, atol=1e-4)


def test_a_training_is_anomalibs(
    train: list[Path], theirs: torch_model.DinomalyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole batches without dropout have no chance in them: the order of the images changes nothing."""
    steps = 8
    # The schedules of a training of this length are then as long as anomalib's.
    monkeypatch.setattr(dinomaly_stages, "STEPS", steps)
    options: dict[str, Any] = {"decoder_depth": 8, "bottleneck_dropout": 0.0, "train_batch_size": len(train)}
    first = dinomaly(max_steps=1, **options).fit(train).fitted()
    ours = dinomaly(max_steps=steps, **options).fit(train)
    load_state(theirs, first)
    trained = nn.ModuleList([theirs.bottleneck, theirs.decoder])
    optimiser = TheirOptimiser(trained.parameters(), lr=2e-3, weight_decay=1e-4, amsgrad=True)
    schedule = WarmCosineScheduler(optimiser, 2e-3, 2e-4, total_iters=steps, warmup_iters=100)
    theirs.train()
    # The first step of both has a learning rate of 0, so `first` has the initial values.
    for step in range(steps):
        optimiser.zero_grad()
        theirs(batch(ours, train), global_step=step).backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 0.1)
        optimiser.step()
        schedule.step()
    expected = {name: value for name, value in theirs.state_dict().items() if name in first}
    largest = max(float((expected[name] - first[name]).abs().max()) for name in first)
    assert largest > 1e-4
    for name, value in ours.fitted().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-3 * largest, msg=name)


@pytest.mark.parametrize("step", [0, 100, 500, 4999])
def test_loss_and_gradients_are_anomalibs(step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    targets = [torch.randn(3, 20, 8, generator=generator) for _ in range(2)]
    ours = [(one + torch.randn(3, 20, 8, generator=generator)).requires_grad_() for one in targets]
    as_maps = [one.detach().clone().requires_grad_() for one in ours]
    value = loss(targets, ours, easy_share(step, 5000))
    value.backward()  # type: ignore[no-untyped-call]

    def maps(tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        # A copy, since anomalib's hook belongs to this tensor.
        return [one.mT.unflatten(2, (4, 5)).clone() for one in tokens]

    expected = CosineHardMiningLoss()(maps(targets), maps(as_maps), step)
    expected.backward()
    torch.testing.assert_close(value, expected)
    for one, other in zip(ours, as_maps, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_optimiser_is_anomalibs() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(size, generator=generator)) for size in ((4, 5), (7,))]
    theirs = [nn.Parameter(one.detach().clone()) for one in ours]
    optimiser = StableAdamW(ours)
    their_optimiser = TheirOptimiser(theirs, weight_decay=1e-4, amsgrad=True)
    for step in range(6):
        lr = 0.01 * (step + 1)
        their_optimiser.param_groups[0]["lr"] = lr
        for one, other in zip(ours, theirs, strict=True):
            # Gradients that grow make updates with a large root mean square, which both optimisers scale down.
            one.grad = 10.0**step * torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        optimiser.step(lr)
        their_optimiser.step()
        assert all(one.grad is None for one in ours)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_schedules_are_the_papers_and_shorter_in_shorter_trainings() -> None:
    theirs = WarmCosineScheduler(TheirOptimiser([nn.Parameter(torch.zeros(1))]), 2e-3, 2e-4, 5000, 100)
    np.testing.assert_allclose(learning_rates(2e-3, 5000), theirs.schedule)
    assert len(learning_rates(1.0, 7000)) == 7000
    assert learning_rates(1.0, 7000).argmax() == learning_rates(1.0, 5000).argmax()
    # A fiftieth of the training, and a fifth of it.
    assert learning_rates(1.0, 200)[:5].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert [easy_share(step, 200) for step in (0, 20, 40, 199)] == pytest.approx([0, 0.45, 0.9, 0.9])
    assert learning_rates(1.0, 1).tolist() == [1.0]


def test_stored_features_are_those_of_every_step(train: list[Path], theirs: torch_model.DinomalyModel) -> None:
    """In training mode too, the encoder gives the same features: neither dropout nor augmentation changes them."""
    detector = dinomaly()
    features = detector.features("train", Group([detector]))
    stages = Stages([features], detector.stage_context({"train": train}, lambda _: None, None))
    stored = stages.value(features)
    with torch.no_grad():
        outputs = theirs.train().encoder(batch(detector, train))
    for group in detector.blocks.groups:
        expected = torch.stack([outputs[block] for block in group]).mean(dim=0).mT
        prefix, patches = expected[:, :, :1, None], expected[:, :, 1:].unflatten(2, (4, 4))
        name = "+".join(group)
        torch.testing.assert_close(stored[f"{name}.mean"], patches, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stored[name + PREFIX], prefix, rtol=1e-4, atol=1e-5)


def test_one_pass_gives_features_before_and_after_the_norm(train: list[Path]) -> None:
    images = batch(dinomaly(), train[:2])
    group = [dinomaly(), make("rad", layers=["blocks.2", "blocks.5"]), make("subspacead", **{"backbone": "test_vit",
             "layers": ["blocks.3"]})]  # fmt: skip
    stage = group[0].features("test", Group(group))
    assert all(one.features("test", Group(group)) == stage for one in group)
    together = Stages([stage], group[0].stage_context({"test": train[:2]}, lambda _: None, None)).value(stage)
    for detector in group:
        for name, alone in detector.extractor()(images).items():
            assert torch.equal(together[name], alone), name


def test_decoders_of_a_grid_share_one_pass(train: list[Path]) -> None:
    group = [dinomaly(bottleneck_dropout=share, seed=seed, weights="random") for share in (0.1, 0.4) for seed in (0, 0)]
    shown: list[str] = []
    context = group[0].stage_context({"train": train}, shown.append, None)
    roots = [detector.fit_stage(Group(group)) for detector in group]
    stages = Stages(roots, context)
    states = [stages.value(root) for root in roots]
    titles = [text for text in shown if "%" not in text]
    assert titles == ["features", "training", "training"]
    assert states[0] is states[1]
    assert not torch.equal(states[0]["bottleneck.0.fc1.weight"], states[2]["bottleneck.0.fc1.weight"])
    alone = group[2].fit(train).fitted()
    assert all(torch.equal(alone[name], value) for name, value in states[2].items())


def test_a_training_ends_at_its_steps_or_epochs_and_is_observed_after_epochs(train: list[Path]) -> None:
    def observed(images: int, **limits: Any) -> tuple[list[int], list[str]]:
        detector = dinomaly(train_batch_size=2, **limits)
        shown: list[str] = []
        context = detector.stage_context({"train": train[:images]}, shown.append, None)
        epochs: list[int] = []
        context.watch = lambda epoch, state: epochs.append(epoch) if state() else None
        root = detector.fit_stage(Group([detector]))
        Stages([root], context).value(root)
        return epochs, [text for text in shown if text.startswith("training ")]

    # Two steps in an epoch: the fifth image waits for another epoch.
    assert observed(5, max_steps=5) == ([1, 2], [f"training {share}%" for share in (20, 40, 60, 80, 100)])
    assert observed(5, max_steps=9, max_epochs=2) == ([1], [f"training {share}%" for share in (25, 50, 75, 100)])
    # Fewer images than a batch: each step has all of them.
    assert observed(1, max_steps=3)[0] == [1, 2]


def test_the_seed_decides_weights_order_and_dropout(train: list[Path]) -> None:
    def weights(**changes: Any) -> torch.Tensor:
        options = {"train_batch_size": 3, "weights": "random", **changes}
        return dinomaly(**options).fit(train).fitted()["decoder.1.mlp.fc2.weight"]

    before = torch.random.get_rng_state()
    first = weights()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weights(), first)
    assert not torch.equal(weights(seed=1), first)
    assert not torch.equal(weights(bottleneck_dropout=0.0), first)


def test_blocks_in_groups() -> None:
    assert in_groups("abcdefgh", 2) == [list("abcd"), list("efgh")]
    assert in_groups("abcde", 2) == [list("abc"), list("de")]
    assert in_groups("a", 1) == [["a"]]


@pytest.mark.parametrize(
    ("network", "numbers"),
    [("vit_small_patch14_dinov2", range(2, 10)), ("vit_large_patch14_dinov2", range(4, 19, 2))],
)
def test_default_blocks_are_the_papers(network: str, numbers: Sequence[int]) -> None:
    depths = signature(Dinomaly.__init__).parameters["layers"].default
    assert default_layers(network, depths) == tuple(f"blocks.{number}" for number in numbers)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("backbone: resnet18", "backbone: found resnet18; dinomaly expects a plain vision transformer"),
        ("bottleneck_dropout: 1.0", "bottleneck_dropout: found 1.0, expected a share from 0 to below 1"),
        ("bottleneck_dropout: -0.1", "bottleneck_dropout: found -0.1, expected a share from 0 to below 1"),
        ("layers: [[blocks.2, blocks.6]]", "backbone test_vit has no layer 'blocks.6'"),
        ("decoder_depth: 1", "decoder_depth: found 1, expected a whole number, at least 2"),
        ("max_steps: 0", "max_steps: found 0, expected a whole number"),
        ("max_epochs: 0", "max_epochs: found 0, expected a whole number"),
        ("train_batch_size: 0", "train_batch_size: found 0, expected a whole number"),
    ],
)
def test_bad_values_end_before_any_work(tmp_path: Path, toy_tree: Path, cli: Cli, axes: str, message: str) -> None:
    backbone = "" if axes.startswith("backbone") else "backbone: test_vit, "
    grid = f"{{backend: native, model: dinomaly, image_size: 64, {backbone}{axes}}}"
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\nweights: random\ngrid: {grid}\n"
    result = cli("sweep", write_config(tmp_path / "c.yaml", text), "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "out").exists()
