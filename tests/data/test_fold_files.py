"""Folds from files: numbers, positions, and pairs in a pickle that executes nothing."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedKFold

from harness.common.errors import DataError
from harness.data.labelled.fold_files import read_folds
from tests.conftest import Cli
from tests.data.test_labelled import competition

ROWS = 11


def pairs(folds: int = 3, rows: int = ROWS) -> list[tuple[Any, Any]]:
    """Returns what a splitter of scikit-learn gives."""
    return list(KFold(folds, shuffle=True, random_state=0).split(np.zeros(rows)))


def of_pairs(values: list[tuple[Any, Any]], rows: int = ROWS) -> list[int]:
    folds = np.full(rows, -1)
    for fold, (_, val) in enumerate(values):
        folds[list(val)] = fold
    return list(folds.tolist())


def objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(shape, dtype=object)
    for position, value in zip(np.ndindex(*shape), values, strict=True):
        array[position] = value
    return array


def npy(file: Path, pickled: bytes, shape: tuple[int, ...] = (3, 2), version: int = 1) -> Path:
    """An .npy file of objects with any content."""
    header = {"descr": "|O", "fortran_order": False, "shape": shape}
    stream = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == 1 else np.lib.format.write_array_header_2_0
    write(stream, header)  # type: ignore[arg-type]
    content = bytearray(stream.getvalue())
    content[6] = version
    file.write_bytes(bytes(content) + pickled)
    return file


def test_folds_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([0, 1, 1, 0]))
    assert read_folds(tmp_path / "rows.npy", 4).tolist() == [0, 1, 1, 0]
    np.save(tmp_path / "positions.npy", np.array([[3, 0], [1, 2]]))
    assert read_folds(tmp_path / "positions.npy", 4).tolist() == [0, 1, 1, 0]
    for wrong, words in (
        (np.array([0, 1]), "2 numbers, 4 expected"),
        (np.array([[0, 0], [1, 2]]), "some of them twice"),
        (np.array([0.5, 1, 0, 0]), "whole numbers"),
        (np.array([-2, 0, 1, 0]), "expected numbers from 0"),
    ):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(DataError, match=words):
            read_folds(tmp_path / "wrong.npy", 4)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(DataError, match=r"is no \.npy file"):
        read_folds(tmp_path / "text.npy", 4)
    np.savez(tmp_path / "a.npz", folds=np.arange(4))
    (tmp_path / "a.npz").rename(tmp_path / "renamed.npy")
    with pytest.raises(DataError, match=r"is no \.npy file"):
        read_folds(tmp_path / "renamed.npy", 4)


FORMS: dict[str, Callable[[list[tuple[Any, Any]]], Any]] = {
    "rows of two": lambda values: objects([part for pair in values for part in pair], (len(values), 2)),
    "tuples": lambda values: objects(values, (len(values),)),
    "lists": lambda values: objects([list(pair) for pair in values], (len(values),)),
    "numbers of 32 bits": lambda values: objects(
        [tuple(p.astype(np.int32) for p in v) for v in values], (len(values),)
    ),
    "big-endian": lambda values: objects([tuple(p.astype(">i8") for p in v) for v in values], (len(values),)),
    "lists of numbers": lambda values: objects([p.tolist() for v in values for p in v], (len(values), 2)),
    "in Fortran's order": lambda values: np.asfortranarray(FORMS["rows of two"](values)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pairs_in_each_form_and_protocol(tmp_path: Path, form: str, protocol: int) -> None:
    array = FORMS[form](pairs())
    np.save(tmp_path / "saved.npy", array, allow_pickle=True)
    file = npy(tmp_path / "folds.npy", pickle.dumps(array, protocol), array.shape)
    assert read_folds(tmp_path / "saved.npy", ROWS).tolist() == of_pairs(pairs())
    assert read_folds(file, ROWS).tolist() == of_pairs(pairs())
    # Files of NumPy 1 have other names of modules.
    if protocol == 2:
        file.write_bytes(file.read_bytes().replace(b"numpy._core.", b"numpy.core."))
        assert read_folds(file, ROWS).tolist() == of_pairs(pairs())


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_version_of_the_format(tmp_path: Path, version: int) -> None:
    file = npy(tmp_path / "folds.npy", pickle.dumps(FORMS["tuples"](pairs()), 4), (3,), version)
    assert read_folds(file, ROWS).tolist() == of_pairs(pairs())
    content = bytearray(file.read_bytes())
    content[6] = 9
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"version \(9, 0\) found, 1 to 3 expected"):
        read_folds(file, ROWS)


def test_two_folds_of_equal_size_are_plain_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "folds.npy", np.array(pairs(2, 10)))
    assert read_folds(tmp_path / "folds.npy", 10).tolist() == of_pairs(pairs(2, 10), 10)


def test_a_single_pair_holds_images_out(tmp_path: Path) -> None:
    np.save(tmp_path / "folds.npy", FORMS["tuples"](pairs()[:1]), allow_pickle=True)
    assert read_folds(tmp_path / "folds.npy", ROWS).tolist() == of_pairs(pairs()[:1])


def test_ten_folds_of_the_size_of_a_competition(tmp_path: Path) -> None:
    labels = np.arange(4277) % 88
    values = list(StratifiedKFold(10, shuffle=True, random_state=0).split(labels, labels))
    np.save(tmp_path / "10-Fold_idx.npy", FORMS["rows of two"](values), allow_pickle=True)
    assert read_folds(tmp_path / "10-Fold_idx.npy", 4277).tolist() == of_pairs(values, 4277)


def changed(pair: int, train: Any = None, val: Any = None) -> list[tuple[Any, Any]]:
    values = pairs()
    values[pair] = (values[pair][0] if train is None else train, values[pair][1] if val is None else val)
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            changed(1, val=pairs()[0][1], train=pairs()[0][0]),
            "pair 1: rows .* of an earlier pair too; expected",
        ),
        (
            changed(0, train=np.arange(ROWS)),
            "pair 0: rows .* in the training part and in the validation part; expected",
        ),
        (changed(2, train=pairs()[2][0][1:]), "pair 2: rows 1 of 11 are in neither part; expected"),
        (changed(0, val=np.array([], np.int64)), "pair 0: the validation part is empty; expected"),
        (
            changed(0, train=[0, 1, 99]),
            "training part holds positions from 0 to 99.*; expected each of 0 to 10",
        ),
        (changed(0, val=[-1, 3]), "pair 0, validation part holds positions from -1 to 3"),
        (changed(0, val=[3, 3]), "validation part holds positions from 3 to 3, some of them twice"),
        (changed(0, train=np.arange(12)), r"refused: an array of shape \(12,\) for 11 rows found"),
        (changed(0, train=list(range(12))), "refused: a list of 12 numbers for 11 rows found"),
        (changed(0, train=[True, False]), "refused: a list with other items than whole numbers"),
        (changed(0, train=[2**70]), "refused: a list with other items than whole numbers"),
        (changed(0, train=np.array([0.5])), "refused: an array inside the array, of other numbers than int32 or int64"),
        (changed(0, train=np.array([[0], [1]])), r"refused: an array of shape \(2, 1\) for 11 rows"),
        (changed(0, train="abc"), "refused: an item that is neither an array nor a list"),
        (changed(0, train=objects([1, 2], (2,))), "refused: an array inside the array"),
        (changed(0, train={1: 2}), "refused: the pickle opcode EMPTY_DICT found"),
        ([(1,), (2,), (3,)], "refused: an item that is no pair"),
        ([(np.arange(9), np.arange(9, 11), np.arange(3))], "refused: an item that is no pair"),
        ([*pairs(11), *pairs(11)], "refused: 22 pairs for 11 rows"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(tmp_path: Path, values: list[Any], words: str) -> None:
    np.save(tmp_path / "folds.npy", objects(values, (len(values),)), allow_pickle=True)
    with pytest.raises(DataError, match=words) as caught:
        read_folds(tmp_path / "folds.npy", ROWS)
    assert str(caught.value).startswith(f"data.folds: {tmp_path / 'folds.npy'}")
    # What to do is a sentence of its own.
    assert str(caught.value).count(". ") >= 1


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def huge_array(shape: bytes) -> bytes:
    """An empty array that claims a huge shape, as text of protocol 2."""
    array = pickle.dumps(np.empty(0, dtype=object), 2)
    # The state is (1, (0,), ...): version, then the shape.
    return array.replace(b"(K\x01K\x00\x85", b"(K\x01" + shape + b"\x85")


def deep(levels: int) -> bytes:
    """Lists in lists, each of them twice in the next one: 2 ** levels items to walk over."""
    doubled = b"".join(b"]q\x01(h\x00h\x00eq\x00" for _ in range(levels))
    return b"\x80\x02]q\x00" + doubled + b"."


ATTACKS: dict[str, tuple[bytes, str]] = {
    "a shell": (pickle.dumps(Calls(os.system, "touch executed"), 4), "the name posix.system"),
    "a shell of protocol 2": (pickle.dumps(Calls(os.system, "touch executed"), 2), "the name posix.system"),
    "a shell of protocol 0": (pickle.dumps(Calls(os.system, "touch executed"), 0), "the pickle opcode"),
    "a folder": (pickle.dumps(Calls(os.mkdir, "executed"), 4), "the name posix.mkdir"),
    "eval": (pickle.dumps(Calls(eval, "open('executed', 'w').close()"), 4), "the name builtins.eval"),
    "a function of NumPy": (pickle.dumps(Calls(np.save, "executed.npy", 1), 4), "the name numpy.save"),
    "a shell in an array": (
        pickle.dumps(objects([Calls(os.system, "touch executed")] * 2, (2,)), 4),
        "the name posix.system",
    ),
    "a name with dots": (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__init__.f\x93.", "the name numpy.ndarray.__init__.f"),
    "a class of its own": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the pickle opcode NEWOBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "the pickle opcode EXT1"),
    "a persistent object": (b"\x80\x02K\x01Q.", "the pickle opcode BINPERSID"),
    "a buffer from outside": (b"\x80\x05\x97.", "the pickle opcode NEXT_BUFFER"),
    "a call of an array": (b"\x80\x02cnumpy\nndarray\n(K\x01tR.", "a damaged pickle"),
    "a state of a class": (b"\x80\x02cnumpy\ndtype\nK\x01b.", "a damaged pickle"),
    "attributes of a class": (b"\x80\x02cnumpy\ndtype\n}b.", "the pickle opcode EMPTY_DICT"),
    "two states": (b"\x80\x02cnumpy\ndtype\n)R(K\x01tb(K\x01tb.", "an object with two states"),
    "a memo of 4 GB": (b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b".", "the memo position 4294967295"),
    "a text of 2 GB": (b"\x80\x02X" + struct.pack("<I", 2**31) + b"abc.", "a damaged pickle"),
    "bytes of an exabyte": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"abc.", "a damaged pickle"),
    "a frame of an exabyte": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"K\x01.", "a damaged pickle"),
    "a shape of an exabyte": (huge_array(b"\x8a\x08" + struct.pack("<Q", 2**60)), "with other content"),
    "a negative shape": (huge_array(b"J\xff\xff\xff\xff"), "an array with a wrong shape"),
    "lists in lists": (deep(60), "no array"),
    "an opcode that arrays do not need": (b"\x80\x02N0N.", "the pickle opcode POP"),
    "too many opcodes": (b"\x80\x02" + b"N" * 1_000_001 + b".", "more than 1,000,000 pickle opcodes"),
    "no pickle": (b"", "a damaged pickle"),
    "no protocol": (b"N.", "a pickle of protocol None"),
    "more after the end": (pickle.dumps(objects([1], (1,)), 4) + b"abc", "3 bytes after the end"),
    "plain numbers": (pickle.dumps(np.arange(3), 4), "with other content"),
    "a number": (b"\x80\x02K\x01.", "no array"),
    "another shape than the header": (pickle.dumps(objects([1, 2], (2,)), 4), "under a header of shape"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_and_nothing_runs(tmp_path: Path, name: str) -> None:
    content, words = ATTACKS[name]
    file = npy(tmp_path / "folds.npy", content)
    with pytest.raises(DataError) as caught:
        read_folds(file, ROWS)
    assert words in str(caught.value)
    assert f"{file} refused: " in str(caught.value)
    assert "Expected pairs" in str(caught.value) and "Save the fold of each row" in str(caught.value)
    assert not Path("executed").exists()


def test_the_attacks_would_work_with_pickle(tmp_path: Path) -> None:
    for name in ("a shell", "a folder", "eval", "a function of NumPy"):
        pickle.loads(ATTACKS[name][0])
        files = [file for file in (Path("executed"), Path("executed.npy")) if file.exists()]
        assert files, name
        files[0].rename(name)


def test_a_shared_part_is_not_copied_for_each_pair(tmp_path: Path) -> None:
    """Many references to one large list: the second pair ends it."""
    part = list(range(20_000))
    np.save(tmp_path / "folds.npy", objects([(part, part)] * 20_000, (20_000,)), allow_pickle=True)
    with pytest.raises(DataError, match="in the training part and in the validation part"):
        read_folds(tmp_path / "folds.npy", 20_000)


def test_each_truncated_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "folds.npy", FORMS["rows of two"](pairs()), allow_pickle=True)
    content = (tmp_path / "folds.npy").read_bytes()
    for size in range(0, len(content), 7):
        (tmp_path / "folds.npy").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"data\.folds: "):
            read_folds(tmp_path / "folds.npy", ROWS)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_are_folds_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    np.save(tmp_path / "folds.npy", FORMS["tuples"](pairs()), allow_pickle=True)
    content = bytearray((tmp_path / "folds.npy").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "folds.npy").write_bytes(bytes(content))
    try:
        folds = read_folds(tmp_path / "folds.npy", ROWS)
    except DataError as error:
        assert str(error).startswith("data.folds: ")
    else:
        assert folds.shape == (ROWS,) and folds.min() >= -1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([code.code for code in pickletools.opcodes]), max_size=12), st.binary(max_size=20))
def test_any_opcodes_are_a_sentence(tmp_path: Path, codes: list[str], end: bytes) -> None:
    file = npy(tmp_path / "folds.npy", b"\x80\x04" + "".join(codes).encode("latin1") + end + b".")
    with pytest.raises(DataError, match=r"data\.folds: "):
        read_folds(file, ROWS)


def test_a_file_that_runs_code_ends_a_sweep_with_status_2(tmp_path: Path, cli: Cli) -> None:
    root = competition(tmp_path / "data")
    file = npy(tmp_path / "10-Fold_idx.npy", ATTACKS["a shell"][0])
    (tmp_path / "c.yaml").write_text(
        "task: classification\nweights: random\nlatency: false\ntrainer: {max_epochs: 1}\n"
        f"data: {{kind: labelled, root: {root}, folds: {file}}}\n"
        "grid: {model: baseline, backbone: test_resnet, image_size: 32}\n"
    )
    result = cli("sweep", tmp_path / "c.yaml")
    assert result.exit_code == 2, result.output
    assert "refused: the name posix.system found. Expected pairs" in " ".join(result.output.split())
    assert not Path("executed").exists()


def test_pipes_and_large_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with (tmp_path / "large.npy").open("wb") as stream:
        stream.truncate(65 * 10**6)
    for name, words in (("pipe", "a pipe found"), ("large", "65 MB found, at most 64 MB expected")):
        with pytest.raises(DataError, match=words):
            read_folds(tmp_path / f"{name}.npy", ROWS)
    np.save(tmp_path / "rows.npy", np.arange(ROWS) % 2)
    (tmp_path / "link.npy").symlink_to(tmp_path / "rows.npy")
    assert read_folds(tmp_path / "link.npy", ROWS).tolist() == (np.arange(ROWS) % 2).tolist()
