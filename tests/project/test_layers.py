"""The layers of the package: each imports only from layers above it, plug-ins import no other plug-in, no cycles.

Every import counts, also one inside a function or under TYPE_CHECKING, and ``components.make("kind", "name")`` or
``components.find`` with a literal name. No module imports another package's module whose name begins with an
underscore: "another package" is every package but the one that directly holds the private module, and what is below it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.source_trees import nodes_of
from upturn.config.components import FOLDERS

PACKAGE = Path(__file__).parents[2] / "src" / "upturn"

# One line a layer. Packages of one layer do not import each other; behind a semicolon, one may import those
# before it. "" is upturn/__init__.py, which nothing in the package imports.
LAYERS = (
    "errors; observer; types",
    "seeds; protocols",
    "config",
    "statistics",
    "theory",
    "store",
    "embeddings; features",
    "data",
    "annotation",
    "diffusion",
    "adapter_layers",
    "sandbox; models",
    "adapters, objectives, scorers, curators, metrics, synthesizers",
    "training",
    "engine",
    "loop",
    "plan, runs, export",
    "studies, lab, report, web",
    "cli; , __main__",
)
PLUG_INS = frozenset(folder.removeprefix("upturn.") for folder in FOLDERS.values())
HEAVY = ("torch", "pyarrow", "pandas", "sklearn", "scipy", "transformers", "diffusers", "datasets")


class Import(NamedTuple):
    """One module imports another, both named within the package ("data.mixer")."""

    source: str
    target: str
    line: int


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its name within it; a package's name is its ``__init__``."""
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
        for node in nodes_of(path):
            if isinstance(node, ast.Import | ast.ImportFrom):
                targets = list(_targets(node, package, known))
            elif isinstance(node, ast.Call):
                targets = _component(node)
            else:
                continue
            targets = list(dict.fromkeys(one for target in targets for one in (*_packages(target, name), target)))
            out += [Import(name, target, node.lineno) for target in targets if target != name]
    return out


def _packages(target: str, source: str) -> list[str]:
    """The packages whose ``__init__`` runs before ``target`` does, and had not begun when ``source`` did."""
    parts = target.split(".")
    above = [".".join(parts[:i]) for i in range(1, len(parts))]
    return [package for package in above if not f"{source}.".startswith(f"{package}.")]


def _component(node: ast.Call) -> list[str]:
    """What ``components.make("curator", "choice")`` imports."""
    if not (isinstance(node.func, ast.Attribute) and node.func.attr in ("make", "find") and len(node.args) > 1):
        return []
    kind, spec = node.args[:2]
    if isinstance(spec, ast.Dict):
        spec = next((v for k, v in zip(spec.keys, spec.values, strict=True)
                     if isinstance(k, ast.Constant) and k.value == "name"), spec)
    if not (isinstance(kind, ast.Constant) and isinstance(spec, ast.Constant) and kind.value in FOLDERS):
        return []
    return [f"{FOLDERS[kind.value].removeprefix('upturn.')}.{spec.value}"]


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
    """The plug-in folder of a module, the innermost where one contains another."""
    return max((folder for folder in PLUG_INS if name.startswith(f"{folder}.")), key=len, default=None)


def is_plug_in(name: str) -> bool:
    folder = folder_of(name)
    return folder is not None and not name.removeprefix(f"{folder}.").startswith("_")


def position(name: str) -> tuple[int, int] | None:
    """The layer of a module and its place among those of the layer that follow each other; None where it has none."""
    package = name.split(".")[0]
    for i, layer in enumerate(LAYERS):
        for j, packages in enumerate(layer.split(";")):
            if package in [word.strip() for word in packages.split(",")]:
                return i, j
    return None


def private_to(name: str) -> str | None:
    """The package within which a module may be imported: the one that holds its first component with an underscore."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.startswith("_"):
            return ".".join(parts[:i])
    return None


def violations(root: Path) -> list[str]:
    """What breaks the rules, a line each."""
    found = imports(root)
    out = [f"{name}: has no layer; name it in {Path(__file__).name}" for name in modules(root) if not position(name)]
    for edge in found:
        at = f"{edge.source or '__init__'}:{edge.line} imports {edge.target or 'upturn itself'}"
        above, below = position(edge.target), position(edge.source)
        package, other = edge.source.split(".")[0], edge.target.split(".")[0]
        if above and below and above > below:
            out.append(f"{at}: a layer below its own")
        elif above == below and package != other:
            out.append(f"{at}: its own layer")
        if folder_of(edge.source) and folder_of(edge.source) == folder_of(edge.target) and is_plug_in(edge.target):
            out.append(f"{at}: another plug-in")
        within = private_to(edge.target)
        if within is not None and not f"{edge.source}.".startswith(f"{within}."):
            out.append(f"{at}: private to {within}")
    return out + [f"a cycle: {' -> '.join(cycle)}" for cycle in cycles(found)]


def cycles(found: list[Import]) -> list[list[str]]:
    """One path for each cycle met in a depth-first walk, whether its imports run or serve types alone."""
    graph: dict[str, list[str]] = {}
    for edge in found:
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


@pytest.mark.long
@pytest.mark.slow
def test_every_import_follows_the_layers() -> None:
    found = violations(PACKAGE)
    assert not found, f"{len(found)} violations\n" + "\n".join(found)


@pytest.mark.slow
def test_the_package_was_read() -> None:
    """The check sees files, layers and imports at all: the types are imported nearly everywhere."""
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
    "data/sources/_rows.py": "",
    "data/sources/lines.py": "from upturn.data.sources._rows import x",
    "curators/_helpers.py": "from upturn import types",
    "curators/choice.py": "from upturn.curators._helpers import x\nfrom ._helpers import y\nfrom ..types import z",
    "loop/loop.py": "def f():\n    from upturn.curators import choice\n    from upturn import curators",
    "report/page.py": "from upturn.report import parts\nfrom upturn.types import x\nfrom .sections import charts",
    "report/sections/charts.py": "from upturn.report import parts",
    "report/parts.py": "",
}


def test_a_package_that_follows_the_layers_passes(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("errors.py", "from upturn.types import X", "errors:1 imports types: a layer below"),
        ("types.py", "import upturn.loop.loop", "types:1 imports loop.loop: a layer below"),
        ("types.py", "def f():\n    from upturn import loop", "types:2 imports loop: a layer"),
        ("types.py", "try:\n    from . import loop\nexcept ImportError:\n    pass", "types:2 imports loop"),
        ("types.py", f"{TYPES}:\n    from .loop import x", "types:3 imports loop: a layer below"),
        ("types.py", "from upturn import __version__", "types:1 imports upturn itself: a layer below"),
        ("curators/best.py", "from upturn.curators.choice import x", "curators.best:1 imports curators.choice"),
        ("curators/best.py", "from . import choice", "curators.best:1 imports curators.choice: another plug-in"),
        ("curators/_helpers.py", "from .choice import x", "curators._helpers:1 imports curators.choice"),
        ("curators/best.py", 'components.make("curator", "choice")', "curators.best:1 imports curators.choice"),
        ("theory/x.py", 'components.find("curator", "choice")', "theory.x:1 imports curators.choice: a layer below"),
        ("theory/x.py", 'components.make("curator", {"name": "choice"})', "theory.x:1 imports curators.choice"),
        ("metrics/reward.py", "from upturn.curators import choice", "metrics.reward:1 imports curators.choice: its"),
        ("metrics/reward.py", "from upturn.loop.loop import x", "metrics.reward:1 imports loop.loop: a layer below"),
        ("web/page.py", "from upturn.studies import x", "web.page:1 imports studies: its own layer"),
        ("data/x.py", "from upturn.data.sources._rows import x", "data.x:1 imports data.sources._rows: private"),
        ("report/parts.py", "from upturn.report import page", "a cycle: report.page -> report.parts -> report.page"),
        ("report/parts.py", "def f():\n    from .page import x", "a cycle: report.page -> report.parts"),
        ("report/parts.py", f"{TYPES}:\n    from .page import x", "a cycle: report.page -> report.parts"),
        ("report/sections/__init__.py", "from upturn.report.page import x", "a cycle: report.page -> report.sections"),
        ("misc.py", "", "misc: has no layer"),
    ],
)  # fmt: skip
def test_a_package_that_does_not_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    found = violations(plant(tmp_path, {**GOOD, "studies/gaussian.py": "", file: text}))
    assert any(line.startswith(complaint) for line in found), found
