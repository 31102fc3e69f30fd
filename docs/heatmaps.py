"""A picture of heatmaps: `python docs/heatmaps.py RESULTS TARGET`.

One row for each category of a sweep, from the model of its best run: the anomalous test image with the highest score,
of a type of defect that no other row has; its map, the true mask and the predicted outline.
"""

from __future__ import annotations

import sys
from csv import DictReader
from pathlib import Path

import numpy as np
from PIL import Image

from harness import load_model
from harness.data.images import read_image
from harness.data.mask_images import read_mask
from harness.inference.find import find_run
from harness.results.gallery import draw
from harness.results.store import ResultFolder

GAP = 12  # pixels between rows


def row(results: Path, category: str, used: set[str]) -> Image.Image:
    """A category's row; adds the type of defect to `used`."""
    run = find_run(results, category)
    root = Path(run.record.data["root"])
    with (run.folder / "scores.csv").open() as file:
        tested = [one for one in DictReader(file) if one["role"] == "test"]
    found = [one for one in tested if one["label"] == "1" and one["defect_type"] not in used]
    best = max(found, key=lambda one: float(one["score"]))
    used.add(best["defect_type"])
    model = load_model(run.folder)
    result = model.predict(root / best["path"])
    normal = [one for one in tested if one["label"] == "0"][:10]
    maps = [result.anomaly_map, *(model.predict(root / one["path"]).anomaly_map for one in normal)]
    low, high = np.quantile(np.stack(maps), [0.02, 0.998])
    mask = root / "ground_truth" / Path(best["path"]).parent.name / f"{Path(best['path']).stem}_mask.png"
    image = read_image(str(root / best["path"]))
    truth = read_mask(str(mask))
    return Image.fromarray(draw(image, result.anomaly_map, truth, result.thresholds.pixel, (float(low), float(high))))


def main(results: Path, target: Path) -> None:
    """Put the rows below each other."""
    categories = sorted({record.data["category"] for record in ResultFolder(results).records()})
    used: set[str] = set()
    rows = [row(results, category, used) for category in categories]
    height = sum(one.height for one in rows) + GAP * (len(rows) - 1)
    whole = Image.new("RGB", (max(one.width for one in rows), height), "white")
    top = 0
    for one in rows:
        whole.paste(one, (0, top))
        top += one.height + GAP
    whole.save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
