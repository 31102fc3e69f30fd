"""Torch's compiler is absent while a model is loaded, and works afterwards as in any other process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.common.compiler import stand_ins

AFTERWARDS = """
import sys
from harness.common.compiler import without_compiler

with without_compiler():
    import importlib.util
    import lightning.pytorch, timm, torch, torchvision
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import Resize

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert importlib.util.find_spec("torch._dynamo") is not None
    assert getattr(sys.modules["torch._dynamo"], "__file__", None) is None, "torch._dynamo was imported"
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
image = tv_tensors.Image(torch.rand(3, 8, 8))
resize = Resize([4, 4])
expected = resize(image)
assert isinstance(expected, tv_tensors.Image)
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]

import torch._dynamo

assert torch._dynamo.__file__
assert torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu") is True
from lightning.pytorch.utilities import compile
network = torch.nn.Linear(2, 2)
assert not isinstance(network, compile.OptimizedModule)
compiled_network = torch.compile(network, backend="eager")
assert isinstance(compiled_network, compile.OptimizedModule)
assert issubclass(type(compiled_network), compile.OptimizedModule)
compiled = torch.compile(resize, backend="eager")(image)
assert isinstance(compiled, tv_tensors.Image)
assert torch.equal(compiled, expected)
print("equal")
"""


@pytest.mark.slow
def test_the_compiler_works_after_a_load_without_it() -> None:
    result = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "equal", result.stderr


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules, which no process has imported."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from slow_package import part\nvalue = part.value\n")
    (folder / "part.py").write_text("value = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("slow_package", "slow_package.part"):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return "slow_package"


@pytest.mark.parametrize(
    "code",
    [
        "from slow_package import value",
        "import slow_package\nvalue = slow_package.value",
        "from slow_package.part import value",
        "import slow_package.part\nvalue = slow_package.part.value",
    ],
)
def test_any_other_request_imports_the_package(package: str, code: str) -> None:
    """Another version of a library may request more: the start is then slower, and nothing else changes."""
    names: dict[str, object] = {}
    finders = list(sys.meta_path)
    with stand_ins(package, {package: {"known": len}}):
        exec("from slow_package import known", names)
        assert names["known"] is len
        assert not hasattr(sys.modules[package], "__file__")
        exec(code, names)
        assert names["value"] is sys.modules["slow_package.part"].value
    assert sys.modules[package].__file__
    assert sys.meta_path == finders


def test_an_imported_package_stays(package: str) -> None:
    exec("import slow_package")
    module = sys.modules[package]
    with stand_ins(package, {package: {"known": len}}):
        assert sys.modules[package] is module
    assert sys.modules[package] is module


@pytest.mark.slow
def test_a_sweep_with_a_training_does_without_the_compiler(tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 2, bad: 2}\nlatency: false\nweights: random\n"
        "grid: {backend: native, model: cflow, backbone: resnet18, layers: [[layer1]], image_size: 64, max_epochs: 1,\n"
        "       coupling_blocks: 2, condition_vector: 16}\n"
    )
    code = (
        "import sys\nfrom harness.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print(getattr(sys.modules.get('torch._dynamo'), '__file__', None), 'timm' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "sweep", str(config), "--output", str(tmp_path / "results")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "None True"
