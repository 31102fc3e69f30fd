"""A note before the runs where anomalib's own selection of a coreset takes more than a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli, write_config

# 8 training images of 512 x 512: 128 x 128 patches of layer1 each, 131,072 patches together.
TEXT = """
name: coreset
data: {{kind: mvtec, root: "{root}", category: plate, val: 0}}
weights: random
device: cpu
threshold: {{method: none}}
grid: {{backend: anomalib, model: patchcore, backbone: resnet18, layers: [layer1], image_size: 512, {more}}}
"""


def notes(cli: Cli, tree: Path, more: str) -> str:
    result = cli("plan", write_config(Path("c.yaml"), TEXT.format(root=tree, more=more)))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("coreset_sampling_ratio: 0.5", "1 run on a CPU. The longest takes about 50 minutes: 65,536 of 131,072"),
        ("coreset_sampling_ratio: [0.1, 0.001, 0.2]", "2 runs on a CPU. The longest takes about 20 minutes: 26,214 of"),
    ],
)
def test_a_slow_selection_has_a_note(cli: Cli, toy_tree: Path, more: str, expected: str) -> None:
    shown = notes(cli, toy_tree, more)
    assert f"coreset: anomalib's own selection takes more than a minute in {expected}" in shown
    assert "With `coreset: exact` the harness selects as many patches in seconds." in shown


@pytest.mark.parametrize("more", ["coreset_sampling_ratio: 0.001", "coreset_sampling_ratio: 0.5, coreset: exact"])
def test_a_quick_selection_has_none(cli: Cli, toy_tree: Path, more: str) -> None:
    assert "own selection" not in notes(cli, toy_tree, more)
