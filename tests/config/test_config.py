"""YAML in, a valid config or every problem at once out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.spec import RunSpec, run_id
from harness.config.stored import as_yaml
from tests.conftest import write_config

GOOD = """
name: demo
data: {kind: toy, val: 0.2}
trainer: {max_epochs: 2}
grid:
  model: [patchcore, padim]
  layers: [layer2, layer3]
  coreset_sampling_ratio: [0.1, 0.01]
"""


def load(tmp_path: Path, text: str, *overrides: str):
    return load_config(write_config(tmp_path / "a.yaml", text), overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return list(caught.value.problems)


def test_reads_a_whole_config(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.name == "demo"
    assert config.seeds == [0]
    assert config.data.val == 0.2
    assert config.threshold.method is None
    assert config.grid == [
        {"model": ["patchcore", "padim"], "layers": [["layer2", "layer3"]], "coreset_sampling_ratio": [0.1, 0.01]}
    ]


def test_written_out_config_reads_back_the_same(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD, "seeds=[1,2]", "threshold={method: fixed, image: 3.5}")
    again = load(tmp_path, as_yaml(config))
    assert again == config


def test_name_defaults_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "data: {kind: toy}\ngrid: {model: padim}").name == "a"


def test_layers_as_one_set_or_several(tmp_path: Path) -> None:
    several = GOOD.replace("[layer2, layer3]", "[[layer2], [layer1, layer2]]")
    assert load(tmp_path, several).grid[0]["layers"] == [["layer2"], ["layer1", "layer2"]]
    assert load(tmp_path, GOOD.replace("[layer2, layer3]", "layer2")).grid[0]["layers"] == ["layer2"]


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("data.val=0", lambda c: c.data.val == 0),
        ("grid.model=padim", lambda c: c.grid[0]["model"] == ["padim"]),
        ("grid.model[0]=cflow", lambda c: c.grid[0]["model"] == ["cflow", "padim"]),
        ("grid.layers=[[layer1]]", lambda c: c.grid[0]["layers"] == [["layer1"]]),
        ("seed=7", lambda c: c.seeds == [7]),
        ("threshold.method=none", lambda c: c.threshold.method == "none"),
        ("data.val=1e-1", lambda c: c.data.val == 0.1),
        ("name=2024-01-01", lambda c: c.name == "2024-01-01"),
        ("threshold=none", lambda c: c.threshold.method == "none"),
        ("trainer.max_steps=3", lambda c: c.trainer == {"max_epochs": 2, "max_steps": 3}),
    ],
)
def test_overrides(tmp_path: Path, override: str, read) -> None:
    assert read(load(tmp_path, GOOD, override))


def test_interpolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTS", "/parts")
    text = "name: n\noutput: ${name}-out\ndata: {kind: mvtec, root: '${oc.env:PARTS}'}\ngrid: {model: padim}"
    config = load(tmp_path, text)
    assert config.output == "n-out"
    assert config.data.root == "/parts"  # type: ignore[attr-defined]


def test_all_problems_at_once_with_nearest_names(tmp_path: Path) -> None:
    messages = problems(
        tmp_path,
        """
        sed: 3
        device: gpu
        weights: [1]
        save_models: last
        data: {kind: toy, vall: 0.1, val: 2}
        threshold: {method: normal_quantil}
        grid: {modle: padim}
        """,
    )
    text = "\n".join(messages)
    assert len(messages) == 8
    for part in (
        "sed: unknown key; found 3. Did you mean 'seed'?",
        "device: expected auto, cpu, cuda, cuda:N or mps; found 'gpu'",
        "weights: found [1]",
        "save_models: found 'last'",
        "data.vall: unknown key; found 0.1. Did you mean 'val'?",
        "data.val: found 2",
        "threshold.method: found 'normal_quantil', expected 'cross_conformal', 'held_out', 'normal_quantile', "
        "'f1_on_val', 'fixed' or 'none'",
        "no `model`; expected at least one model in each mapping. Found: modle",
    ):
        assert part in text, f"{part!r} not in:\n{text}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "an empty file found"),
        ("- a\n- b", "a list found"),
        ("a: [1, 2\nb: 3", "line 2"),
        ("a: 1\na: 2", "duplicate key"),
        ("data: {kind: toy}", "grid: missing"),
        ("data: {kind: toy}\ngrid: []", "grid"),
        ("data: {kind: toy}\ngrid: {}", "expected axes such as"),
        ("data: {kind: toy}\ngrid: 3", "expected a mapping of axes"),
        ("data: {kind: toy}\ngrid: {model: padim, layers: [[layer1], []]}", "found an empty set"),
        ("data: {kind: toy}\ngrid: {model: []}", "axis 'model' is empty"),
        ("data: {kind: toy}\ngrid: {model: padim, image_size: 4}", "expected a number from 16 up"),
        ("data: {kind: toy}\ngrid: {model: padim, n_features: {a: 1}}", "found a mapping"),
        ("grid: {model: padim}", "data.kind: no `data:` found"),
        ("data: {kind: toy}\nname: ../x\ngrid: {model: padim}", "expected a name for a folder"),
        ("data: {kind: toy}\nseed: 1\nseeds: [1, 2]\ngrid: {model: padim}", "found both `seed` and `seeds`"),
        ("data: {kind: toy}\nseeds: [1, 1]\ngrid: {model: padim}", "expected different numbers"),
        ("data: {kind: toy}\noutput: ${nowhere}\ngrid: {model: padim}", "nowhere"),
        ("data: {kind: toy, category: ../up}\ngrid: {model: padim}", "not a path"),
        ("data: {kind: mvtec}\ngrid: {model: padim}", "data.root: missing"),
        ("data: {kind: toy}\nthreshold: {method: fixed, image: .inf}\ngrid: {model: padim}", "finite"),
        ("data: {kind: toy}\nseed: 5000000000\ngrid: {model: padim}", "seed"),
        ("data: {kind: toy, category: 5}\ngrid: {model: padim}", "data.category: found 5"),
        ("data: {kind: toy}\ngrid: {model: padim, layers: [[a, [b]]]}", "expected names, or lists of names"),
        ("data: {kind: toy}\ngrid: [{a: 1}, {model: []}]", "grid[1]: axis 'model' is empty"),
        (
            "data: {kind: toy}\nthreshold: {share: 0.2}\ngrid: {model: padim}",
            "`share` found without a method; expected method f1_on_val. Add the method",
        ),
        ("data: {kind: toy}\nthreshold: {method: f1_on_val, share: 1}\ngrid: {model: padim}", "threshold.share"),
        (
            "data: {kind: toy}\nthreshold: {method: held_out, folds: 3}\ngrid: {model: padim}",
            "`folds` has no effect with method 'held_out'; expected false_alarms, pixel_quantile. Remove the key",
        ),
        ("data: {kind: toy}\nthreshold: {false_alarms: 0}\ngrid: {model: padim}", "threshold.false_alarms: found 0"),
        ("data: {kind: toy}\nthreshold: {false_alarms: 1}\ngrid: {model: padim}", "threshold.false_alarms: found 1"),
        ("data: {kind: toy}\nthreshold: {folds: 1}\ngrid: {model: padim}", "threshold.folds: found 1"),
        (
            "data: {kind: toy, val: 0.2}\nthreshold: cross_conformal\ngrid: {model: padim}",
            "data.val: 0.2 found with threshold.method cross_conformal, which holds out no images; expected 0. Remove",
        ),
        ("data: {kind: toy}\naupro_limit: 0\ngrid: {model: padim}", "aupro_limit"),
        ("task: classification\ndata: {kind: toy}\ncoverage: 1\ngrid: {model: baseline}", "coverage: found 1"),
        ("task: classification\ndata: {kind: toy}\ncoverage: high\ngrid: {model: baseline}", "coverage: found 'high'"),
        ("data: {kind: toy}\ncoverage: 0.8\ngrid: {model: padim}", "`coverage` has no effect in task 'detection'"),
        ("data: {kind: toy}\nthreshold: fixed\ngrid: {model: padim}", "expects `image`, `pixel` or both"),
    ],
)
def test_bad_configs(tmp_path: Path, text: str, part: str) -> None:
    assert any(part in problem for problem in problems(tmp_path, text)), problems(tmp_path, text)


@pytest.mark.parametrize("override", ["data.val", "=3", "grid[5].model=padim", "data.val=[1"])
def test_bad_overrides_are_named(tmp_path: Path, override: str) -> None:
    assert any(f"override {override!r}" in problem for problem in problems(tmp_path, GOOD, override))


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_config(tmp_path / "patchcore.yaml", GOOD)
    with pytest.raises(ConfigError, match=r"no such file.*Did you mean .*patchcore\.yaml"):
        load_config(tmp_path / "patchcor.yaml")


RANKED = "rank: synthetic\ndata: {kind: toy, val: 0.2}\ngrid: {model: padim}\n"
NO_IMAGES = (
    "rank: found 'synthetic' without held-out normal images; expected a data.val above 0. Set data.val, such as 0.2, "
    "with another threshold.method than cross_conformal and without threshold.folds"
)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("synthetic", "both", "rank: found 'both', expected 'labels' or 'synthetic'."),
        ("synthetic", "[synthetic]", "rank: found ['synthetic'], expected 'labels' or 'synthetic'."),
        (", val: 0.2", ", val: 0", NO_IMAGES),
        (", val: 0.2", "", NO_IMAGES),
        (", val: 0.2}", "}\nthreshold: cross_conformal", NO_IMAGES),
        ("grid", "threshold: {folds: 3}\ngrid", NO_IMAGES),
        ("grid", "threshold: cross_conformal\ngrid", "data.val: 0.2 found with threshold.method cross_conformal"),
        (
            "grid: {",
            "search: {space: {model: padim, n_features: {randint: [1, 9]}}}\ngrid: {",
            "with `search`; expected a grid",
        ),
        (", val: 0.2}", "}\ntask: classification", "`rank` has no effect in task 'classification'"),
    ],
)
def test_synthetic_defects_need_held_out_images_and_a_grid(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert load(tmp_path, RANKED).rank == "synthetic"
    assert old in RANKED
    assert expected in " ".join(problems(tmp_path, RANKED.replace(old, new)))


def test_the_ranking_by_labels_is_no_part_of_a_run() -> None:
    """So runs of earlier versions keep their ids."""
    spec = RunSpec("native", "spade", None, None, None, (), 0, "toy", "", "auto", (), 1, 1, (), 0.3)
    assert "rank" not in spec.as_dict()
    ranked = replace(spec, rank="synthetic")
    assert ranked.as_dict()["rank"] == "synthetic"
    assert RunSpec.from_dict(ranked.as_dict()) == ranked
    assert run_id(ranked, "data", None) != run_id(spec, "data", None)


def test_a_classification_has_no_limits_of_a_recommendation(tmp_path: Path) -> None:
    text = "task: classification\ndata: {kind: toy}\nrecommend: {%s}\ngrid: {model: baseline}"
    assert load(tmp_path, text % "margin: 0.02").recommend.margin == 0.02
    (problem,) = problems(tmp_path, text % "max_ms: 30")
    assert "recommend.max_ms: no limit of task 'classification'; expected margin. Remove it" in problem
