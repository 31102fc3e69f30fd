"""Readers of files that come from elsewhere: whatever is in one, it is read or refused in a sentence."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.format import write_array_header_1_0
from PIL import Image
from rich.markup import escape
from rich.table import Table

from harness.common.errors import ConfigError, DataError, HarnessError, StoreError
from harness.common.reading import MB, read_bytes, read_json, read_rows, read_text
from harness.common.tables import csv_text, guarded, guarded_path, unguarded, unguarded_path
from harness.common.terminal import Terminal, printable
from harness.config.load import load_config
from harness.data.index import FileIndex
from harness.data.labelled.fold_files import read_folds
from harness.data.labelled.tables import Columns, read_table
from harness.data.listing import list_images, name_in
from harness.ensemble.recipe import load_recipe
from harness.predictions.classification import ClassPredictions
from harness.report.results import Results
from harness.report.run_files import read_details
from harness.results.record import SCHEMA
from harness.results.run_folder import read_record
from harness.results.scores import read_calibration, read_scores
from harness.results.store import ResultFolder
from tests.conftest import Cli

# What JSON can hold, and what only Python's reader takes for JSON.
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
plain = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = st.sampled_from(
    [
        "name",
        "data",
        "kind",
        "root",
        "grid",
        "model",
        "backend",
        "weights",
        "seeds",
        "search",
        "space",
        "threshold",
        "method",
        "task",
        "trainer",
        "output",
        "cache",
        "device",
        "layers",
        "image_size",
        "normalization",
        "runs",
        "rules",
        "soft",
    ]
)
inner_of_config = st.recursive(
    leaves | KEYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
like_config = st.dictionaries(KEYS, inner_of_config)
quick = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def surely(read: Any, *arguments: Any) -> None:
    """Read; a refusal has sentences without line breaks in the middle of a word, and nothing else is raised."""
    try:
        read(*arguments)
    except HarnessError as error:
        assert error.problems
        assert all(problem.strip() for problem in error.problems)


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 20_000, "- " * 20_000 + "x"])
def test_deep_yaml_is_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    for read in (load_config, load_recipe):
        with pytest.raises(ConfigError, match="YAML"):
            read(file)
    with file.open("wb") as stream:
        stream.truncate(9 * MB)
    for read in (load_config, load_recipe):
        with pytest.raises(HarnessError, match="9 MB found"):
            read(file)


@quick
@given(like_config)
def test_any_mapping_as_a_config(tmp_path: Path, tree: dict[str, Any]) -> None:
    file = tmp_path / "a.yaml"
    # JSON is YAML; NaN and lone surrogates are what hostile files have.
    file.write_text(json.dumps(tree))
    surely(load_config, file)
    surely(load_recipe, file)


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_as_any_file(tmp_path: Path, content: bytes) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True, exist_ok=True)
    for name in ("record.json", "details.json", "scores.csv", "calibration.csv", "a.yaml", "a.csv", "index.json"):
        (run / name).write_bytes(content)
    surely(read_record, run)
    surely(read_details, run)
    surely(read_scores, run)
    surely(read_calibration, run)
    surely(load_config, run / "a.yaml")
    surely(load_recipe, run / "a.yaml")
    surely(read_table, run / "a.csv", run, run, Columns(), True)
    assert FileIndex(run / "index.json").update(set(), set(), None) == []


@quick
@given(plain)
def test_any_json_as_a_record_or_an_index(tmp_path: Path, values: Any) -> None:
    run = tmp_path / "a"
    run.mkdir(exist_ok=True)
    holder = {"schema": SCHEMA, "run_id": "a", "status": "ok", "spec": values, "axes": [], "data": values}
    for one in (values, holder):
        (run / "record.json").write_text(json.dumps(one))
        (run / "details.json").write_text(json.dumps(one))
        surely(read_record, run)
        surely(read_details, run)
    (tmp_path / "index.json").write_text(json.dumps({"/no/such/image.png": values}))
    assert FileIndex(tmp_path / "index.json").update({"/no/such/image.png"}, set(), None)


@quick
@given(st.lists(st.lists(st.text(max_size=6), max_size=6), max_size=6))
def test_any_table_as_scores(tmp_path: Path, rows: list[list[str]]) -> None:
    header = ["path", "label", "score", "defect_type", "role"]
    for table in (rows, [header, *rows]):
        (tmp_path / "scores.csv").write_text(csv_text(table), encoding="utf-8", newline="", errors="surrogatepass")
        surely(read_scores, tmp_path)
        (tmp_path / "scores.csv").replace(tmp_path / "calibration.csv")
        surely(read_calibration, tmp_path)


@given(st.text(max_size=12))
def test_a_guarded_cell_is_no_formula_and_says_the_same(text: str) -> None:
    cell = guarded(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or _is_number(cell)
    assert unguarded(cell) == text
    path = guarded_path(text)
    assert not path.startswith(("=", "+", "-", "@"))
    assert unguarded_path(guarded(path)) == text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "levels of lists"),
        (b"[" * 60 + b"]" * 60, "more than 24 levels"),
        (b'{"a": NaN}', "the number nan found"),
        (b'{"a": 1e999}', "the number inf found"),
        (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
        (b'{"a": 99999999999999999999}', "more than 63 bits"),
        (b'{"a": "\\ud800"}', "hex escape"),
        (b"\xff\xfe", "no UTF-8 text at byte 0"),
        (b"{", "damaged"),
    ],
)
def test_json_that_is_no_plain_values(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        read_json(file, advice="Remove it.")
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("Remove it.")


def test_only_regular_files_of_a_decent_size_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    link, pipe, folder, large = (tmp_path / name for name in ("link", "pipe", "folder", "large"))
    link.symlink_to(secret)
    os.mkfifo(pipe)
    folder.mkdir()
    with large.open("wb") as stream:
        stream.truncate(3 * MB)
    for file, kind in (
        (link, "a link"),
        (pipe, "a pipe"),
        (folder, "a folder"),
        (large, "3 MB"),
    ):
        with pytest.raises(StoreError, match=f"{kind} found, .* expected"):
            read_bytes(file, limit=2 * MB)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")


def test_a_table_of_ten_million_lines_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_bytes(b"path,label,score,defect_type\n" + b"a,1,1,b\n" * 100)
    assert len(list(read_rows(file, lines=101))) == 101
    with pytest.raises(StoreError, match="more than 100 lines found"):
        list(read_rows(file, lines=100))
    file.write_bytes(b"\n" * 10_000_000)
    with pytest.raises(StoreError, match="more than 2,000,000 lines found"):
        read_scores(tmp_path)


@pytest.mark.parametrize("name", ["runs", "report", ".locks", ".work", ".unfinished"])
def test_a_result_folder_whose_parts_lead_elsewhere_is_refused(
    sweep_folder: ResultFolder, tmp_path: Path, name: str, cli: Any
) -> None:
    import shutil

    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy)
    if name == "runs":
        shutil.move(copy / "runs", tmp_path / "elsewhere")
        (copy / "runs").symlink_to(tmp_path / "elsewhere")
    else:
        shutil.rmtree(copy / name, ignore_errors=True)
        (copy / name).symlink_to(victim)
    result = cli("report", copy)
    assert result.exit_code == 2
    assert f"{copy / name}: a link found" in result.output.replace("\n", "")
    assert [path.name for path in victim.rglob("*")] == ["inner"]


def test_reports_of_several_sweeps_copy_no_links(sweep_folder: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy)
    run = next(path for path in sorted((copy / "runs").iterdir()) if (path / "heatmaps").is_dir())
    (run / "heatmaps" / "link.jpg").symlink_to(secret)
    (run / "notes.txt").symlink_to(secret)
    result = cli("report", copy, copy, "--output", tmp_path / "both")
    assert result.exit_code == 0, result.output
    copied = tmp_path / "both" / "runs" / run.name
    assert (copied / "record.json").is_file()
    assert not (copied / "heatmaps" / "link.jpg").exists()
    assert not (copied / "notes.txt").exists()
    for name in ("heatmaps/link.jpg", "notes.txt"):
        assert f"left out: {run / name}: a link found" in result.output


def test_images_are_listed_in_the_order_of_paths(tmp_path: Path) -> None:
    """The order decides which images a share of the normal images takes for the test."""
    for name in ("a.png", "a/1.png", "a!/1.png", "a-b/1.png", "a/b/2.PNG", "A/1.png", "z.png", "ä/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "z.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "missing.png")
    images = list_images(tmp_path)
    assert images == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [name_in(path, tmp_path) for path in images] == [path.relative_to(tmp_path).as_posix() for path in images]
    with pytest.raises(ValueError, match="subpath"):
        name_in(tmp_path, tmp_path / "a")


def test_folders_are_followed_once_and_leftovers_left_out(tmp_path: Path) -> None:
    left_out = (
        "a/@eaDir/1.png",
        "#recycle/2.png",
        ".ipynb_checkpoints/3.png",
        "__MACOSX/4.png",
        "a/Thumbs.db",
        "a/._1.png",
    )
    for name in ("a/1.png", "b/5.PNG", *left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a/1.png",
        "b/5.PNG",
        "c/5.PNG",
    ]


@pytest.mark.parametrize("name", ["a\r=1+1.png", "a\u2028b.png", "a\x0bb.png", "a\nb.png", "'=1.png", "./=1.png"])
def test_odd_names_come_back_from_a_table(tmp_path: Path, name: str) -> None:
    rows = [["path", "label", "score", "defect_type"], [guarded_path(name), 1, 0.5, name]]
    (tmp_path / "scores.csv").write_bytes(csv_text(rows).encode())
    scores = read_scores(tmp_path)
    assert scores is not None
    assert scores.names == (name,)
    assert scores.defects == (name,)


def test_an_index_with_text_for_numbers_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file)
    state = file.stat()
    facts = [state.st_size, state.st_mtime_ns, "0", "8", "8"]
    (tmp_path / "index.json").write_text(json.dumps({str(file): facts}))
    assert FileIndex(tmp_path / "index.json").update({str(file)}, set(), None) == []


def test_what_is_emptied_is_no_link(sweep_folder: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    victim = tmp_path / "victim"
    (victim / "run").mkdir(parents=True)
    copy = Path(shutil.copytree(sweep_folder.root, tmp_path / "copy"))
    (copy / ".work").mkdir(exist_ok=True)
    (copy / ".work" / "any").symlink_to(victim)
    result = cli("report", copy)
    assert result.exit_code == 2
    assert "a link found" in result.output
    assert (victim / "run").is_dir()


@pytest.mark.parametrize("damage", ["pipe", "link", "no archive", "bomb", "pickled", "large header"])
@pytest.mark.slow
def test_probabilities_from_elsewhere(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "probabilities.npz"
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "link":
        file.symlink_to(tmp_path / "elsewhere.npz")
    elif damage == "no archive":
        file.write_bytes(b"PK\x03\x04" + b"x" * 99)
    elif damage == "bomb":
        with ZipFile(file, "w", ZIP_DEFLATED) as archive, archive.open("labels.npy", "w", force_zip64=True) as inner:
            for _ in range(1100):
                inner.write(bytes(MB))
    elif damage == "pickled":
        np.savez(file, labels=np.array([{}], dtype=object))
    else:
        content = io.BytesIO()
        write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
        with ZipFile(file, "w") as archive:
            archive.writestr("labels.npy", content.getvalue())
    with pytest.raises(StoreError, match=re.escape(str(file))):
        ClassPredictions.load(tmp_path)


def test_folds_whose_header_promises_more_than_there_is(tmp_path: Path) -> None:
    file = tmp_path / "folds.npy"
    with file.open("wb") as stream:
        write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)})
    with pytest.raises(DataError, match=r"folds\.npy can't be read"):
        read_folds(file, 10)


def test_pipes_for_files_hold_nothing_up(sweep_folder: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    copy = ResultFolder(Path(shutil.copytree(sweep_folder.root, tmp_path / "copy")))
    copy.config.unlink()
    os.mkfifo(copy.config)
    assert copy.read_config() == ""
    assert cli("report", copy.root).exit_code == 0
    copy.log.unlink(missing_ok=True)
    os.mkfifo(copy.log)
    with pytest.raises(StoreError, match=r"sweep\.log: can't be written \(no regular file found"):
        copy.open_log()


def test_what_a_record_calls_secret_hides_nothing_of_other_runs(
    sweep_folder: ResultFolder, tmp_path: Path, cli: Cli
) -> None:
    copy = ResultFolder(Path(shutil.copytree(sweep_folder.root, tmp_path / "copy")))
    first, second = copy.records()[:2]
    file = copy.run_folder(first.run_id) / "record.json"
    values = json.loads(file.read_text())
    values["provenance"]["references"] = {
        second.data["root"]: "${oc.env:STOLEN}",
        second.spec["model"]: "${oc.env:A}",
        first.status: "${oc.env:B}",
    }
    file.write_text(json.dumps(values))
    shown = {record.run_id: record for record in Results.of(copy).records}
    assert shown[first.run_id].data["root"] == "${oc.env:STOLEN}"
    assert shown[first.run_id].spec["model"] == first.spec["model"]
    assert shown[first.run_id].status == first.status
    assert shown[second.run_id].data["root"] == second.data["root"]
    assert cli("report", copy.root).exit_code == 0


def test_control_characters_are_shown_and_not_obeyed(tmp_path: Path, cli: Cli, capsys: Any) -> None:
    name = "\x1b]0;title\x07\x1b[2Jgone\x9b1m\u202e"
    result = cli("sweep", tmp_path / f"{name}.yaml")
    assert result.exit_code == 2
    terminal = Terminal(io.StringIO())
    terminal.print(f"[bold]{escape(name)}[/]")
    table = Table(name)
    table.add_row(name)
    terminal.print(table)
    assert isinstance(terminal.file, io.StringIO)
    for output in (result.output, terminal.file.getvalue()):
        assert not set("\x1b\x07\x9b\u202e") & set(output)
        assert r"\x1b[2Jgone\x9b1m\u202e" in output
    assert printable("two\nlines\tand é") == "two\nlines\tand é"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep", "{}.yaml"),
        ("report", "{}"),
        ("report", "a", "b", "--output", "{}"),
        ("predict", "{}", "x.png"),
        ("export", "{}", "--format", "onnx"),
        ("make-data", "{}"),
        ("demo", "{}"),
    ],
)
def test_a_path_that_is_too_long_is_a_sentence(tmp_path: Path, cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*(part.format(tmp_path / ("x" * 300)) for part in arguments))
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert result.exception is None or isinstance(result.exception, SystemExit)
