"""What the harness adds to a bare anomalib Engine run of the same model.

Both do in one process, in turn: build the model, Engine.fit, Engine.test. The harness also reads and checks the data,
checks names and weights, measures, draws heatmaps, writes the record, the checkpoint of the best run and the workbook.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.data.toy_images import write_toy
from harness.planning.prepare import prepare

MODELS = {
    "padim": "{model: padim, backbone: resnet18, layers: [layer1, layer2, layer3], n_features: 100, image_size: 128}",
    "patchcore": "{model: patchcore, backbone: resnet18, layers: [layer2, layer3], coreset_sampling_ratio: 0.02}",
}


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of both, medians over alternating repetitions, and what the harness adds."""
    repeats = 1 if quick else 5
    results: dict[str, Any] = {"repeats": repeats}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_toy(root / "toy", categories=["plate"], train=24)
        for name, grid in list(MODELS.items())[: 1 if quick else None]:
            config = root / f"{name}.yaml"
            config.write_text(f"data: {{kind: mvtec, root: {root}/toy, val: 0.1}}\nweights: random\ngrid: {grid}\n")
            _harness(config, root / "warm-up")
            # Taken from the same YAML, outside the clock: by hand one would write the arguments down.
            spec = prepare(load_config(config)).runs[0].spec
            pairs = []
            for repeat in range(repeats):
                bare = _timed(lambda s=spec, n=name, r=repeat: _bare(s, root / "toy/plate", root / f"bare-{n}{r}"))
                ours = _timed(lambda c=config, n=name, r=repeat: _harness(c, root / f"{n}{r}"))
                pairs.append((bare, ours))
            bare = statistics.median(pair[0] for pair in pairs)
            added = statistics.median(ours - bare for bare, ours in pairs)
            results[name] = {
                "bare_engine_seconds": round(bare, 2),
                "harness_seconds": round(statistics.median(pair[1] for pair in pairs), 2),
                "added_seconds": round(added, 2),
                "allowed_seconds": round(1 + 0.05 * bare, 2),
                "within": added < 1 + 0.05 * bare,
            }
    return results


def _timed(work: Any) -> float:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.perf_counter() - start


def _bare(spec: RunSpec, base: Path, root: Path) -> None:
    """What somebody would write by hand: anomalib's own datamodule, model and Engine."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    from harness.backbones.inject import backbone_weights
    from harness.backends.anomalib.build import build_model
    from harness.backends.anomalib.memory import steady_selection

    states = sorted(p.name for p in (base / "test").iterdir() if p.name != "good")
    datamodule = Folder(
        name="plate",
        root=base,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{s}" for s in states],
        mask_dir=[f"ground_truth/{s}" for s in states],
        num_workers=0,
        val_split_mode="from_train",
        val_split_ratio=0.1,
    )
    seed_everything(0, workers=True, verbose=False)
    with backbone_weights("random"):
        model = build_model(spec)
    engine = Engine(default_root_dir=root, enable_progress_bar=False)
    # The bare run gets the steady memory too: without it this fit grows by some GB and is several times slower
    # (see the function), and the harness would seem to add less than nothing.
    with steady_selection():
        engine.fit(model=model, datamodule=datamodule)
    engine.test(model=model, datamodule=datamodule, verbose=False)


def _harness(config: Path, output: Path) -> None:
    from harness.cli import sweep as commands

    status = commands.sweep(config, [], output, None, False, False, False)
    assert status == 0, status
