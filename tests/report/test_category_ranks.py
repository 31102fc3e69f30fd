"""Ranks over categories: the column of Summary, the sheet Ranks, and the sentences on what they prove."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest
from openpyxl import load_workbook

from harness.metrics.friedman import critical_difference
from harness.report.category_ranks import SHOWN, category_ranks, p_text, rank_figures, ranks_notes, ranks_table
from harness.report.comparisons import summary_table
from harness.report.excel import build_workbook
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import ROOT
from tests.report.conftest import GOOD, Run

CATEGORIES = [f"category{number}" for number in range(8)]


def add(run: Run, aurocs: Sequence[Sequence[float | None]], **changes: Any) -> None:
    """A run for each value: a row for each configuration `k`, a column for each category; None for no run."""
    for k, row in enumerate(aurocs):
        for category, auroc in zip(CATEGORIES, row, strict=False):
            if auroc is not None:
                run(GOOD, spec={"category": category}, params={"k": k}, metrics={"image_AUROC": auroc}, **changes)


def test_ranks_and_their_means_are_in_the_workbook(folder: ResultFolder, run: Run) -> None:
    """By hand: ranks 1 2 1.5, 2 1 1.5, 3 3 3; the best mean is not the best mean rank."""
    add(run, [[0.9, 0.8, 0.7], [0.8, 0.99, 0.7], [0.7, 0.2, 0.1]])
    book = load_workbook(BytesIO(build_workbook(Results.of(folder))))
    assert book.sheetnames.index("Ranks") == book.sheetnames.index("Runs") - 1
    head, *rows = list(book["Ranks"].iter_rows(values_only=True))
    assert head == (
        "configuration", "mean_rank", "image_AUROC", "rank category0", "rank category1", "rank category2", "best_run"
    )  # fmt: skip
    # Of equal mean ranks, the better mean comes first.
    assert [row[0] for row in rows] == ["patchcore k 1", "patchcore k 0", "patchcore k 2"]
    assert [row[1] for row in rows] == [1.5, 1.5, 3]
    assert [row[3:6] for row in rows] == [(2, 1, 1.5), (1, 2, 1.5), (3, 3, 3)]
    assert [row[2] for row in rows] == pytest.approx([2.49 / 3, 0.8, 1 / 3])
    assert book["Ranks"]["B2"].number_format == "0.000"
    assert book["Ranks"]["G2"].hyperlink.target.startswith("runs/run-")
    summary = summary_table(Results.of(folder))
    assert summary["mean_rank"].tolist() == [1.5]
    assert list(summary).index("mean_rank") == list(summary).index("ms_per_image_p50") + 1


def test_few_categories_prove_little(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]])
    assert ranks_notes(Results.of(folder)) == [
        "3 configurations on 2 categories. Friedman's test: no significant difference (p = 0.1353).",
        "So the critical difference, 2.34, does not count.",
        "FEW CATEGORIES: with fewer than 5 the critical difference is large, and the ranks prove little.",
        "Even a configuration that is the best on all categories could not differ significantly from one that is the "
        "worst on all.",
    ]


def test_a_clear_order_is_significant(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9] * 8, [0.8] * 8, [0.7] * 8])
    assert ranks_notes(Results.of(folder)) == [
        "3 configurations on 8 categories. Friedman's test: the mean ranks differ significantly (p < 0.001).",
        "The critical difference is 1.17: mean ranks that differ by more are significantly different at 5%.",
    ]


def test_a_p_value_is_never_zero() -> None:
    assert [p_text(p) for p in (0.0, 1e-9, 0.00099, 0.001, 0.04979, 1.0)] == [
        "p < 0.001", "p < 0.001", "p < 0.001", "p = 0.0010", "p = 0.0498", "p = 1.0000"
    ]  # fmt: skip


def test_a_configuration_that_lacks_a_category_has_no_rank_and_is_named(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9] * 5, [0.8] * 5, [0.7] * 5, *([0.99] * 4 + [None] for _ in range(5))])
    results = Results.of(folder)
    assert ranks_table(results)["configuration"].tolist() == ["patchcore k 0", "patchcore k 1", "patchcore k 2"]
    assert ranks_table(results)["mean_rank"].tolist() == [1, 2, 3]
    assert ranks_notes(results)[-1] == (
        "Without ranks, because image AUROC is missing on some categories: patchcore k 7; patchcore k 6; patchcore k 5"
        "; and 2 more."
    )


def test_too_few_complete_configurations_are_told(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9, 0.9], [0.8, 0.8], [0.7, None]])
    results = Results.of(folder)
    (figure,) = rank_figures(results)
    assert figure["rows"] == []
    assert figure["sentences"] == [
        "No ranks: they need 3 configurations with an image AUROC on all 2 categories.",
        "Without ranks, because image AUROC is missing on some categories: patchcore k 2.",
    ]
    assert ranks_table(results).empty
    assert "Ranks" not in load_workbook(BytesIO(build_workbook(results))).sheetnames
    assert "mean_rank" not in summary_table(results)


@pytest.mark.parametrize("aurocs", [[[0.9], [0.8], [0.7]], [[0.9, 0.9], [0.8, 0.8]]])
def test_one_category_or_two_configurations_have_no_ranks(
    folder: ResultFolder, run: Run, aurocs: list[list[float]]
) -> None:
    add(run, aurocs)
    results = Results.of(folder)
    assert (rank_figures(results), ranks_notes(results)) == ([], [])
    assert ranks_table(results).empty
    assert "mean_rank" not in summary_table(results)


def test_a_category_of_one_class_does_not_count(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]])
    for k in range(3):
        run(GOOD[:20], [0] * 20, spec={"category": "normal only"}, params={"k": k})
    results = Results.of(folder)
    (ranked,) = (category_ranks(results, name) for name in results.configurations)
    assert ranked is not None
    assert ranked.categories == ["category0", "category1"]
    assert [row.mean for row in ranked.rows] == [1, 2, 3]


def test_a_rank_is_that_of_the_mean_over_seeds(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]])
    # The first one is the best with seed 0 and the worst on average.
    for k, auroc in enumerate((0.1, 0.8, 0.7)):
        for category in CATEGORIES[:2]:
            run(GOOD, spec={"category": category, "seed": 1}, params={"k": k}, metrics={"image_AUROC": auroc})
    table = ranks_table(Results.of(folder))
    assert table["configuration"].tolist() == ["patchcore k 1", "patchcore k 2", "patchcore k 0"]


def test_each_data_set_has_ranks_of_its_own(folder: ResultFolder, run: Run) -> None:
    for place, sign in (("one", 1), ("two", -1)):
        for category in CATEGORIES[:3]:
            data = {"root": f"/{place}/{category}", "fingerprint": place, "test_fingerprint": place + category}
            for k in range(3):
                metrics = {"image_AUROC": 0.5 + sign * 0.1 * k}
                run(GOOD, spec={"category": category}, params={"k": k}, metrics=metrics, data=data)
    results = Results.of(folder)
    table = ranks_table(results)
    assert table["data"].tolist() == ["mvtec one"] * 3 + ["mvtec two"] * 3
    assert table["configuration"].tolist() == [f"patchcore k {k}" for k in (2, 1, 0, 0, 1, 2)]
    assert ranks_notes(results)[0].startswith("mvtec one: 3 configurations on 3 categories.")
    assert [figure["dataset"] for figure in rank_figures(results)] == [0, 1]


def test_the_figure_has_the_best_ranks_and_says_so(folder: ResultFolder, run: Run) -> None:
    add(run, [[0.5 + 0.01 * k] * 2 for k in range(SHOWN + 2)])
    (figure,) = rank_figures(Results.of(folder))
    assert [row["rank"] for row in figure["rows"]] == list(range(1, SHOWN + 1))
    assert figure["sentences"][-1] == "The figure has the 20 best of 22 mean ranks. The sheet Ranks has all."
    assert figure["critical"] == critical_difference(22, 2)
    assert len(ranks_table(Results.of(folder))) == 22


def test_the_documentation_has_the_right_critical_differences() -> None:
    page = " ".join((ROOT / "docs" / "metrics.md").read_text().split())
    few, many = critical_difference(4, 3), critical_difference(4, 30)
    assert f"With 3 categories the critical difference of 4 configurations is {few:.2f}" in page
    assert f"With 30 categories it is {many:.2f}." in page
