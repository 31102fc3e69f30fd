"""`protocol:` and `extra_metrics:` from the YAML to record, sheet and page; and checks before any training."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from openpyxl import load_workbook
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.config.sweep import SweepConfig
from harness.data.images import pixels_of
from harness.data.mask_images import read_mask
from harness.inference import load_model
from harness.planning.prepare import PlannedRun, prepare
from harness.predictions.detection import Protocol
from harness.report.configurations import current
from harness.report.defect_areas import defect_areas_table
from harness.report.excel import build_workbook
from harness.report.notices import notices
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me, write_config
from tests.trees import write_tree

TOY = "data: {kind: toy, category: plate, size: 64, train: 4, good: 3, bad: 2}\nweights: random\nlatency: false\n"
GRID = "grid: {backend: dummy, model: plain}\n"
FIXED = "threshold: {method: fixed, image: 0.1, pixel: 0.1}\n"
EXTRA = "extra_metrics: [region_Recall, pixel_SegF1_oracle, pixel_FPArea95, region_Precision]\n"


def config_of(text: str, name: str = "c") -> SweepConfig:
    return load_config(write_config(Path(f"{name}.yaml"), f"{TOY}{text}{GRID}"))


def swept(cli: Cli, text: str) -> RunRecord:
    """Sweep, and return the newest run."""
    result = cli("sweep", write_config(Path("c.yaml"), TOY + FIXED + text + GRID))
    assert result.exit_code == 0, result.output
    return max(ResultFolder(Path("results/c")).records(), key=lambda record: record.provenance["began"])


def test_forms_of_the_block() -> None:
    assert config_of("").protocol.protocol == Protocol()
    assert config_of("").protocol.changes() == {}
    short, long = config_of("protocol: original\n"), config_of("protocol: {size: original, mask: above_0}\n")
    assert short.protocol == long.protocol
    assert short.protocol.changes() == {"size": "original"}
    both = config_of("protocol: {mask: above_half, min_area: 5}\nextra_metrics: [region_Recall]\n")
    assert both.protocol.protocol == Protocol("input", "above_half", 5)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("protocol: large\n", ["protocol.size: found 'large'", "'input' or 'original'"]),
        ("protocol: {mask: 0.5}\n", ["protocol.mask: found 0.5", "'above_0' or 'above_half'"]),
        ("protocol: {sise: original}\n", ["protocol.sise: unknown key", "Did you mean 'size'?"]),
        ("protocol: {min_area: 0}\nextra_metrics: [region_Recall]\n", ["protocol.min_area: found 0", "1"]),
        ("protocol: {min_area: 4}\n", ["protocol.min_area: found without a metric of regions", "region_Recall"]),
        ("extra_metrics: [pixel_AUPIM]\n", ["extra_metrics: unknown metric", "Did you mean 'pixel_AUPIMO'"]),
        ("extra_metrics: pixel_AUPIMO\n", ["extra_metrics: found 'pixel_AUPIMO'", "list"]),
        (
            "search: {num_samples: 2, metric: pixel_AUPIMO, space: {model: mean, power: {choice: [1, 2]}}}\n",
            ["search.metric: pixel_AUPIMO found, which is computed on request only", "extra_metrics"],
        ),
    ],
)
def test_mistakes(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(text)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("text", ["protocol: original", "extra_metrics: [pixel_AUPIMO]"])
def test_a_classification_has_neither(text: str) -> None:
    config = write_config(Path("c.yaml"), f"task: classification\ndata: {{kind: toy}}\n{text}\ngrid: {{model: vit}}\n")
    with pytest.raises(ConfigError, match=f"`{text.partition(':')[0]}` has no effect in task 'classification'"):
        load_config(config)


def test_default_changes_no_identity_and_others_do(dummy: type) -> None:
    def planned(text: str) -> PlannedRun:
        (run,) = prepare(config_of(text)).runs
        assert RunSpec.from_dict(run.spec.as_dict()) == run.spec
        return run

    plain = planned("")
    assert not {"protocol", "extra_metrics"} & set(plain.spec.as_dict())
    assert planned("protocol: {size: input, mask: above_0}\nextra_metrics: []\n").run_id == plain.run_id
    original, extra = planned("protocol: original\n"), planned(EXTRA)
    assert original.spec.as_dict()["protocol"] == {"size": "original"}
    assert len({plain.run_id, original.run_id, extra.run_id}) == 3
    other_order = "extra_metrics: [region_Precision, pixel_FPArea95, pixel_SegF1_oracle, region_Recall]\n"
    assert planned(other_order).run_id == extra.run_id


def test_metrics_on_request_make_no_other_configuration(cli: Cli, dummy: type) -> None:
    """Of a run with these metrics and one without, the newer one counts."""
    plain, extra = swept(cli, ""), swept(cli, EXTRA)
    assert extra.run_id != plain.run_id
    assert {name: extra.metrics[name] for name in plain.metrics} == plain.metrics
    assert current([plain, extra]) == [extra]


def test_sheet_page_and_compare_tell_the_protocol(cli: Cli, dummy: type) -> None:
    plain = swept(cli, "")
    folder = ResultFolder(Path("results/c"))
    book = load_workbook(io.BytesIO(build_workbook(Results.of(folder))))
    names = [cell.value for cell in next(book["Runs"].iter_rows(max_row=1))]
    assert not {"protocol", "region_Recall"} & set(names)
    assert "Defect areas" not in book.sheetnames
    assert not [text for text in notices(Results.of(folder)) if "PROTOCOL" in text]

    changed = swept(cli, f"protocol: {{size: original, mask: above_half, min_area: 2}}\n{EXTRA}")
    results = Results.of(folder)
    words = "mask above_half, min_area 2, size original"
    assert f"PROTOCOL of the pixel metrics in 1 of 2 runs: {words}." in notices(results)
    assert "Compare pixel metrics between runs of one protocol only." in notices(results)
    # Runs of two protocols are never ranked together.
    assert {name.partition(", protocol ")[2] for name in results.configurations} == {"", words}
    book = load_workbook(io.BytesIO(build_workbook(results)))
    header, *rows = book["Runs"].iter_rows(values_only=True)
    place = header.index("protocol")
    assert sorted(str(row[place]) for row in rows if row[header.index("run")]) == sorted(["None", words])
    assert "region_Recall" in header
    assert {"protocol:", "  size: original"} <= {row[0] for row in book["Config"].iter_rows(values_only=True)}

    groups = results.details(changed.run_id)["recall_by_area"]
    areas = defect_areas_table(results)
    assert areas["run"].tolist() == [changed.run_id] * len(groups)
    assert areas["recall"].tolist() == [group["found"] / group["defects"] for group in groups]
    assert sum(areas["found"]) / sum(areas["defects"]) == pytest.approx(changed.metrics["region_Recall"])
    header, first, *_ = book["Defect areas"].iter_rows(values_only=True)
    assert first[header.index("smallest_area")] == groups[0]["smallest"]
    assert cli("report", "results/c").exit_code == 0
    script = (Path("results/c/report/runs") / f"{changed.run_id}.js").read_text()
    assert json.dumps(groups[0]["smallest"]) in script
    assert words in Path("results/c/report.html").read_text()

    result = cli("compare", folder.run_folder(plain.run_id), folder.run_folder(changed.run_id))
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "The runs have different protocols, so their pixel metrics can't be compared." in output
    assert "protocol default" in output
    same = cli("compare", folder.run_folder(plain.run_id), folder.run_folder(plain.run_id))
    assert "protocol" not in same.output


def test_original_needs_memory(cli: Cli, dummy: type, toy_tree: Path) -> None:
    """110 bytes for each anomalous pixel, 4 for each pixel of a block, and 24 for each of the largest image."""
    root = toy_tree / "plate"
    anomalous = sum(int(read_mask(file).sum()) for file in (root / "ground_truth").rglob("*.png"))
    areas = [pixels_of(file) for file in (root / "test").rglob("*.png")]
    needed = 110 * anomalous + 4 * sum(areas) + 24 * max(areas)
    data = f"data: {{kind: mvtec, root: {root}}}\nweights: random\nprotocol: original\n{GRID}"

    def sweep(limit: int) -> Result:
        return cli("sweep", write_config(Path("c.yaml"), f"{data}memory_limit: {limit}\n"))

    result = sweep(needed - 1)
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert f"protocol.size: original found, which needs {needed / 1e9:.3g} GB of memory for {len(areas)} test" in output
    assert f"with {anomalous / 1e6:.4g} million anomalous pixels; expected at most" in output
    assert "Set a larger memory_limit, or protocol.size to input." in output
    assert not Path("results/c/runs").exists()
    assert sweep(needed).exit_code == 0


def test_masks_without_a_pixel_under_a_rule(cli: Cli, dummy: type, toy_tree: Path) -> None:
    """Some such masks are named at the head of sheet and page. A rule that no mask fits ends the sweep."""
    shutil.copytree(toy_tree / "plate", "plate")
    masks = sorted(Path("plate/ground_truth").rglob("*.png"))
    data = f"data: {{kind: mvtec, root: plate}}\nweights: random\n{GRID}"
    half = write_config(Path("d.yaml"), f"{data}protocol: {{mask: above_half}}\n")
    # A small defect with smooth edges only.
    Image.fromarray(read_mask(masks[0]).astype(np.uint8) * 90).save(masks[0])
    result = cli("sweep", half)
    assert result.exit_code == 0, result.output
    words = f"by the rule above_half, the masks of 1 of {len(masks)} defective images have no anomalous pixel, such as "
    assert words in " ".join(result.output.split())
    (record,) = ResultFolder(Path("results/d")).records()
    (note,) = [note for note in record.data["notes"] if words in note]
    assert note.endswith(f"{masks[0]}. Image metrics count these images, pixel metrics leave them out.")
    assert record.data["test_anomalous"] == len(masks)
    assert record.warnings == []
    assert note in read_me(Path("results/d/models_comparing.xlsx"))
    assert words in Path("results/d/report.html").read_text()
    # Masks with 0 and 1.
    for mask in masks:
        Image.fromarray(read_mask(mask).astype(np.uint8)).save(mask)
    result = cli("sweep", half)
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert f"protocol.mask: above_half found, but none of the {len(masks)} masks in " in output
    assert masks[0].name in output
    result = cli("sweep", write_config(Path("e.yaml"), data))
    assert result.exit_code == 0
    assert "above_half" not in result.output


def test_read_me_and_page_always_say_the_protocol(cli: Cli, dummy: type) -> None:
    swept(cli, "")
    folder = ResultFolder(Path("results/c"))
    default = "masks are resized to the maps (protocol input), and a value not 0 is anomalous (above_0)."
    sentence = f"Pixel metrics: {default}"
    assert sentence in read_me(folder.workbook)
    assert sentence in folder.report.read_text()
    swept(cli, "protocol: {size: original, mask: above_half, min_area: 2}\nextra_metrics: [region_Recall]\n")
    original = (
        "maps are resized to the masks (protocol original), and a value above half of the range is anomalous "
        "(above_half)."
    )
    assert "Region metrics leave out regions below 2 pixels." in read_me(folder.workbook)
    for words in (f"Pixel metrics of 1 of 2 runs: {default}", f"Pixel metrics of 1 of 2 runs: {original}"):
        assert words in read_me(folder.workbook)
        assert words in folder.report.read_text()


def test_the_protocol_of_metrics_that_count_at_the_size_of_the_masks(cli: Cli, dummy: type) -> None:
    root = write_tree("mvtec_loco", Path("loco"))
    words = "pixel_AUsPRO5 and pixel_AUsPRO30 count resized masks too, unlike the evaluation of their data set."
    for size, resized in (("input", True), ("original", False)):
        text = f"data: {{kind: mvtec_loco, root: {root}}}\nprotocol: {size}\n{GRID}"
        result = cli("sweep", write_config(Path(f"{size}.yaml"), text))
        assert result.exit_code == 0, result.output
        assert (words in read_me(Path("results") / size / "models_comparing.xlsx")) == resized


@pytest.mark.slow
def test_both_backends_measure_at_the_original_size(cli: Cli) -> None:
    """The pixel metrics of a run are those of the maps that its saved model gives for whole images."""
    grid = (
        "grid:\n  - {backend: [native, anomalib], model: padim, backbone: resnet18, layers: [layer1], n_features: 10, "
        "image_size: 32}\n"
    )
    config = write_config(Path("c.yaml"), f"{TOY}{FIXED}save_models: all\nprotocol: original\n{grid}")
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    records = ResultFolder(Path("results/c")).records()
    assert {record.spec["backend"] for record in records} == {"native", "anomalib"}
    for record in records:
        root = Path(record.data["root"])
        model = load_model(Path("results/c/runs") / record.run_id)
        maps, masks = [], []
        for image in sorted((root / "test").rglob("*.png")):
            anomaly_map = model.predict(image).map_at_image_size()
            assert anomaly_map is not None
            mask = root / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
            maps.append(anomaly_map.ravel())
            masks.append(read_mask(mask).ravel() if mask.is_file() else np.zeros(anomaly_map.size, bool))
        truth, values = np.concatenate(masks), np.concatenate(maps)
        assert record.metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(truth, values), abs=1e-4)
        assert record.metrics["pixel_AP"] == pytest.approx(average_precision_score(truth, values), abs=1e-3)
