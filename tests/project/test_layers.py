"""The rows of the house: each imports only from rows above it; plug-ins know no other plug-in; nothing goes in circles.

Every import counts for the rows, also one inside a function or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from upturn.config.components import FOLDERS

PACKAGE = Path(__file__).parents[2] / "src" / "upturn"

ROWS = (
    "errors", "watch", "types", "protocols", "seeds", "statistics", "theory", "components", "fingerprint", "parts",
    "recipe", "store", "features", "data", "asking", "diffusion", "models", "adapters", "objectives", "scorers",
    "curators", "growers", "metrics", "gate", "guiding", "sizing", "choosing", "captioning", "toolbox", "assemble",
    "engine", "averaging", "optimiser", "feeds", "tracking",
    "beforehand", "trainer", "anew", "stages", "sampling", "merging", "searching", "plan", "starters", "loop",
    "status", "studies", "feedback", "report", "cli", "",
)  # fmt: skip
# "" is upturn/__init__.py, which nothing in the house imports
PLUG_INS = frozenset(folder.removeprefix("upturn.") for folder in FOLDERS.values()) | {"growers", "data.captions"}
LEAVES = ("studies", "feedback", "report")  # delete any of them and training code does not change
NOT_IN_A_REPORT = ("trainer", "engine", "stages", "loop", "assemble")
HEAVY = ("torch", "pyarrow", "pandas", "sklearn", "scipy", "transformers", "diffusers", "datasets", "matplotlib")


class Import(NamedTuple):
    """One module imports another, both named within the package ("data.mixer"); ``typing`` where only types need it."""

    source: str
    target: str
    line: int
    typing: bool


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its name within it; a package's name stands for its ``__init__``."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> list[Import]:
    known = modules(root)
    out = []
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node, typing in _statements(ast.parse(path.read_text(encoding="utf-8")), False):
            for target in _targets(node, package, known):
                if target != name:
                    out.append(Import(name, target, node.lineno, typing))
    return out


def _statements(node: ast.AST, typing: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, typing
            continue
        guarded = isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        yield from _statements(child, typing or guarded)


def _targets(node: ast.Import | ast.ImportFrom, package: str, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        yield from (name.partition(".")[2] for name in names if name.split(".")[0] == "upturn")
        return
    if node.level:
        parts = package.split(".") if package else []
        base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
    elif (node.module or "").split(".")[0] == "upturn":
        base = (node.module or "").partition(".")[2]
    else:
        return
    for alias in node.names:
        inner = f"{base}.{alias.name}" if base else alias.name
        yield inner if inner in known else base


def folder_of(name: str) -> str | None:
    """The plug-in folder that a module stands in."""
    return next((folder for folder in PLUG_INS if name.startswith(f"{folder}.")), None)


def is_plug_in(name: str) -> bool:
    folder = folder_of(name)
    return folder is not None and not name.removeprefix(f"{folder}.").startswith("_")


def violations(root: Path) -> list[str]:
    """What breaks the house's rules, a line each."""
    found = imports(root)
    names = modules(root)
    out = [f"{name}: has no row; give it one in {Path(__file__).name}" for name in names if _row(name) not in ROWS]
    for edge in found:
        at = f"{edge.source or '__init__'}:{edge.line} imports {edge.target or 'upturn itself'}"
        above, below = _row(edge.target), _row(edge.source)
        if above in ROWS and below in ROWS and ROWS.index(above) > ROWS.index(below):
            out.append(f"{at}: a row below its own")
        if folder_of(edge.source) and is_plug_in(edge.target):
            out.append(f"{at}: another plug-in")
        if folder_of(edge.source) and above == "loop":
            out.append(f"{at}: the loop")
        if below in LEAVES and above in LEAVES and above != below:
            out.append(f"{at}: another leaf")
        if below == "report" and above in NOT_IN_A_REPORT:
            out.append(f"{at}: a report is made from the store alone")
    return out + [f"a circle: {' -> '.join(circle)}" for circle in circles(found)]


def _row(name: str) -> str:
    return name.split(".")[0]


def circles(found: list[Import]) -> list[list[str]]:
    """One path for each circle met in a depth-first walk; imports for types alone make none."""
    graph: dict[str, list[str]] = {}
    for edge in found:
        if not edge.typing:
            graph.setdefault(edge.source, []).append(edge.target)
    done: set[str] = set()
    out: list[list[str]] = []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            out.append([*path[path.index(name) :], name])
            return
        if name in done:
            return
        for after in graph.get(name, []):
            walk(after, [*path, name])
        done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return out


def test_the_house_stands() -> None:
    found = violations(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_the_house_was_read() -> None:
    """The check sees files, rows and imports at all: the words are imported nearly everywhere."""
    found = imports(PACKAGE)
    assert len(modules(PACKAGE)) > 30
    assert sum(edge.target == "types" for edge in found) > 20


@pytest.mark.parametrize("start", ["upturn", "upturn.cli"])
def test_starting_is_light(start: str) -> None:
    code = f"import {start}, sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def plant(root: Path, files: dict[str, str]) -> Path:
    package = root / "upturn"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for folder in [*path.relative_to(package).parents][:-1]:
            (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    return package


TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING"
GOOD = {
    "errors.py": "",
    "types.py": "import numpy\nfrom upturn.errors import UserError",
    "curators/_helpers.py": "from upturn import types",
    "curators/choice.py": "from upturn.curators._helpers import x\nfrom ._helpers import y\nfrom ..types import z",
    "loop.py": "def f():\n    from upturn.curators import choice\n    from upturn import curators",
    "report/page.py": "from upturn.report import parts\nfrom upturn.types import x",
    "report/parts.py": f"{TYPES}:\n    from upturn.report import page",
}


def test_a_good_house_passes(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("errors.py", "from upturn.types import X", "errors:1 imports types: a row below"),
        ("types.py", "import upturn.loop.loop", "types:1 imports loop: a row below"),
        ("types.py", "def f():\n    from upturn import loop", "types:2 imports loop: a row"),
        ("types.py", "try:\n    from . import loop\nexcept ImportError:\n    pass", "types:2 imports loop"),
        ("types.py", f"{TYPES}:\n    from .loop import x", "types:3 imports loop: a row below"),
        ("types.py", "from upturn import __version__", "types:1 imports upturn itself: a row below"),
        ("curators/best.py", "from upturn.curators.choice import x", "curators.best:1 imports curators.choice"),
        ("curators/best.py", "from . import choice", "curators.best:1 imports curators.choice: another plug-in"),
        ("curators/_helpers.py", "from .choice import x", "curators._helpers:1 imports curators.choice"),
        ("metrics/reward.py", "from upturn.curators import choice", "metrics.reward:1 imports curators.choice"),
        ("metrics/reward.py", "from upturn.loop.loop import x", "metrics.reward:1 imports loop: the loop"),
        ("feedback/page.py", "from upturn.studies import x", "feedback.page:1 imports studies: another leaf"),
        ("report/page.py", "from upturn.training.trainer import x", "report.page:1 imports trainer: a report is made from"),
        ("report/parts.py", "from upturn.report import page", "a circle: report.page -> report.parts -> report.page"),
        ("report/parts.py", "def f():\n    from .page import x", "a circle: report.page -> report.parts"),
        ("misc.py", "", "misc: has no row"),
    ],
)  # fmt: skip
def test_a_bad_house_does_not(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    also = {"trainer.py": "", "studies/gaussian.py": ""}
    found = violations(plant(tmp_path, {**GOOD, **also, file: text}))
    assert any(line.startswith(complaint) for line in found), found
