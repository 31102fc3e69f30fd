"""PatchCore's bank from one pass over blocks of images: what it covers, what it stores, and folds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.common.errors import ConfigError
from harness.detectors import PatchCore
from harness.detectors.embedding import embed, rows
from harness.detectors.features import Features
from harness.detectors.folds import Fold, in_fold, on_positions
from harness.detectors.group import Group
from harness.detectors.stages import Stages
from harness.detectors.streamed_bank import IMAGES_PER_BLOCK, Blocks

LAYERS = ("layer2", "layer3")


def detector(ratio: float = 0.02, **more: Any) -> PatchCore:
    options: dict[str, Any] = {"bank": "merge_reduce", "image_size": 32, "weights": "random", "device": "cpu", **more}
    return PatchCore("resnet18", LAYERS, ratio, progress=False, **options)


def images(count: int, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8))


def patches(one: PatchCore, pictures: Sequence[Any]) -> torch.Tensor:
    batch = torch.stack([one.preprocessing(picture) for picture in pictures])
    return rows(embed(one.extractor()(batch), LAYERS))


def distances(points: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    return torch.cdist(points.double(), bank.double()).amin(dim=1)


def test_no_patch_is_farther_from_the_bank_than_the_covering_radius() -> None:
    pictures = images(2 * IMAGES_PER_BLOCK + 5)
    one = detector().fit(pictures)
    state = one.fitted()
    farthest = float(distances(patches(one, pictures), state["bank"]).max())
    # The bound is not loose either: with it, nobody could tell a good bank from a bad one.
    assert farthest * (1 - 1e-4) <= float(state["covering_radius"]) < 2 * farthest
    assert len(state["bank"]) == int(0.02 * 16 * len(pictures))
    (note,) = one.notes(state)
    shown = re.fullmatch(r"bank: merge_reduce: no training patch is farther than (.+) from the bank", note)
    assert shown
    # Rounding would make the sentence wrong.
    assert float(state["covering_radius"]) <= float(shown[1]) < 1.002 * float(state["covering_radius"])


def test_one_block_has_the_exact_bank() -> None:
    pictures = images(IMAGES_PER_BLOCK - 3)
    exact, streamed = detector(bank="exact").fit(pictures), detector().fit(pictures)
    assert torch.equal(exact.fitted()["bank"], streamed.fitted()["bank"])
    # Then the covering radius is not only a bound.
    farthest = float(distances(patches(exact, pictures), exact.fitted()["bank"]).max())
    assert float(streamed.fitted()["covering_radius"]) == pytest.approx(farthest, rel=1e-4)
    assert "covering_radius" not in exact.fitted()
    assert not exact.notes(exact.fitted())


@pytest.mark.parametrize("batch_size", [3, 12, 48])
def test_every_block_has_the_same_number_of_images(batch_size: int) -> None:
    pictures = images(2 * IMAGES_PER_BLOCK + 5)
    one = detector(0.003, batch_size=batch_size, num_neighbors=1)
    context = one.stage_context({"train": pictures}, lambda _: None, None)
    blocks = Blocks(Features("train", LAYERS, "fp32", 0), LAYERS, 0, 0.003).compute(context)
    assert [block.patches for block in blocks] == [16 * IMAGES_PER_BLOCK, 16 * IMAGES_PER_BLOCK, 16 * 5]
    assert len(one.fit(pictures).fitted()["bank"]) == int(0.003 * 16 * len(pictures))


def test_the_bank_does_not_depend_on_other_ratios() -> None:
    pictures = images(IMAGES_PER_BLOCK + 9)
    small, large = detector(0.02), detector(0.1)
    context = small.stage_context({"train": pictures}, lambda _: None, None)
    group = [small, large]
    stages = [one.fit_stage(Group(group)) for one in group]
    computed = Stages(stages, context)
    for one, stage in zip(group, stages, strict=True):
        alone, together = one.fit(pictures).fitted(), computed.value(stage)
        assert all(torch.equal(alone[name], together[name]) for name in ("bank", "covering_radius"))


def test_the_features_of_all_images_are_not_stored() -> None:
    pictures = images(3 * IMAGES_PER_BLOCK)
    sizes = {}
    for bank in ("exact", "merge_reduce"):
        one = detector(bank=bank, memory_limit=1)
        context = one.stage_context({"train": pictures}, lambda _: None, None)
        requested: list[int] = []
        allocate = context.memory.tensor

        def counted(*shape: int, allocate: Any = allocate, requested: list[int] = requested) -> torch.Tensor:
            requested.append(int(np.prod(shape)))
            return allocate(*shape)

        context.memory.tensor = counted  # type: ignore[method-assign]
        stage = one.fit_stage(Group([one]))
        Stages([stage], context).value(stage)
        sizes[bank] = sum(requested)
    every_patch = 16 * len(pictures) * 384
    assert sizes["exact"] > every_patch
    assert sizes["merge_reduce"] < 0.2 * every_patch


def test_a_fold_selects_from_the_other_images_only() -> None:
    pictures = images(11)
    one = detector()
    fold, positions = Fold(0, 3), (0, 2, 4, 6, 8, 10)
    # The fold is one of the chosen images, as for one model of several categories.
    stage = on_positions(in_fold(one.fit_stage(Group([one])), fold), {"train": positions})
    context = one.stage_context({"train": pictures}, lambda _: None, None)
    bank = Stages([stage], context).value(stage)["bank"]
    inside = fold.images(len(positions))
    learnt = [pictures[position] for position, held_out in zip(positions, inside, strict=True) if not held_out]
    others = [picture for picture in pictures if not any(picture is image for image in learnt)]
    assert float(distances(bank, patches(one, learnt)).max()) < 1e-4
    assert float(distances(bank, patches(one, others)).min()) > 1e-2


def test_rotated_features_of_an_image_follow_each_other() -> None:
    pictures = images(3)
    one = detector()
    context = one.stage_context({"train": pictures}, lambda _: None, None)
    features = Features("train", LAYERS, "fp32", 0, rotations=4)
    stored = features.compute(context)["layer2"]
    streamed = torch.cat([batch["layer2"] for batch in features.batches(context, ("layer2",))])
    assert torch.equal(stored, streamed)
    plain = Features("train", LAYERS, "fp32", 0).compute(context)["layer2"]
    torch.testing.assert_close(stored[::4], plain, rtol=1e-4, atol=1e-5)


def test_the_cache_has_the_bank(tmp_path: Path) -> None:
    from PIL import Image

    for number, picture in enumerate(images(4)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    first, second = (detector(0.2, cache=tmp_path / "cache").fit(tmp_path) for _ in range(2))
    assert {name: tensor.tolist() for name, tensor in first.fitted().items()} == {
        name: tensor.tolist() for name, tensor in second.fitted().items()
    }
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_few_distinct_patches_are_said() -> None:
    picture = images(1)[0]
    with pytest.warns(UserWarning, match="coreset: 256 patches expected; the blocks keep 16 distinct patches"):
        one = detector(ratio=1.0).fit([picture] * 16)
    assert len(one.fitted()["bank"]) == 16


def test_another_bank_is_an_error() -> None:
    with pytest.raises(ConfigError, match="bank: found 'random', expected merge_reduce or exact"):
        detector(bank="random")
