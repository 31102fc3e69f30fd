"""The recommendation inside a budget: what fits, what it costs, what would have to change."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from harness.common.errors import ConfigError
from harness.config.recommend import Limits, limits_of, with_options
from harness.config.units import byte_size
from harness.report.budget import LIMITS
from harness.report.recommend import Recommendation, answers
from harness.report.results import Results
from harness.report.standings import in_words
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.report.conftest import FAIR, GOOD, LABELS, POOR, Run, scores

MIDDLE = scores(1.2)


def answer(folder: ResultFolder, **limits: Any) -> Recommendation:
    """The answer with these limits in the stored config."""
    text = "".join(f"  {key}: {value}\n" for key, value in limits.items())
    folder.config.write_text(f"recommend:\n{text}" if limits else "name: x\n")
    (one,) = answers(Results.of(folder))
    return one


@pytest.fixture
def three(folder: ResultFolder, run: Run) -> ResultFolder:
    """A good and slow one, a middling one, and a poor and fast one."""
    costs = ((0.080, 200e6, 900e6, 9), (0.040, 80e6, 700e6, 70), (0.010, 10e6, 600e6, 5))
    for k, (values, (seconds, size, memory, fit)) in enumerate(zip((GOOD, MIDDLE, POOR), costs, strict=True), 1):
        cost = {"seconds_p50": seconds, "model_size": size, "peak_memory": memory}
        run(values, params={"k": k}, cost=cost, seconds={"fit": fit})
    return folder


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, "patchcore k 1"),
        ({"max_ms": 100}, "patchcore k 1"),
        ({"max_ms": 50}, "patchcore k 2"),
        ({"max_ms": 39.9}, "patchcore k 3"),
        ({"max_model": "100 MB"}, "patchcore k 2"),
        ({"max_memory": "650 MB"}, "patchcore k 3"),
        ({"max_ms": 50, "max_fit": "1 min"}, "patchcore k 3"),
    ],
)
def test_the_best_inside_the_limits_is_recommended(three: ResultFolder, limits: dict[str, Any], expected: str) -> None:
    configuration = answer(three, **limits).configuration
    assert configuration is not None
    assert configuration.name == expected


def test_the_limits_have_a_price_with_an_interval_and_a_neighbour(three: ResultFolder) -> None:
    one = answer(three, max_ms=20)
    (price,) = [reason for reason in one.reasons if "keeps all limits" in reason]
    assert one.configuration is not None
    best = Results.of(three).configurations["mvtec /data"][0].metric("image_AUROC")
    chosen = one.configuration.metric("image_AUROC")
    assert f"They cost {(best or 0) - (chosen or 0):.3f} of image AUROC (95%: 0." in price
    assert "against the best without limits, patchcore k 1" in price
    assert "The nearest better one outside is patchcore k 2" in price
    assert "change max_ms from 20 ms to 40 ms" in price


def test_where_none_fits_the_smallest_change_is_named(three: ResultFolder) -> None:
    one = answer(three, max_ms=9, max_model="9 MB")
    assert one.configuration is None
    assert one.reasons[0] == "No configuration keeps all limits (max_ms 9 ms, max_model 9 MB)."
    assert "patchcore k 3" in one.reasons[1]
    assert "change max_ms from 9 ms to 10 ms and max_model from 9 MB to 10 MB." in one.reasons[1]


@pytest.mark.parametrize(
    ("key", "limit", "changed"),
    [("max_ms", 30, "42.4 ms"), ("max_model", 1000, "124 MB"), ("max_memory", "0.2 MB", "0.346 MB")],
)
def test_the_advised_limit_is_never_too_tight_by_rounding(
    folder: ResultFolder, run: Run, key: str, limit: object, changed: str
) -> None:
    run(GOOD, cost={"seconds_p50": 0.04234, "model_size": 123456789, "peak_memory": 345678})
    refused = answer(folder, **{key: limit})
    assert refused.configuration is None
    assert refused.reasons[1].endswith(f" to {changed}.")
    assert answer(folder, **{key: changed.removesuffix(" ms")}).configuration is not None


def test_each_advised_size_is_kept() -> None:
    (limit,) = (limit for limit in LIMITS if limit.key == "max_model")
    for size in (1, 999, 2_010_000, 8_200_000, 123_456_789, 1_010_000_000, 2 * 10**12):
        assert byte_size(limit.enough(size)) >= size
        assert byte_size(limit.text(size)) == size
    (recall,) = (limit for limit in LIMITS if limit.key == "min_recall")
    assert (recall.enough(0.0), recall.enough(0.95678)) == ("none", "0.956")


def test_limits_of_an_answer_where_the_stored_ones_give_none(three: ResultFolder, cli: Cli) -> None:
    answer(three, max_ms=1)
    lines = " ".join(cli("recommend", three.root, "--max-ms", "50").output.split())
    assert (
        "These limits hold for this answer only. The report, predict, export and demo take no configuration." in lines
    )


@pytest.mark.parametrize("text", ["100000000", "1e8", "100MB", "0.1 GB"])
def test_a_size_is_a_number_or_a_text_with_a_unit(text: str) -> None:
    assert with_options(Limits(), {"max_model": text}).max_model == 100_000_000


def test_an_unknown_cost_does_not_fit(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    one = answer(folder, max_model="1 GB")
    assert one.configuration is None
    assert "to an unknown value" in one.reasons[1]


def test_recall_is_a_limit_from_below(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, metrics={"image_Recall": 0.90})
    run(FAIR, params={"k": 2}, metrics={"image_Recall": 0.97})
    configuration = answer(folder, min_recall=0.95).configuration
    assert configuration is not None
    assert configuration.name == "patchcore k 2"
    assert "min_recall from 0.99 to 0.97" in answer(folder, min_recall=0.99).reasons[1]


def test_a_wider_margin_makes_more_as_good(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1})
    run(np.array(GOOD) * 1.0001 + np.array(LABELS) * 1e-3, params={"k": 2})
    assert [standing.mark for _, standing in answer(folder).others] == ["no significant difference"]
    assert [standing.mark for _, standing in answer(folder, margin=0.2).others] == ["as good"]


def test_the_command_says_all_and_how_to_keep_the_model(three: ResultFolder, cli: Cli) -> None:
    answer(three)
    result = cli("recommend", three.root, "--max-ms", "50", "--max-memory", "800MB")
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "Recommended on mvtec data: patchcore k 2." in output
    assert f"python -m harness sweep {three.config} recommend.max_ms=50.0 recommend.max_memory=800000000" in output
    nothing = cli("recommend", three.root, "--max-ms", "1")
    assert nothing.exit_code == 1
    assert "No configuration keeps all limits" in nothing.output


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        ("", (), "sweep {config}"),
        ("search: {metric: image_AUROC}\n", (), "tune {config}"),
        ("save_models: none\n", (), "sweep {config} save_models=best"),
        ("save_models: all\n", ("--margin", "0.0123456789"), "sweep {config} recommend.margin=0.0123456789"),
        ("", ("--max-ms", "50.1234567"), "sweep {config} recommend.max_ms=50.1234567"),
    ],
)
def test_the_command_for_a_missing_model_is_complete(
    three: ResultFolder, cli: Cli, stored: str, options: tuple[str, ...], expected: str
) -> None:
    three.config.write_text(f"name: x\n{stored}")
    lines = " ".join(cli("recommend", three.root, *options).output.split())
    assert lines.endswith(f"Make and keep them: python -m harness {expected.format(config=three.config)}")


@pytest.mark.parametrize("limit", ["9", "50"])
def test_a_busy_time_over_a_limit_is_named(folder: ResultFolder, run: Run, limit: str) -> None:
    run(GOOD, params={"k": 1}, cost={"seconds_p50": 0.080, "latency_busy": True})
    run(POOR, params={"k": 2}, cost={"seconds_p50": 0.010})
    reasons = " ".join(answer(folder, max_ms=limit).reasons)
    assert "1 time is from a busy machine and too long: run the sweep again with --fresh when it is idle." in reasons
    assert ("to 80 ms (timed on a busy machine: too long)" in reasons) == (limit == "50")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-ms", "fast"), "--max-ms: found 'fast', expected a valid number."),
        (("--max-ms", "-1"), "--max-ms: found -1.0, expected greater than 0"),
        (("--max-ms", "nan"), "--max-ms: found nan, expected a finite number"),
        (("--max-memory", "12 parrots"), "--max-memory: expected bytes, as a number or a text such as 20 GB"),
        (("--max-fit", "1 parrot"), "--max-fit: expected seconds, or a time such as 30 min"),
        (("--min-recall", "2"), "--min-recall: found 2.0, expected less than or equal to 1"),
        (("--margin", "1"), "--margin: found 1.0, expected less than 1"),
    ],
)
def test_a_bad_limit_is_named_with_what_is_expected(
    three: ResultFolder, cli: Cli, options: tuple[str, str], message: str
) -> None:
    answer(three)
    result = cli("recommend", three.root, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_damaged_limit_in_the_stored_config_is_shown_and_harms_nothing(three: ResultFolder) -> None:
    three.config.write_text("recommend: {max_ms: quick, parrots: 3}\n")
    results = Results.of(three)
    assert results.limits == Limits()
    assert "recommend.max_ms" in " ".join(results.damaged)
    assert "recommend.parrots" in " ".join(results.damaged)


@pytest.mark.parametrize("text", ["", "[]", "name: x", "a: 1\n---\nrecommend: {max_ms: 1}", "recommend:"])
def test_a_config_without_limits_has_none(text: str) -> None:
    assert limits_of(text) == Limits()


@pytest.mark.parametrize("text", ["recommend: [", "recommend: 3", "[" * 3000])
def test_what_is_no_block_of_limits_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        limits_of(text)


def test_options_replace_what_the_config_says() -> None:
    limits = with_options(Limits(max_ms=5, max_model=7), {"max_ms": "30", "max_fit": "2 min", "margin": None})
    assert limits == Limits(max_ms=30, max_model=7, max_fit=120)


def test_the_costs_of_an_exported_model_stand_beside(three: ResultFolder) -> None:
    folder = three.run_folder("run-0") / "exported"
    folder.mkdir()
    cost = {"seconds_p50": 0.0123, "latency_busy": False, "file_size": 2e6}
    (folder / "model.onnx.json").write_text(json.dumps({"format": "onnx", "cost": cost}))
    # A file of an earlier version, and damaged ones, have no costs.
    (folder / "model.pt.json").write_text(json.dumps({"format": "torchscript"}))
    (folder / "model.xml.json").write_text(json.dumps({"format": "openvino", "cost": {**cost, "seconds_p50": -1}}))
    (folder / "model.json").write_text("{")
    (sentence,) = [reason for reason in answer(three).reasons if reason.startswith("Cost:")]
    assert sentence.endswith("(on cpu). Exported as onnx: 12.3 ms an image, 2.0 MB.")


def test_a_time_from_a_busy_machine_decides_nothing(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, cost={"seconds_p50": 0.010})
    run(GOOD, params={"k": 2}, cost={"seconds_p50": 0.001, "latency_busy": True}, metrics={"image_AUROC": 0.99})
    first = answer(folder).configuration
    assert first is not None and first.name == "patchcore k 1"


def test_a_faster_one_within_the_margin_is_not_called_insignificant(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, cost={"seconds_p50": 0.010}, metrics={"image_AUROC": 0.999})
    run(GOOD, params={"k": 2}, cost={"seconds_p50": 0.001}, metrics={"image_AUROC": 0.998})
    one = answer(folder, margin=0.2)
    assert one.configuration is not None and one.configuration.name == "patchcore k 2"
    assert "is better by less than the margin of 0.2, and this configuration takes 1.0 ms" in one.reasons[1]
    assert "is not significantly better (p = 1.00)" in answer(folder).reasons[1]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["worse"], "The other configuration is worse."),
        (["no significant difference"], "The other configuration has no significant difference from it."),
        (["worse", "worse"], "Of the 2 others, 2 are worse."),
        (["as good", "worse", "as good"], "Of the 3 others, 2 are as good and 1 is worse."),
        (
            ["as good", "no significant difference", "worse", ""],
            "Of the 4 others, 1 is as good, 1 has no significant difference from it and 1 is worse.",
        ),
    ],
)
def test_marks_in_words(marks: list[str], expected: str) -> None:
    assert in_words(marks) == expected
