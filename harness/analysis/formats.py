"""A table of a metric as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import pandas as pd

from harness.analysis.table import Entry, MetricTable
from harness.common.tables import csv_text


def as_markdown(table: MetricTable) -> str:
    """The table in GitHub's Markdown; the best value of each row is bold."""
    header = [*table.row_names, *table.columns]
    aligned = [*(":---" for _ in table.row_names), *("---:" for _ in table.columns)]
    lines = [header, aligned]
    for key, entries in zip(table.rows, table.entries, strict=True):
        lines.append([*key, *(_cell(entry, table.digits, "**{}**", " ± ") for entry in entries)])
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{text}\n\n{_sentences(table)}\n"


def as_latex(table: MetricTable) -> str:
    """The table in LaTeX; it needs the package booktabs."""
    styler = _frame(table, r"\textbf{{{}}}", r" $\pm$ ").style
    styler = styler.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    text = styler.to_latex(hrules=True, column_format="l" * len(table.row_names) + "r" * len(table.columns))
    return f"% {_sentences(table)}\n{text}"


def as_html(table: MetricTable) -> str:
    """The table as an HTML fragment."""
    head = "".join(f"<th>{escape(name)}</th>" for name in (*table.row_names, *table.columns))
    rows = []
    for key, entries in zip(table.rows, table.entries, strict=True):
        cells = [f"<th>{escape(text)}</th>" for text in key]
        cells += [f"<td>{_cell(entry, table.digits, '<b>{}</b>', ' ± ')}</td>" for entry in entries]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    caption = f"<caption>{escape(_sentences(table))}</caption>"
    return f"<table>\n{caption}\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def as_csv(table: MetricTable) -> str:
    """The table with all digits: for each column its mean, and its standard deviation where there are several seeds."""
    with_sd = [any(entries[i].sd is not None for entries in table.entries) for i in range(len(table.columns))]
    header = list(table.row_names)
    for name, several in zip(table.columns, with_sd, strict=True):
        header += [name, f"{name} sd"] if several else [name]
    lines: list[list[object]] = [list(header)]
    for key, entries in zip(table.rows, table.entries, strict=True):
        line: list[object] = list(key)
        for entry, several in zip(entries, with_sd, strict=True):
            line += [entry.mean, entry.sd] if several else [entry.mean]
        lines.append(["" if value is None else value for value in line])
    return csv_text(lines)


FORMATS: dict[str, Callable[[MetricTable], str]] = {
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "html": as_html,
}


def _frame(table: MetricTable, bold: str, plus_minus: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(table.rows, names=table.row_names)
    cells = [[_cell(entry, table.digits, bold, plus_minus) for entry in entries] for entries in table.entries]
    return pd.DataFrame(cells, index=index, columns=pd.Index(table.columns))


def _cell(entry: Entry, digits: int, bold: str, plus_minus: str) -> str:
    if entry.mean is None:
        return ""
    mean = f"{entry.mean:.{digits}f}"
    mean = bold.format(mean) if entry.best else mean
    return mean if entry.sd is None else f"{mean}{plus_minus}{entry.sd:.{digits}f}"


def _sentences(table: MetricTable) -> str:
    bold = ["The best value of each row is bold."] if len(table.columns) > 1 else []
    return " ".join([*table.notes, *bold])
