"""Maps and masks meet as the protocol says: at the input size, or at the size of the files."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data.images import ORIENTATION, upright_size
from harness.data.mask_images import ABOVE_0, ABOVE_HALF, read_mask
from harness.data.samples import Sample
from harness.metrics import pixel_ranking as blocks
from harness.metrics.evaluate import evaluate
from harness.metrics.pixel_ranking import bytes_needed, pixel_ranking
from harness.metrics.ranking import Ranking, measure
from harness.metrics.thresholds import best_f1_threshold, fix_thresholds
from harness.predictions.decision import Thresholds
from harness.predictions.detection import ORIGINAL, Predictions, Protocol, join
from harness.predictions.pairs import counted, pairs, resized_maps, sizes, vanished

AT_ORIGINAL = Protocol(size=ORIGINAL)


def sample(folder: Path, name: str, mask: np.ndarray | None, size: tuple[int, int]) -> Sample:
    """An image of a (height, width), with its mask."""
    Image.new("RGB", size[::-1]).save(folder / f"{name}.png")
    if mask is None:
        return Sample(str(folder / f"{name}.png"), name, 0, "good")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return Sample(str(folder / f"{name}.png"), name, 1, "bad", (str(folder / f"{name}_mask.png"),))


def disc(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (((rows - height / 3) ** 2 + (columns - width / 2) ** 2 < (height / 4) ** 2) * 255).astype(np.uint8)


@pytest.fixture
def mixed(tmp_path: Path) -> Predictions:
    """Two anomalous images and a normal one, of three sizes; maps of 16 x 12."""
    samples = [
        sample(tmp_path, "a", disc(40, 30), (40, 30)),
        sample(tmp_path, "b", disc(21, 50), (21, 50)),
        sample(tmp_path, "c", None, (33, 17)),
    ]
    maps = np.random.default_rng(0).random((3, 16, 12)).astype(np.float32)
    return join(samples, {s.path: (float(i), one) for i, (s, one) in enumerate(zip(samples, maps, strict=True))})


def test_input_gives_the_arrays_themselves(mixed: Predictions) -> None:
    assert mixed.maps is not None
    assert mixed.masks is not None
    for (anomaly_map, mask), expected, truth in zip(pairs(mixed), mixed.maps, mixed.masks, strict=True):
        assert np.shares_memory(anomaly_map, expected)
        assert np.shares_memory(mask, truth)
    assert sizes(mixed) == [(16, 12)] * 3


def test_original_resizes_maps_as_torch_does(mixed: Predictions) -> None:
    map_pairs = list(pairs(mixed.under(AT_ORIGINAL)))
    assert sizes(mixed.under(AT_ORIGINAL)) == [(40, 30), (21, 50), (33, 17)]
    assert mixed.maps is not None
    for (anomaly_map, mask), alone, one, size in zip(
        map_pairs,
        resized_maps(mixed.under(AT_ORIGINAL)),
        mixed.maps,
        [(40, 30), (21, 50), (33, 17)],
        strict=True,
    ):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(one)[None, None], size, mode="bilinear")[0, 0]
        assert mask.shape == size
        assert anomaly_map == pytest.approx(theirs.numpy(), abs=1e-5)
        assert alone == pytest.approx(anomaly_map, abs=0)
    assert [int(mask.sum()) for _, mask in map_pairs] == [
        int((disc(40, 30) > 0).sum()),
        int((disc(21, 50) > 0).sum()),
        0,
    ]


def test_the_ranking_at_original_size_is_that_of_all_pixels(mixed: Predictions) -> None:
    predictions = mixed.under(AT_ORIGINAL)
    maps, masks = zip(*((one.ravel(), mask.ravel()) for one, mask in pairs(predictions)), strict=True)
    slow = Ranking.of(np.concatenate(maps), np.concatenate(masks), 0.5)
    fast = pixel_ranking(predictions, 0.5, 0.3)
    assert (fast.positives, fast.negatives) == (slow.positives, slow.negatives)
    for name in ("tp", "fp", "fp_above", "tp_at", "fp_at"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name)), name
    at_input = measure("pixel", pixel_ranking(mixed, 0.5, 0.3))
    assert float(measure("pixel", fast)["pixel_AUROC"]) != float(at_input["pixel_AUROC"])


def test_the_memory_of_the_original_size_is_that_of_the_check(tmp_path: Path) -> None:
    """The ranking needs at most the bytes that the check before a sweep counts, with a tenth of all anomalous."""
    mask = np.zeros((256, 256), np.uint8)
    mask[100:150, 10:140] = 255
    samples = [sample(tmp_path, str(number), mask, (256, 256)) for number in range(16)]
    rng = np.random.default_rng(0)
    predictions = join(samples, {s.path: (0.0, rng.random((32, 32)).astype(np.float32)) for s in samples})
    tracemalloc.start()
    try:
        ranking = pixel_ranking(predictions.under(AT_ORIGINAL), 0.5, 0.3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ranking.positives == 16 * 50 * 130
    assert peak < bytes_needed([256 * 256] * 16, ranking.positives)


def test_a_centre_crop_counts_the_part_that_the_model_sees(tmp_path: Path) -> None:
    """The centre half of 40 x 40 pixels, by a model that sees 8 x 8 of 16 x 16."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 255
    samples = [sample(tmp_path, "a", mask, (40, 40)), sample(tmp_path, "b", None, (40, 40))]
    raw = {s.path: (0.0, np.zeros((8, 8), np.float32)) for s in samples}
    masks = [mask for _, mask in pairs(join(samples, raw, (16, 16)).under(AT_ORIGINAL))]
    assert [mask.shape for mask in masks] == [(20, 20), (20, 20)]
    assert (int(masks[0].sum()), int(masks[1].sum())) == (200, 0)
    assert masks[0][:10].all()


def test_the_size_of_an_image_that_a_camera_turned(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (30, 20)), Image.Exif()
    for orientation, expected in ((1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))):
        exif[ORIENTATION] = orientation
        image.save(tmp_path / "turned.jpg", exif=exif)
        assert upright_size(tmp_path / "turned.jpg") == expected


@pytest.mark.parametrize(
    ("values", "above_0", "above_half"),
    [
        (np.array([[0, 1, 127, 128, 255]], np.uint8), [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]),
        (np.array([[0, 1, 32767, 32768, 65535]], np.uint16), [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]),
        (np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32), [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]),
        (np.array([[[0, 0, 0], [9, 0, 0], [0, 200, 0]]], np.uint8), [0, 1, 1], [0, 0, 1]),
        (np.array([[False, True]]), [0, 1], [0, 1]),
    ],
)
def test_rules_of_masks(tmp_path: Path, values: np.ndarray, above_0: list[int], above_half: list[int]) -> None:
    file = tmp_path / "mask.tif"
    Image.fromarray(values).save(file)
    assert read_mask(file).astype(int).tolist() == [above_0]
    assert read_mask(file, rule=ABOVE_HALF).astype(int).tolist() == [above_half]


def test_rules_of_painted_layers_are_about_the_opacity(tmp_path: Path) -> None:
    layer = np.zeros((1, 3, 4), np.uint8)
    layer[0, :, 3] = [0, 100, 200]
    Image.fromarray(layer).save(tmp_path / "layer.png")
    assert read_mask(tmp_path / "layer.png").tolist() == [[False, True, True]]
    assert read_mask(tmp_path / "layer.png", rule=ABOVE_HALF).tolist() == [[False, False, True]]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_smooth_edges_and_jpeg_differ_between_the_rules(tmp_path: Path, kind: str) -> None:
    """Half of the range finds the shape again, as it was before smoothing or compression."""
    shape = disc(64, 64)
    small = Image.fromarray(shape)
    drawn = small if kind == "jpg" else small.resize((32, 32), Image.Resampling.BILINEAR)
    drawn.save(tmp_path / f"mask.{kind}", quality=60)
    truth = (shape if kind == "jpg" else shape[::2, ::2]) > 0
    wrong = {
        rule: int((read_mask(tmp_path / f"mask.{kind}", rule=rule) != truth).sum()) for rule in (ABOVE_0, ABOVE_HALF)
    }
    assert wrong[ABOVE_0] > 2 * wrong[ABOVE_HALF]


def test_a_rule_reads_the_masks_again(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0], mask[1] = 60, 200
    one = sample(tmp_path, "a", mask, (4, 4))
    predictions = join([one], {one.path: (0.0, np.zeros((4, 4), np.float32))})
    half = predictions.under(Protocol(mask=ABOVE_HALF))
    assert predictions.masks is not None
    assert half.masks is not None
    assert (int(predictions.masks.sum()), int(half.masks.sum())) == (8, 4)
    assert half.part(np.array([True])).protocol == half.protocol
    assert np.array_equal(half.under(Protocol()).masks, predictions.masks)
    assert sum(int(mask.sum()) for _, mask in pairs(half.under(Protocol(ORIGINAL, ABOVE_HALF)))) == 4


def test_small_masks_vanish_at_the_input_size_only(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[33, 33] = 255
    one = sample(tmp_path, "a", mask, (64, 64))
    predictions = join([one], {one.path: (0.0, np.zeros((8, 8), np.float32))})
    assert vanished(predictions) == ["a"]
    assert vanished(predictions.under(AT_ORIGINAL)) == []


@pytest.mark.parametrize("size", ["input", ORIGINAL])
def test_pixel_metrics_leave_out_a_defect_without_a_pixel_by_the_rule(tmp_path: Path, size: str) -> None:
    """The ranking is that of the other images; its pixels are neither anomalous nor normal."""
    faint = disc(40, 30) // 3
    samples = [
        sample(tmp_path, "a", disc(40, 30), (40, 30)),
        sample(tmp_path, "b", faint, (40, 30)),
        sample(tmp_path, "c", None, (40, 30)),
    ]
    maps = np.random.default_rng(1).random((3, 16, 12)).astype(np.float32)
    whole = join(samples, {s.path: (float(i), one) for i, (s, one) in enumerate(zip(samples, maps, strict=True))})
    under = whole.under(Protocol(size=size, mask=ABOVE_HALF))
    assert counted(whole) is whole
    assert [one.name for one in counted(under).samples] == ["a", "c"]
    assert vanished(under) == []
    without = under.part(np.array([True, False, True]))
    thresholds = Thresholds(0.5, 0.5, "")
    values, expected = evaluate(under, thresholds, extra=["pixel_AUPRO5"]), evaluate(without, thresholds)
    assert values["pixel_AUPRO5"] is not None
    for name in ("pixel_AUROC", "pixel_AP", "pixel_F1Score", "pixel_AUPRO"):
        assert values[name] == expected[name]
    assert values["image_AP"] == evaluate(whole, thresholds)["image_AP"] != expected["image_AP"]
    by_labels = fix_thresholds({"method": "f1_on_val"}, None, under)
    assert by_labels.pixel == fix_thresholds({"method": "f1_on_val"}, None, without).pixel


@pytest.mark.parametrize("protocol", [Protocol(), AT_ORIGINAL])
@pytest.mark.parametrize("block", [1, 1500, 3000])
def test_the_ranking_in_blocks_is_that_of_all_pixels(
    mixed: Predictions, protocol: Protocol, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a block smaller than an image, and with the threshold from F1 of the pixels."""
    assert mixed.maps is not None
    # Few values, so that positives and negatives tie.
    test = replace(mixed, maps=np.round(mixed.maps, 1)).under(protocol)
    maps, masks = (np.concatenate([one.ravel() for one in column]) for column in zip(*pairs(test), strict=True))
    whole = Ranking.of(maps, masks, 0.5)
    monkeypatch.setattr(blocks, "BLOCK", block)
    ranking = pixel_ranking(test, 0.5, 0.3)
    for name in ("tp", "fp", "fp_above", "tp_at", "fp_at", "positives", "negatives"):
        assert np.array_equal(getattr(ranking, name), getattr(whole, name)), name
    assert fix_thresholds({"method": "f1_on_val"}, None, test).pixel == best_f1_threshold(maps, masks)


def test_the_memory_does_not_grow_with_the_normal_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 100_000)
    mask = np.zeros((256, 256), np.uint8)
    mask[100:110, 10:40] = 255

    def peak(normal: int) -> int:
        samples = [sample(tmp_path, "a", mask, (256, 256))]
        samples += [sample(tmp_path, str(number), None, (256, 256)) for number in range(normal)]
        rng = np.random.default_rng(0)
        test = join(samples, {s.path: (0.0, rng.random((32, 32)).astype(np.float32)) for s in samples})
        tracemalloc.start()
        try:
            ranking = pixel_ranking(test.under(AT_ORIGINAL), None, 0.3)
            fix_thresholds({"method": "f1_on_val"}, None, test.under(AT_ORIGINAL))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert ranking.negatives == (normal + 1) * 256 * 256 - 300
        return most

    # 20 images more have 1.3 million normal pixels more, and 80 kB of small maps.
    assert peak(24) - peak(4) < 200_000
