"""Names of modules, classes and functions: plain terms of the field, and few names that are used twice.

A banned word counts as a whole word: between underscores, or between the humps of CamelCase.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.source_trees import nodes_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "upturn"
BANNED = (
    "booth", "door", "shelf", "onward", "said", "told", "asked", "made", "shown", "loud", "anew", "beforehand", "dear",
    "led", "silent", "showing", "foresee", "outlook", "stand_in",
)  # fmt: skip
MOST_SHARED = 20  # module names, and class names, that more than one file may have: components of several kinds


def words(name: str) -> str:
    """``MadeBy`` and ``made_by`` -> ``_made_by_``."""
    return f"_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower().strip('_')}_"


def banned(name: str) -> list[str]:
    return [word for word in BANNED if f"_{word}_" in words(name)]


def names(root: Path) -> Iterator[tuple[str, str, str]]:
    """(where, "module" | "class" | "function", name) of every one below a folder."""
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if path.name != "__init__.py":
            yield where, "module", path.stem
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                yield f"{where}:{node.lineno}", "class", node.name
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{where}:{node.lineno}", "function", node.name


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("root", [PACKAGE, ROOT / "tests", ROOT / "bench"], ids=["src", "tests", "bench"])
def test_no_name_has_a_banned_word(root: Path) -> None:
    found = [f"{where}: {kind} {name}" for where, kind, name in names(root) if banned(name)]
    assert not found, f"{len(found)} names\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "class"])
def test_few_names_are_used_twice(kind: str) -> None:
    """A search for a name should find one file; components of several kinds may share theirs."""
    places = defaultdict(list)
    for where, what, name in names(PACKAGE):
        if what == kind:
            places[name].append(where)
    shared = [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]
    assert len(shared) <= MOST_SHARED, f"{len(shared)} {kind} names are used twice\n" + "\n".join(shared)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("made", ["made"]), ("_said_of", ["said"]), ("WhatWasShown", ["shown"]), ("stand_in", ["stand_in"]),
        ("StandIn", ["stand_in"]), ("labelled", []), ("door", ["door"]), ("outdoor", []), ("doors", []),
    ],
)  # fmt: skip
def test_banned_words_are_found_as_whole_words(name: str, expected: list[str]) -> None:
    assert banned(name) == expected
