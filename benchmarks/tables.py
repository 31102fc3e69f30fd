"""benchmarks/results/*.json -> the tables of benchmarks/README.md, between its markers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IN_PROCESS = Path(__file__).parent
END = "<!-- end -->"


def page(file: Path) -> str:
    """A page of benchmarks/ with the tables of the latest results."""
    text = file.read_text()
    for name, render in TABLES.items():
        if f"<!-- {name} -->" not in text:
            continue
        result = json.loads((IN_PROCESS / "results" / f"{name}.json").read_text())
        table = f"<!-- {name} -->\n{render(result)}\n\n{_machine(result['machine'])}\n{END}"
        begin, rest = text.split(f"<!-- {name} -->", maxsplit=1)
        text = begin + table + rest.split(END, maxsplit=1)[1]
    return text


def _machine(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("anomalib", "torch", "numpy"))
    return f"({machine['cores']} cores of an {machine['cpu']}, {packages}.)"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _coreset(result: dict[str, Any]) -> str:
    after = result["selections_timed"]
    radii = f"radius after {after}: ours, anomalib's"
    head = ["points", "ratio", "ours", "anomalib (estimated)", "times faster", "fpsample (estimated)", "times faster",
            "equal selections", radii, "peak memory / features"]  # fmt: skip
    rows = [
        [
            f"{case['points']:,} x {case['channels']}",
            case["ratio"],
            f"{case['ours_seconds']} s",
            f"{case['anomalib_seconds_estimated']:,.0f} s",
            f"**{case['times_faster']}** (wanted: {case['wanted']})",
            f"{case['fpsample_seconds_estimated']:,.0f} s",
            f"**{case['times_faster_than_fpsample']}**",
            case["equal_selections_of_fpsample"],
            f"{case[f'our_radius_after_{after}']}, {case[f'anomalib_radius_after_{after}']}",
            case["peak_memory_of_features"],
        ]
        for case in result["cases"]
    ]
    return _table(head, rows)


def _sweep(result: dict[str, Any]) -> str:
    anomalib = [
        [f"anomalib, {one['layers']}, ratio {one['ratio']} (of it selecting)", f"{one['seconds']} ({one['selecting']})"]
        for one in result["anomalib_runs"]
    ]
    against = f"**{result['grid_against_its_most_expensive_point']}** (wanted: at most {result['wanted_at_most']})"
    rows = [
        [f"ours, the grid of {result['points']}", result["ours_grid_seconds"]],
        ["the same with single images timed", result["ours_grid_with_single_images_timed_seconds"]],
        ["ours, its most expensive point alone", result["ours_most_expensive_point_alone_seconds"]],
        *anomalib,
        ["anomalib, the grid (estimated)", f"{result['anomalib_grid_seconds_estimated']:,}"],
        ["anomalib / ours", f"**{result['times_faster']:,}** (wanted: {result['wanted']})"],
        ["our grid / its most expensive point", against],
    ]
    return _table(["", "seconds"], rows)


def _inference(result: dict[str, Any]) -> str:
    head = ["bank", "ours p50 / p95", "anomalib p50 / p95", "times faster p50 / p95"]
    rows = [
        [
            f"{one['bank']:,} x {one['channels']}",
            f"{one['ours_ms_p50']} / {one['ours_ms_p95']} ms",
            f"{one['anomalib_ms_p50']} / {one['anomalib_ms_p95']} ms",
            f"**{one['times_faster_p50']}** / {one['times_faster_p95']}",
        ]
        for one in result["banks"]
    ]
    return _table(head, rows)


def _learning_curve(result: dict[str, Any]) -> str:
    goal = f"(wanted: at most {result['wanted_at_most']})"
    head = [
        "data",
        "detector",
        "numbers of images",
        "all images, one seed",
        f"all images, {result['seeds']} seeds",
        "the curve",
        "curve / seeds",
    ]
    rows = [
        [
            one["data"],
            one["model"],
            ", ".join(map(str, one["numbers"])),
            f"{one['one_run_on_all_images_seconds']} s",
            f"{one['all_seeds_on_all_images_seconds']} s",
            f"{one['curve_seconds']} s",
            f"**{one['curve_against_all_seeds']}** {goal}",
        ]
        for one in result["rows"]
    ]
    return _table(head, rows)


def _warm(result: dict[str, Any]) -> str:
    head = ["network", "runtime", "reading", "resizing", "backbone", "scores and map", "of it blurring", "path to map"]
    head += ["path to map / backbone", "the same without reading and resizing"]
    rows = [
        [
            f"{one['backbone']}, {one['pixels']} pixels, bank of {one['bank']:,}",
            one["runtime"],
            *(f"{one[f'{step}_ms']} ms" for step in ("reading", "resizing", "backbone")),
            *(f"{one[key]} ms" if key in one else "" for key in ("scores_and_map_ms", "of_it_blurring_ms")),
            f"{one['path_to_map_ms']} ms",
            f"**{one['path_to_map_per_backbone']}** (wanted: at most {result['most']})",
            one["without_reading_and_resizing"],
        ]
        for one in result["rows"]
    ]
    return _table(head, rows)


def _memory(result: dict[str, Any]) -> str:
    head = ["training images", "features and embedding", "peak", "beyond one batch", "fit"]
    rows = [
        [
            one["images"],
            f"{one['features_and_embedding_MB']} MB",
            f"{one['peak_MB']} MB",
            f"**{one['beyond_one_batch_MB']} MB** (allowed: {result['memory_limit_MB']})",
            f"{one['fit_seconds']} s",
        ]
        for one in result["fits"]
    ]
    return _table(head, rows)


def _overhead(result: dict[str, Any]) -> str:
    names = {"padim": "PaDiM, resnet18, 128 x 128", "patchcore": "PatchCore, resnet18, 256 x 256, ratio 0.02"}
    rows = [
        [
            name,
            f"{result[key]['bare_engine_seconds']} s",
            f"{result[key]['harness_seconds']} s",
            f"**{result[key]['added_seconds']} s**",
            f"{result[key]['allowed_seconds']} s",
        ]
        for key, name in names.items()
    ]
    return _table(["model", "bare Engine", "with the harness", "added", "allowed (1 s + 5%)"], rows)


def _metrics(result: dict[str, Any]) -> str:
    names = ("AUROC", "AP", "F1Max", "AUPRO")
    size, target = result["size"], f"(wanted: {result['wanted_seconds']} s, {result['wanted_GB']} GB)"
    rows = [
        [
            one["by"],
            f"{one['maps']:,} of {size} x {size}",
            f"**{one['seconds']} s**",
            f"**{one['peak_GB']} GB**" + (f" {target}" if one["by"] == "ours" else ""),
            *(one.get(name, "") for name in names),
        ]
        for one in result["pixels"]
    ]
    pixels = _table(["pixel metrics", "maps", "seconds", "peak memory", *names], rows)
    boot = result["bootstrap"]
    draws = f"{boot['resamples']:,} resamples of {boot['images']:,} images"
    timed = f"a loop over scikit-learn's AUROC alone (estimated from {boot['loop_resamples_timed']} resamples)"
    ours = [f"ours, {boot['metrics']} metrics", f"**{boot['seconds']} s** (wanted: {boot['wanted']} s)"]
    return pixels + "\n\n" + _table([draws, "seconds"], [ours, [timed, f"{boot['loop_seconds_estimated']} s"]])


def _report(result: dict[str, Any]) -> str:
    book, page = result["workbook"], result["report"]
    opens = f"**{page['opens_seconds']} s**, at worst {page['opens_at_worst']} s (wanted: {page['wanted']} s)"
    rows = [
        [f"workbook of {book['runs']:,} runs written", f"**{book['seconds']} s** (wanted: {book['wanted']} s)"],
        [f"report of {page['runs']} runs, {page['galleries']} galleries written", f"{page['written_seconds']} s"],
        ["the same opened in Chromium, table and plots ready", opens],
        ["a run's curves and gallery opened in it", f"{page['gallery_opens_seconds']} s"],
    ]
    return _table(["", "seconds"], rows)


def _scale_data(result: dict[str, Any]) -> str:
    plan, images, report = result["plan"], result["images"], result["report"]
    points, files, runs = (f"{one:,}" for one in (plan["points"], images["images"], report["runs"]))
    rows = [
        (f"`plan --no-check` of {points} points", plan["without_checks"], plan["wanted"]),
        (f"`plan` of {points} points, with checks", plan["with_checks"], plan["wanted"]),
        ("an import of timm alone, which the checks need", plan["import_of_timm"], {}),
        (f"`plan --no-check` of {files} new images", images["first"], {}),
        ("the same again, with the index of the files", images["again"], images["wanted"]),
        (f"`report` of {runs} runs", report["command"], report["wanted"]),
        (f"a workbook of {report['cells']:,} plain numbers by openpyxl alone", report["openpyxl_alone"], {}),
    ]
    return _table(
        ["the whole command", "CPU time", "time", "peak memory"],
        [
            [
                name,
                _with_goal(f"{cost['cpu_seconds']} s", goals.get("seconds"), "s"),
                f"{cost['seconds']} s",
                _with_goal(f"{cost['MB']:,} MB", goals.get("MB"), "MB"),
            ]
            for name, cost, goals in rows
        ],
    )


def _with_goal(text: str, goal: float | None, unit: str) -> str:
    return text if goal is None else f"**{text}** (wanted: {goal} {unit})"


def _predict(result: dict[str, Any]) -> str:
    names = {"patchcore": "PatchCore, ratio 0.02", "padim": "PaDiM, 60 channels"}
    engines = (("torch", "Torch", "TorchInferencer"), ("openvino", "OpenVINO, 32 bits", "OpenVINOInferencer"))
    warm = [
        [
            f"{names[one['model']]}, {title}",
            f"{one[f'native_{engine}_ms']} ms",
            f"{one[f'ours_{engine}_ms']} ms",
            f"{one[f'anomalib_{engine}_ms']} ms ({peer})",
            f"**{one[f'anomalib_{engine}_ms'] / one[f'native_{engine}_ms']:.2f}**, "
            f"**{one[f'anomalib_{engine}_ms'] / one[f'ours_{engine}_ms']:.2f}**",
        ]
        for one in result["models"]
        for engine, title, peer in engines
    ]
    cold = [
        [
            names[one["model"]],
            *(f"{one[f'cold_{call}_seconds']} s" for call in
              ("native", "ours", "ours_openvino", "anomalib_torch", "anomalib_openvino", "anomalib_import",
               "torch_import")),
        ]
        for one in result["models"]
    ]  # fmt: skip
    head = ["warm", "our native model", "anomalib's model, ours", "anomalib's model, its inferencer", "times faster"]
    cold_head = ["from cold", "native", "anomalib's model", "exported to OpenVINO", "TorchInferencer",
                 "OpenVINOInferencer", "the import of anomalib.models alone", "the import of torch alone"]  # fmt: skip
    default = "\n".join(
        f"- {names[one['model']]}: {one['anomalib_openvino_default_ms']} ms, maps differ by up to "
        f"{one['anomalib_openvino_default_map_difference']:.1g}."
        for one in result["models"]
    )
    return (
        _table(head, warm) + "\n\n" + _table(cold_head, cold) + "\n\nOpenVINOInferencer with its defaults uses the 16 "
        "bits that OpenVINO takes on this processor. anomalib normalises maps to 1, and they differ from those of 32 "
        f"bits:\n\n{default}"
    )


def _classify(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{one['backbone']}, {one['size']} x {one['size']}, batches of {one['batch']}",
            f"{one['bare_images_per_second']}",
            f"{one['ours_images_per_second']}",
            f"**{one['ratio']}** (wanted: at least {result['wanted']})",
        ]
        for one in result["cases"]
    ]
    return _table(["images a second, training", "bare Lightning loop", "ours", "ours / bare"], rows)


def _probe(result: dict[str, Any]) -> str:
    rows = [
        [one["data"], one["method"], one["macro_F1"], f"{one['seconds_alone']} s", f"{one['seconds_added']} s"]
        for one in result["rows"]
    ]
    return _table(["data", "method", "macro F1", "a run alone", "added to the sweep"], rows)


def _with_detector(result: dict[str, Any]) -> str:
    head = ["data", "images, labels", "macro F1 without, by seed", "with, by seed", "mean without", "mean with"]
    head += ["seconds for the networks", "seconds for the detectors", "ms an image without, with"]
    rows = [
        [
            f"{one['data']}, {one['backbone']} at {one['size']}",
            f"{one['images']}, {one['labels']}",
            *(", ".join(f"{pair[side]:.3f}" for pair in one["by_seed"]) for side in (0, 1)),
            *(f"{value:.3f}" for value in one["macro_F1"]),
            one["trained_seconds"],
            one["detector_seconds"],
            ", ".join(map(str, one["ms_per_image"])),
        ]
        for one in result["cases"]
    ]
    return _table(head, rows)


def _recipes(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{one['task']}: {one['labels']} labels, {one['images']} training images of {one['side']} px",
            one["recipe"],
            f"{one['plain_mean']} ({', '.join(map(str, one['plain_macro_F1']))})",
            f"**{one['ours_mean']}** ({', '.join(map(str, one['ours_macro_F1']))})",
            f"{one['time_ratio']} (wanted: at most {result['most_time']})",
            one["time_ratio_per_image"],
        ]
        for one in result["tasks"]
    ]
    head = ["task", "recipe", "macro F1 of the plain script", "ours", "time, ours / plain", "time for a trained image"]
    return _table(head, rows)


def _launch(result: dict[str, Any]) -> str:
    pairs = ", ".join(map(str, result["pairs_of_workers"]))
    rows = [
        *([way, f"{seconds} s"] for way, seconds in result["seconds"].items()),
        [
            "two workers against one",
            f"**{result['two_workers_against_one']} times as fast** (wanted: {result['wanted']})",
        ],
        ["pair by pair", pairs],
        ["Ray adds", f"**{result['ray_adds_seconds']} s** (allowed: {result['allowed_seconds']} s)"],
    ]
    return _table(["a sweep of 8 groups", "the whole command"], rows)


def _scaling(result: dict[str, Any]) -> str:
    parts, predicted = result["parts"], result["predicted"]
    names = {
        "start_seconds": ("s, a cluster reached (here: started)", 1),
        "plan_seconds_a_run": ("p, a run planned and identified", 1000),
        "claim_seconds_a_run": ("c, a run claimed", 1000),
        "group_seconds": (f"g, a group of {result['runs']} runs made on a node, one core", 1),
        "message_seconds": ("m, a run's record and files through the queue", 1000),
        "landing_seconds": ("l, a run unpacked and written", 1000),
        "workbook_seconds_a_run": ("w, the workbook at the end, a run", 1000),
    }
    rows = [
        [text, f"{parts[name]:.2f} s" if factor == 1 else f"{factor * parts[name]:.2f} ms"]
        for name, (text, factor) in names.items()
    ]
    groups, nodes = result["groups"], result["nodes"]
    even = nodes * result["runs"] * (parts["message_seconds"] + parts["landing_seconds"])
    rows += [
        ["a run's files", f"{parts['bytes_a_run'] / 1000:.0f} kB"],
        ["the same with its model", f"{parts['bytes_with_model'] / 1e6:.1f} MB"],
        ["m of it", f"{1000 * parts['message_seconds_with_model']:.2f} ms"],
        [f"**{groups:,} groups on {nodes} nodes**", f"**{predicted['total_seconds']} s**"],
        ["of that: begins", f"{predicted['begins_seconds']} s"],
        ["the nodes' work", f"{predicted['nodes_seconds']} s"],
        ["the sweep's own process, meanwhile", f"{predicted['driver_seconds']} s"],
        ["ends", f"{predicted['ends_seconds']} s"],
        [f"a group that keeps the process and {nodes} nodes equally busy", f"{even:.1f} s"],
        ["nodes that one sweep's process keeps up with", f"{predicted['nodes_that_one_driver_serves']:,}"],
        ["received in all", f"{predicted['gigabytes_received']} GB"],
    ]
    return _table(["part", "measured"], rows)


def _by_name(result: dict[str, Any]) -> str:
    """One table for each list of rows; its columns are the keys of the rows."""
    parts = []
    for name, rows in result.items():
        if isinstance(rows, list) and rows:
            head = [key.replace("_", " ") for key in rows[0]]
            body = [["-" if value is None else value for value in row.values()] for row in rows]
            parts.append(f"**{name.replace('_', ' ').capitalize()}**\n\n{_table(head, body)}")
    return "\n\n".join(parts)


def _audit(result: dict[str, Any]) -> str:
    rows = [
        [one["planted"], one["images"], f"**{one['recall']:.0%}** ({one['wanted']})", f"{one['false']:.1%}"]
        for one in result["copies"]
    ]
    copies = _table(["planted copies", "images", "found (wanted)", "false pairs / images"], rows)
    defects, large, scores = result["defects"], result["large"], result["scores"]
    ranks = ", ".join(map(str, defects["ranks"]))
    times = [
        [
            f"planted defects in the top 5% of {defects['images']} training images (ranks {ranks})",
            f"**{defects['in_top_5_percent']:.0%}** (wanted: {defects['wanted']})",
        ],
        [f"copies among {large['images']:,} images of 256 x 256, read and compared",
         f"**{large['seconds']} s** (wanted: {large['wanted_seconds']} s)"],
        [f"of them, {large['planted']} planted ones found", f"{large['recall']:.0%}"],
        ["of them, false pairs / images", f"{large['false']:.2%}"],
        [f"scores of {scores['images']:,} training images", f"{scores['seconds']} s"],
    ]  # fmt: skip
    return copies + "\n\n" + _table(["", "measured"], times)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "audit": _audit,
    "classify": _classify,
    "coreset": _coreset,
    "sweep": _sweep,
    "inference": _inference,
    "launch": _launch,
    "memory": _memory,
    "metrics": _metrics,
    "overhead": _overhead,
    "predict": _predict,
    "probe": _probe,
    "recipes": _recipes,
    "report": _report,
    "scale": _by_name,
    "scale_data": _scale_data,
    "scaling": _scaling,
    "modern": _by_name,
    "neighbours": _by_name,
    "learning_curve": _learning_curve,
    "trust": _by_name,
    "reading": _by_name,
    "warm": _warm,
    "with_detector": _with_detector,
}
