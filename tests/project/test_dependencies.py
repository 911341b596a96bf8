"""Every declared runtime dependency is imported by the package, and every third-party import is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from helpers.source_trees import nodes_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# No import names these: a library loads them (the reason is beside each).
LOADED_BY_OTHERS = {
    "httptools": "uvicorn parses HTTP with it",
    "uvloop": "uvicorn runs on it",
    "python-multipart": "fastapi reads forms with it",
    "psycopg": "sqlalchemy connects to Postgres with it",
    "faiss-cpu": "optional, imported by name",
    "bitsandbytes": "optional, imported by name",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*groups: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"]) if "runtime" in groups else []
    for group in groups:
        lines += project["optional-dependencies"].get(group, [])
    return {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines}  # type: ignore[index]


@cache
def imported() -> dict[str, set[str]]:
    """Third-party top-level modules that ``src`` imports, with the files that import them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in nodes_of(path):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - {"upturn"} - sys.stdlib_module_names:
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


@cache
def installed() -> Mapping[str, list[str]]:
    """The distributions of each module that is installed: one pass over the files of all of them."""
    return metadata.packages_distributions()


def distributions(module: str) -> set[str]:
    return {normal(name) for name in installed().get(module, [module])}


def test_every_runtime_dependency_is_imported() -> None:
    used = {name for module in imported() for name in distributions(module)}
    unused = declared("runtime", "people") - used - LOADED_BY_OTHERS.keys()
    assert not unused, f"declared in pyproject.toml and imported nowhere in src: {sorted(unused)}"


def test_every_import_is_declared() -> None:
    known = declared("runtime", "people", "postgres", "eight-bit", "search")
    missing = {module: sorted(files) for module, files in imported().items() if not distributions(module) & known}
    assert not missing, f"imported in src and declared nowhere in pyproject.toml: {missing}"
