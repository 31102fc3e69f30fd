"""A note before the runs where a selection from all patches at once exceeds the memory for arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli, write_config

# 8 training images of 256 x 256 have 64 x 64 patches of layer1 each, 32,768 together.
TEXT = """
name: banks
data: {{kind: mvtec, root: "{root}", category: plate, val: 0}}
weights: random
device: cpu
{limit}
threshold: {{method: none}}
grid: {{backend: native, backbone: resnet18, layers: [layer1, layer2], image_size: 256, {more}}}
"""


def notes(cli: Cli, tree: Path, limit: str, more: str) -> str:
    result = cli("plan", write_config(Path("c.yaml"), TEXT.format(root=tree, limit=limit, more=more)))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # 64 + 128 channels of 4 bytes.
        ("model: patchcore, coreset_sampling_ratio: [0.01, 0.02]", "up to 0.025 GB in 2 runs"),
        ("model: patchcore, bank: [exact, merge_reduce], coreset_sampling_ratio: 0.01", "up to 0.025 GB in 1 run"),
        # At most 1,024 components.
        ("model: mhpatchcore, bank: exact", "up to 0.13 GB in 1 run"),
    ],
)
def test_a_bank_that_memory_has_no_room_for_has_a_note(cli: Cli, toy_tree: Path, more: str, expected: str) -> None:
    shown = notes(cli, toy_tree, "memory_limit: 40 MB", more)
    assert f"bank: exact stores all patches of the training images: {expected}, and memory_limit leaves 0.024" in shown
    assert "`bank: merge_reduce` stores a few patches of each block of images." in shown


@pytest.mark.parametrize(
    ("limit", "more"),
    [
        ("", "model: patchcore, coreset_sampling_ratio: 0.01"),
        ("memory_limit: 45 MB", "model: patchcore, coreset_sampling_ratio: 0.01"),
        ("memory_limit: 1 MB", "model: patchcore, coreset_sampling_ratio: 0.01, bank: merge_reduce"),
        ("memory_limit: 1 MB", "model: [mhpatchcore, subspacead]"),
    ],
)
def test_other_runs_have_none(cli: Cli, toy_tree: Path, limit: str, more: str) -> None:
    assert "stores all patches" not in notes(cli, toy_tree, limit, more)
