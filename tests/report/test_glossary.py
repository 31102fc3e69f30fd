"""Terms are explained where a reader first meets them, in the same words everywhere."""

from __future__ import annotations

import io

import pytest
from openpyxl import load_workbook

from harness.report.detection import IN_SUMMARY
from harness.report.excel import build_workbook
from harness.report.glossary import CLASSIFICATION, COLUMNS, DETECTION, pieces, used, with_margin
from harness.report.html import build_page
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import ROOT
from tests.report.conftest import GOOD, Run

TERMS = {name: term.text for term in DETECTION for name in term.names}


def test_only_the_first_place_of_a_term_has_its_meaning() -> None:
    text = "Image AUROC 0.9 (95%: 0.8 to 1.0); image AUROC of 95% of <b>, precision fp32."
    parts = list(pieces(text, DETECTION))
    assert "".join(part for part, _ in parts) == text
    meanings = {part: meaning for part, meaning in parts if meaning}
    assert meanings == {"Image AUROC": TERMS["image AUROC"], "95%:": TERMS["95% interval"]}


def test_the_longest_term_counts_and_no_part_of_a_word_does() -> None:
    meanings = [
        part for part, meaning in pieces("The promised coverage of unpromised misprecisions", CLASSIFICATION) if meaning
    ]
    assert meanings == ["promised coverage"]
    assert used(CLASSIFICATION, ["65 out-of-fold images, macro F1"]) == [
        (name, next(term.text for term in CLASSIFICATION if name in term.names)) for name in ("out of fold", "macro F1")
    ]


def test_the_margin_is_in_the_meanings() -> None:
    for terms in (DETECTION, CLASSIFICATION):
        texts = " ".join(term.text for term in with_margin(terms, 0.025))
        assert "lower by less than 0.025" in texts
        assert "{" not in texts


@pytest.mark.parametrize("name", ["stored", "named"])
def test_the_page_explains_the_terms_of_its_answer(name: str) -> None:
    page = build_page(Results.of(ResultFolder(ROOT / "tests" / "stored" / "results" / name)))
    answer = page[page.index('<article class="card">') : page.index("</article>")]
    for term in {"stored": ("image AUROC", "95% interval"), "named": ("macro F1", "out of fold", "promised coverage")}[
        name
    ]:
        assert answer.count(f"<b>{term}</b>: ") == 1
    assert '<abbr title="' in answer
    assert "<dt>may be lower by</dt>" in page


def test_every_visible_column_of_the_summary_has_a_comment(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    run(GOOD, spec={"model": "padim"})
    book = load_workbook(io.BytesIO(build_workbook(Results.of(folder))))
    heads = {cell.value: cell.comment for cell in book["Summary"][1]}
    explained = [name for name in IN_SUMMARY if name in heads and name not in {"configuration", "recommended"}]
    assert len(explained) == 7
    assert all(COLUMNS[name] in str(heads[name].text) for name in explained)
    rows = [str(row[0].value) for row in book["Read me"]]
    assert {f"column {name}" for name in explained} <= set(rows)


def test_the_sheet_read_me_explains_the_words_of_its_answer() -> None:
    folder = ResultFolder(ROOT / "tests" / "stored" / "results" / "named")
    book = load_workbook(io.BytesIO(build_workbook(Results.of(folder))))
    rows = {str(about.value): text.value for about, text in book["Read me"].iter_rows()}
    meanings = {f"word {name}": term.text for term in CLASSIFICATION for name in term.names}
    for name in ("macro F1", "out of fold", "promised coverage", "prediction set"):
        assert rows[f"word {name}"] == meanings[f"word {name}"]
