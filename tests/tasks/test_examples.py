"""Confused images of a real run have their Grad-CAM beside them, by the network that was not trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import load_classifier
from harness.common.errors import DataError
from harness.data.images import read_image
from harness.inference.class_result import ClassResult
from harness.predictions.classification import ClassPredictions
from harness.predictions.drawing import at_image_size, heat, overlay
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import Cli


@pytest.fixture
def swept(cli: Cli) -> ResultFolder:
    """A sweep whose networks have feature maps of several cells."""
    Path("c.yaml").write_text(CONFIG.format(name="seen"))
    point = "model: baseline, backbone: test_resnet, image_size: 96, lr: 5.0e-3"
    result = cli("sweep", "c.yaml", f"grid=[{{{point}}}]", "trainer.max_epochs=1")
    assert result.exit_code == 0, result.output
    return ResultFolder(Path("results/seen"))


def test_the_pixels_behind_a_confusion(swept: ResultFolder) -> None:
    (record,) = swept.records()
    run = swept.run_folder(record.run_id)
    details = json.loads((run / "details.json").read_text())
    assert details["cam_note"] == ""
    examples = [(pair["said"], one) for pair in details["confused"] for one in pair["examples"]]
    assert examples
    assert all((run / one["cam"]).is_file() for _, one in examples)
    predicted_label, example = examples[0]
    predictions = ClassPredictions.load(run)
    model = load_classifier(run, device="cpu")
    image = read_image(Path(record.data["root"]) / example["name"])
    fold = int(predictions.folds[predictions.names.index(example["name"])])
    maps = model.scorer.grad_cam([model.scorer.prepare(image)], [predictions.labels.index(predicted_label)], fold)
    assert maps is not None
    small = np.asarray(Image.open(run / example["file"]))
    expected = overlay(small, at_image_size(maps[0], (small.shape[0], small.shape[1]), None), (0, 1))
    drawn = np.asarray(Image.open(run / example["cam"]))
    assert np.abs(drawn.astype(int) - expected).mean() < 8  # JPEG
    assert f'"cam": "runs/{record.run_id}/{example["cam"]}"' in swept.report.read_text()

    # From Python: the most probable label, or another one; the mean over folds, as large as the image.
    result = model.predict(image)
    assert isinstance(result, ClassResult)
    own, same, other = (model.grad_cam(image, label) for label in (None, result.label, predicted_label))
    assert own is not None
    assert own.shape == image.shape[:2]
    assert 0 <= own.min() <= own.max() <= 1
    np.testing.assert_array_equal(own, same)
    assert other is not None
    assert heat(other, (0, 1)).shape == image.shape
    with pytest.raises(DataError, match=r"unknown label 'gear-bent'\. Did you mean 'gear-"):
        model.grad_cam(image, "gear-bent")
