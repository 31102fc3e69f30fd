"""Commands, and the loading of trained models, do without Torch's compiler. The import of torch._dynamo takes a second.

Torch, torchvision, timm and Lightning request the compiler, and do not compile:

- `torch.compiler.disable` and Torch's Python kernels mark functions that the compiler must not compile;
- Torch's optimizers mark the places where the compiler must divide its work;
- torchvision.ops.roi_align imports `is_compile_supported`;
- Lightning imports `OptimizedModule`, to recognise a compiled module.

Inside the context, modules stand in for the compiler and offer these names. Behind the names, the compiler is imported
when it is needed. Any other request imports it at once: with another version of a library the start is slower, and
everything computes the same. After the context, the stand-ins are gone, and `import torch._dynamo` works as usual.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from inspect import isfunction
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Do not import Torch's compiler for libraries that only mark functions for it, inside this context."""
    names: dict[str, Callable[..., Any]] = {
        "disable": _disable,
        "graph_break": _graph_break,
        "OptimizedModule": _OptimizedModule,
    }
    with stand_ins(COMPILER, {COMPILER: names, f"{COMPILER}.utils": {"is_compile_supported": _is_supported}}):
        yield


@contextmanager
def stand_ins(package: str, functions: Mapping[str, Mapping[str, Callable[..., Any]]]) -> Iterator[None]:
    """Offer some functions of a package without its import, inside this context.

    A request for anything else of the package imports the package. This context changes nothing if the package was
    imported before.

    Args:
        package: name of the package.
        functions: by the names of its modules, the functions in place of the module's own. The package is among them.
    """
    if package in sys.modules:
        yield
        return
    finder = _Finder(package)
    for name in functions:
        sys.modules[name] = _StandIn(name, functions[name], finder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.remove()


class _Finder(MetaPathFinder, Loader):
    """Imports a package in place of its stand-ins, on a request for one of its other modules."""

    def __init__(self, package: str) -> None:
        self._package = package

    def remove(self) -> None:
        """Remove the stand-ins; the next import is the usual one."""
        # Another thread may have removed them.
        with suppress(ValueError):
            sys.meta_path.remove(self)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                sys.modules.pop(name, None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take the modules of the package; see `importlib.abc.MetaPathFinder`."""
        del path, target
        return spec_from_loader(fullname, self) if fullname.startswith(f"{self._package}.") else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the package's own module in the place of a new one, as Python's import allows."""
        self.remove()
        del sys.modules[module.__name__]
        sys.modules[module.__name__] = import_module(module.__name__)


class _StandIn(ModuleType):
    """A module with some functions of a module that was not imported."""

    def __init__(self, name: str, functions: Mapping[str, Callable[..., Any]], finder: _Finder) -> None:
        super().__init__(name)
        self.finder = finder
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__path__ = []  # without a path, it would have no modules
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_imported(self.__name__), name)


def _disable(function: Any = None, *args: Any, **options: Any) -> Any:
    """`torch._dynamo.disable`, which imports the compiler when it has to."""
    if function is None:
        return lambda function: _disable(function, *args, **options)

    @cache
    def disabled() -> Callable[..., Any]:
        wrapped: Callable[..., Any] = _imported(COMPILER).disable(function, *args, **options)
        return wrapped

    if not isfunction(function):
        return disabled()

    @wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        # In a process without the compiler, nothing is compiled.
        imported = not isinstance(sys.modules.get(COMPILER), _StandIn | None)
        return disabled()(*values, **named) if imported else function(*values, **named)

    # The compiler does not look into functions with these marks.
    call.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_msg=options.get("reason"))
    return call


def _is_supported(device_type: Any) -> Any:
    """`torch._dynamo.utils.is_compile_supported`, which imports the compiler when it is called."""
    return _imported(f"{COMPILER}.utils").is_compile_supported(device_type)


def _graph_break(*args: Any, **options: Any) -> None:
    """`torch._dynamo.graph_break` in a process without the compiler, where nothing is compiled."""
    del args, options


class _CompiledModules(type):
    """Makes `isinstance` and `issubclass` ask the real `OptimizedModule`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return issubclass(type(instance), cls)

    def __subclasscheck__(cls, subclass: type) -> bool:
        # In a process without the compiler, or while another thread imports it, nothing is compiled.
        compiler = sys.modules.get(COMPILER)
        real = None if isinstance(compiler, _StandIn) else getattr(compiler, "OptimizedModule", None)
        return real is not None and issubclass(subclass, real)


class _OptimizedModule(metaclass=_CompiledModules):
    """`torch._dynamo.OptimizedModule` for questions whether a module is compiled."""


def _imported(name: str) -> Any:
    """The module itself, also where a stand-in has its name."""
    module = import_module(name)
    if isinstance(module, _StandIn):
        module.finder.remove()
        module = import_module(name)
    return module
