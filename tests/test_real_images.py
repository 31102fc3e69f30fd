"""Real images and real ImageNet weights, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.store import ResultFolder
from tests.conftest import HAZELNUT, MOBILENET, Cli, real_data, write_config

pytestmark = real_data

TEXT = f"""
name: hazelnut
data: {{kind: mvtec, root: {HAZELNUT}, val: 0}}
weights: {MOBILENET}
grid:
  model: patchcore
  backbone: mobilenetv2_100
  layers: [blocks.2, blocks.4]
  coreset_sampling_ratio: 0.01
  num_neighbors: 9
"""


@pytest.mark.slow
def test_patchcore_reaches_the_known_figures(cli: Cli) -> None:
    """What a bare anomalib gives on the same images: image AUROC 1.000, pixel AUROC 0.990."""
    result = cli("sweep", write_config(Path("h.yaml"), TEXT))
    assert result.exit_code == 0, result.output
    (record,) = ResultFolder(Path("results/hazelnut")).records()
    assert record.metrics["image_AUROC"] == pytest.approx(1.000, abs=0.01)
    assert record.metrics["pixel_AUROC"] == pytest.approx(0.990, abs=0.01)
    assert record.metrics["anomalib_image_AUROC"] == pytest.approx(1.000, abs=0.01)
    assert record.metrics["anomalib_pixel_AUROC"] == pytest.approx(0.990, abs=0.01)
    assert record.metrics["image_F1Score"] is None
    assert record.thresholds["fixed_by"] == "none: data.val is 0"
    assert record.weights["source"] == "file"
    assert record.weights["fallback"] is False
