"""The public Python API: what it consists of, and which part of it has no docstring."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

MODULES = ("upturn", "upturn.protocols", "upturn.types")


def undocumented() -> list[str]:
    """Public names, and public methods of public classes, without a docstring."""
    return [name for name, found in members() if not documented(found)]


def members() -> Iterator[tuple[str, Any]]:
    """Every public name with its object: ``__all__`` of each module, then the methods of its classes."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        yield module_name, module
        for name in exported(module):
            found = getattr(module, name)
            yield f"{module_name}.{name}", found
            if inspect.isclass(found):
                methods = ((at, method) for at, method in vars(found).items() if not at.startswith("_"))
                yield from ((f"{module_name}.{name}.{at}", method) for at, method in methods if is_method(method))


def is_method(found: Any) -> bool:
    return inspect.isfunction(found) or isinstance(found, classmethod | staticmethod | property)


def exported(module: ModuleType) -> list[str]:
    """``__all__``, or what the module defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", "").startswith(module.__name__)
    ]  # fmt: skip


def documented(found: Any) -> bool:
    """Whether it has a docstring of its own. Type aliases and plain values cannot have one."""
    if not (inspect.ismodule(found) or inspect.isclass(found) or is_method(found)):
        return True
    if not inspect.isclass(found):
        return bool(inspect.getdoc(found))
    text = found.__dict__.get("__doc__") or ""
    return bool(text) and not text.startswith(f"{found.__name__}(")  # what dataclasses write where there is none
