"""The parameters of a class, read from its source. Importing Torch takes seconds, and a plan must not wait for it."""

from __future__ import annotations

import ast
from typing import Any, cast


def class_constant(node: ast.ClassDef, name: str, default: Any) -> Any:
    """The literal that the body of a class assigns to a name.

    Args:
        node: the class.
        name: of the attribute.
        default: the result for a class that does not assign the name.
    """
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(cast(ast.Assign, statement).value)
    return default


def init_parameters(node: ast.ClassDef) -> dict[str, Any]:
    """The parameters of a class's `__init__` with their defaults.

    A default that is no literal, such as an enum, is None. Arguments of `**` are left out.
    """
    init = next((child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"), None)
    if init is None:
        return {}
    positional = init.args.args[1:]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(init.args.defaults))
    pairs = list(zip(positional, [*defaults, *init.args.defaults], strict=True))
    pairs += list(zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True))
    return {argument.arg: _literal(default) for argument, default in pairs}


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
