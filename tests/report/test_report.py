"""report.html, and the verbs that work from records alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from harness.report.html import as_script, build_page, write_report
from harness.report.recommend import answers
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me


def test_a_sweep_leaves_a_report_that_needs_no_network(sweep_folder: ResultFolder) -> None:
    page = sweep_folder.report.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    for file in re.findall(r'src="([^"]+)"', page):
        assert (sweep_folder.root / file).is_file(), file
    runs = [record.run_id for record in sweep_folder.records() if record.status == "ok"]
    assert len(runs) == 16
    assert sorted(file.stem for file in (sweep_folder.root / "report/runs").iterdir()) == sorted(runs)


def test_the_answer_comes_first_with_why_and_what_it_costs(sweep_folder: ResultFolder) -> None:
    page = sweep_folder.report.read_text()
    assert page.index("The answer") < page.index('id="runs"')
    (answer,) = answers(Results.of(sweep_folder))
    assert answer.configuration is not None
    quality, why, cost, full = answer.reasons
    assert re.match(r"Image AUROC 0\.\d{3} \(95%: 0\.\d{3} to [01]\.\d{3}\), pixel AUPRO 0\.\d{3}", quality)
    assert re.search(r"misses \d+ of 24 anomalous images, and calls \d+ of 16 normal ones anomalous", quality)
    assert re.search(r"Compared with the best: \d+ ", why)
    assert re.search(r"expect an image AUROC of about 0\.\d{3} on new ones", why)
    assert full.startswith("In full: model ")
    assert answer.doubts
    assert "Leading, not to be relied on yet:" in page
    assert re.match(r"Cost: fit 0\.0 s, \d\.0 ms an image, 95% of single images within \d\.0 ms", cost)


def test_of_tied_settings_that_are_as_good_the_fastest_is_taken(sweep_folder: ResultFolder) -> None:
    """`plain` is `mean` with power 1, which costs the same; the powers rank images almost alike and cost 1, 2, 3 ms."""
    results = Results.of(sweep_folder)
    (configurations,) = results.configurations.values()
    assert {configuration.cost("ms_per_image_p50") for configuration in configurations} == {1.0, 2.0, 3.0}
    (answer,) = answers(results)
    best = configurations[0]
    assert answer.configuration is not None
    close = [one for one in configurations
             if (one.metric("image_AUROC") or 0) >= (best.metric("image_AUROC") or 0) - 0.01
             and (one.metric("pixel_AUPRO") or 0) >= (best.metric("pixel_AUPRO") or 0) - 0.01
             and (one.metric("pixel_AUROC") or 0) >= (best.metric("pixel_AUROC") or 0) - 0.01]  # fmt: skip
    assert answer.configuration.cost("ms_per_image_p50") == min(one.cost("ms_per_image_p50") or 9 for one in close)


def test_the_page_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "empty")
    folder.create()
    assert "No finished runs yet." in build_page(Results.of(folder))


def test_nothing_in_the_data_can_end_a_script() -> None:
    assert "<" not in as_script({"name": "</script><script>alert(1)</script>"})
    assert json.loads(as_script("a < b")) == "a < b"


def without_torch(*arguments: object) -> str:
    """What a command prints that ends well and imports nothing heavy."""
    code = (
        "import sys; from harness.cli.main import app\n"
        f"try: app({[str(argument) for argument in arguments]!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'anomalib', 'timm', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_details_of_a_run_are_in_its_script_whatever_they_say(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = ResultFolder(tmp_path / "copy")
    shutil.copytree(sweep_folder.root, copy.root)
    first, second = sorted(copy.runs.glob("*/details.json"))[:2]
    details = json.loads(first.read_text())
    details["gallery"][0]["name"] = "tür</script>"
    first.write_text(json.dumps(details, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    second.write_text("{")
    scripts = copy.root / "report" / "runs"
    shutil.rmtree(scripts)
    results = Results.of(copy)
    write_report(copy, results)
    assert [sentence for sentence in results.damaged if str(second) in sentence]
    written = (scripts / f"{first.parent.name}.js").read_text(encoding="utf-8")
    assert "<" not in written
    begin = written.index("JSON.parse(") + len("JSON.parse(")
    text, end = json.JSONDecoder().raw_decode(written, begin)
    assert json.loads(text) == details
    assert written[end:].startswith('), ...{"names": [')
    # The scores of a run with damaged details are shown.
    assert '{...JSON.parse("{}"), ...{"names": ["' in (scripts / f"{second.parent.name}.js").read_text(encoding="utf-8")


def test_report_is_rebuilt_from_the_records_alone_without_torch(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = tmp_path / "mailed"
    shutil.copytree(sweep_folder.root, copy, ignore=shutil.ignore_patterns("report*", "*.xlsx", ".*", "config.yaml"))
    assert without_torch("report", copy).split() == [str(copy / "models_comparing.xlsx"), str(copy / "report.html")]
    page = (copy / "report.html").read_text()
    assert all(record.run_id in page for record in sweep_folder.records())


def test_compare_needs_no_torch_either(sweep_folder: ResultFolder) -> None:
    assert "DeLong's paired test" in without_torch("compare", *run_folders(sweep_folder, "plate")[:2])


def test_several_sweeps_are_shown_together(cli: Cli, sweep_folder: ResultFolder, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for copy in (one, two):
        shutil.copytree(sweep_folder.root, copy)
    for record in ResultFolder(two).records()[3:]:
        shutil.rmtree(two / "runs" / record.run_id)
    gone = ResultFolder(one).records()[0].run_id
    shutil.rmtree(one / "runs" / gone)
    result = cli("report", one, two)
    assert result.exit_code == 0, result.output
    assert "is in several folders: the report shows the last one that finished." in result.output
    together = ResultFolder(tmp_path / "combined")
    assert {r.run_id for r in together.records()} == {r.run_id for r in sweep_folder.records()}
    assert list((together.root / "runs").glob("*/heatmaps/*.jpg"))
    assert not list((together.root / "runs").glob("*/model.*"))
    assert cli("report", one, two).exit_code == 0


def test_report_refuses_what_it_would_overwrite_or_can_not_read(
    cli: Cli, sweep_folder: ResultFolder, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    for arguments, expected in (
        (["nothing"], "nothing: nothing found; expected a sweep's result folder"),
        ([tmp_path / "mine"], "no finished runs found; expected a sweep's result folder"),
        ([sweep_folder.root, "--output", tmp_path / "mine"], "is not empty and was not made by `report`"),
        ([sweep_folder.root, "--output", sweep_folder.root], "is one of the sweeps"),
    ):
        result = cli("report", *arguments)
        assert result.exit_code == 2, arguments
        assert expected in result.output.replace("\n", " "), result.output
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"


def test_a_report_that_can_not_be_written_is_an_error(cli: Cli, sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy, ignore=shutil.ignore_patterns("report"))
    (copy / "report").write_text("a file where a folder should be")
    result = cli("report", copy)
    assert result.exit_code == 2
    assert f"{copy / 'report'}: can't be written" in result.output.replace("\n", "")


def run_folders(folder: ResultFolder, category: str) -> list[Path]:
    return [folder.run_folder(r.run_id) for r in folder.records()
            if r.status == "ok" and r.spec["category"] == category]  # fmt: skip


def test_compare_prints_two_runs_and_the_paired_test(cli: Cli, sweep_folder: ResultFolder) -> None:
    first, second = run_folders(sweep_folder, "plate")[:2]
    result = cli("compare", first, second / "record.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"image_AUROC +0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)", result.output)
    assert re.search(
        r"second minus first: [+-]\d\.\d{4} .* p = [\d.e-]+ \(DeLong's paired test on 10 images\)", result.output
    )


def test_compare_wants_two_finished_runs_on_the_same_images(cli: Cli, sweep_folder: ResultFolder) -> None:
    plate, fabric = run_folders(sweep_folder, "plate")[0], run_folders(sweep_folder, "fabric")[0]
    failed = next(sweep_folder.run_folder(r.run_id) for r in sweep_folder.records() if r.status == "failed")
    for pair, expected in (
        ((plate, fabric), "the paired test expects the same images for both"),
        ((plate, failed), "this run failed (asked to fail"),
        ((plate, "nowhere"), "nowhere: nothing found; expected a run's folder"),
        ((sweep_folder.root, plate), "no record.json found; expected a run's folder"),
    ):
        result = cli("compare", *pair)
        assert result.exit_code == 2, pair
        assert expected in result.output.replace("\n", " "), result.output


def test_damaged_scores_are_named(cli: Cli, sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy)
    broken = next(file for file in sorted((copy / "runs").glob("*/scores.csv")))
    broken.write_text("path,label,defect_type,score,predicted_label,role\na.png,1,dent,much,1,test\n")
    result = cli("report", copy)
    assert result.exit_code == 1
    assert f"{broken}: damaged" in result.output.replace("\n", "")
    assert any(f"LEFT OUT: {broken}: damaged" in sentence for sentence in read_me(copy / "models_comparing.xlsx"))
