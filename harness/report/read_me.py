"""The sheet *Read me*: the answer, everything that a reader must know, and the meaning of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from harness.report.glossary import COLUMNS as OF_COLUMNS
from harness.report.sheets import Sheet

TITLE = "Read me"
NOTICE = "notice"
COLUMNS = ("about", "text")
AVERAGES = (
    "A metric is the mean over the categories and seeds of a configuration. A time, a size or a memory is the median "
    "over its runs."
)
UNFOLD = "The buttons above the columns show the folded columns: axes, all metrics, costs, and the best run."


def read_me(
    answer: Sequence[str],
    words: Sequence[tuple[str, str]],
    summary: Sheet,
    captions: Sequence[tuple[str, Sequence[str]]],
) -> Sheet:
    """Build the sheet.

    Args:
        answer: the sentences of the answer.
        words: terms of the answer, and their meanings.
        summary: the sheet *Summary*, whose notices hold for all sheets.
        captions: title and notices of each other sheet.
    """
    return sheet_of(list(_rows(answer, words, summary, captions)))


def sheet_of(rows: Sequence[tuple[str, str]]) -> Sheet:
    """The sheet with given rows.

    Args:
        rows: what a sentence is about, and the sentence. `NOTICE` gives a row the colour of a warning.
    """
    warnings = {(row, name) for row, (about, _) in enumerate(rows) if about == NOTICE for name in COLUMNS}
    return Sheet(TITLE, pd.DataFrame(list(rows), columns=list(COLUMNS)), marked=warnings)


def _rows(
    answer: Sequence[str],
    words: Sequence[tuple[str, str]],
    summary: Sheet,
    captions: Sequence[tuple[str, Sequence[str]]],
) -> Iterator[tuple[str, str]]:
    yield from (("answer", sentence) for sentence in answer)
    yield from ((NOTICE, sentence) for sentence in summary.notices)
    yield from ((f"word {name}", meaning) for name, meaning in words)
    yield f"sheet {summary.title}", AVERAGES
    yield f"sheet {summary.title}", UNFOLD
    for title, sentences in captions:
        yield from ((f"sheet {title}", sentence) for sentence in sentences)
    names = [str(name) for name in summary.frame]
    yield from ((f"column {name}", text) for name, text in OF_COLUMNS.items() if name in names)
