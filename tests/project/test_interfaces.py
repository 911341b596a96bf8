"""Components are read by what they declare: no undeclared attribute, no test on a component's name.

Two rules over the syntax tree of every module of the package.

1. ``getattr(x, "literal", …)`` and ``hasattr(x, "literal")`` occur only in the modules of ``THIRD_PARTY``, which handle
   objects of other libraries whose attributes are optional. What other code reads of a component is declared, with a
   default, on the base class of its kind in ``upturn.protocols``.
2. Outside ``config/components.py`` nothing depends on a component's name. Refused is a comparison (``==``, ``!=``,
   ``in``, ``not in``) between an expression that reads a name and a literal with the name of a component that ships.
   An expression reads a name where it contains ``x.name``, ``x["name"]`` or ``x.get("name")``, or is a variable called
   ``component``, ``curator``, ``metric``, ``scorer``, ``objective`` or ``adapter``. A literal is a string, a tuple,
   list, set, frozenset or mapping (its keys) of strings, or a constant of the same module with such a value.
   Refused, too, is a constant of a module that is such a collection of two or more names
   of components of one kind, except in ``NAME_LISTS``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.source_trees import tree_of
from upturn.config import components

PACKAGE = Path(__file__).parents[2] / "src" / "upturn"

# module or folder -> why it may ask an object of another library for an optional attribute
THIRD_PARTY = {
    "adapter_layers/": "layers and configurations of peft, torch modules and their wrappers",
    "adapters/_low_rank.py": "torch modules of transformers and diffusers",
    "adapters/_rank_importance.py": "layers of peft",
    "adapters/_targets.py": "torch modules",
    "adapters/adalora.py": "layers of peft",
    "config/components.py": "type hints, which may be classes of pydantic",
    "config/recipe.py": "errors of PyYAML, type hints",
    "data/captions/_captioner.py": "processors of transformers",
    "data/tokenizers.py": "tokenizers of transformers",
    "diffusion/": "torch modules",
    "embeddings/unwrap.py": "wrappers that a trainer puts around a torch module",
    "embeddings/processors.py": "image processors of transformers",
    "export/adapter_formats.py": "layers of peft, pipelines of diffusers",
    "features/_local_encoder.py": "configurations and models of transformers",
    "features/encoder.py": "configurations of transformers",
    "lab/experiment_runner.py": "the module os: sched_getaffinity exists on Linux only",
    "models/_hub.py": "configurations of transformers",
    "models/_dual_encoder/": "configurations and modules of transformers",
    "models/_language/": "configurations and modules of transformers",
    "models/_text_to_image/": "configurations and modules of diffusers and transformers",
    "models/gaussian.py": "a torch module that is not built yet",
    "scorers/_image_classifier.py": "configurations of transformers",
    "store/files.py": "errors of the operating system",
    "studies/study_definition.py": "errors of PyYAML",
}

# modules with constants that list names of components of one kind, and why
NAME_LISTS = {
    "theory/case.py": "cases of the theory, not components",
}

_NAMES = {kind: frozenset(components.names(kind)) for kind in components.FOLDERS}
_ALL = frozenset().union(*_NAMES.values())
_VARIABLES = frozenset({"component", "curator", "metric", "scorer", "objective", "adapter"})
_SETS = frozenset({"frozenset", "set", "tuple", "list"})


def _listed(place: str, table: dict[str, str]) -> bool:
    return any(place == entry or (entry.endswith("/") and place.startswith(entry)) for entry in table)


def undeclared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every ``getattr`` and ``hasattr`` with a literal name."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
            and len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
        ):
            yield node.lineno, ast.unparse(node)


def _strings(node: ast.AST) -> list[str]:
    """The strings of a literal; none where it is something else."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SETS and node.args:
        return _strings(node.args[0])
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = list(node.elts)
    elif isinstance(node, ast.Dict):
        parts = list(node.keys)
    found = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return found if len(found) == len(parts) else []


def _reads_name(node: ast.AST) -> bool:
    if isinstance(node, ast.Name) and node.id in _VARIABLES:
        return True
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr == "name":
            return True
        if isinstance(part, ast.Subscript) and _strings(part.slice) == ["name"]:
            return True
        if (
            isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "get"
            and part.args and _strings(part.args[0]) == ["name"]
        ):
            return True
    return False


def _constants(tree: ast.Module) -> dict[str, tuple[int, ast.expr]]:
    found: dict[str, tuple[int, ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
            pairs = [(target, value) for target in targets if isinstance(target, ast.Name)]
            if isinstance(targets[0], ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = [(a, b) for a, b in zip(targets[0].elts, value.elts, strict=True) if isinstance(a, ast.Name)]
            found |= {target.id: (node.lineno, part) for target, part in pairs}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = (node.lineno, node.value)
    return found


def comparisons_of_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every comparison of a component's name."""
    constants = _constants(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            continue
        sides = [node.left, *node.comparators]
        for side in sides:
            literal = constants[side.id][1] if isinstance(side, ast.Name) and side.id in constants else side
            if _ALL & set(_strings(literal)) and any(_reads_name(other) for other in sides if other is not side):
                yield node.lineno, ast.unparse(node)


def lists_of_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every constant that lists components of one kind."""
    for name, (line, value) in _constants(tree).items():
        strings = set(_strings(value))
        if len(strings) > 1 and name != "__all__" and any(strings <= known for known in _NAMES.values()):
            yield line, name


def _modules() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def _tree(place: str) -> ast.Module:
    return tree_of(PACKAGE / place)


@pytest.mark.long
@pytest.mark.slow
def test_attributes_read_from_a_component_are_declared() -> None:
    found = [
        f"{place}:{line}: {text}" for place in _modules() if not _listed(place, THIRD_PARTY)
        for line, text in undeclared(_tree(place))
    ]
    assert not found, "\n".join(["declare it on the base class in upturn.protocols and read it directly:", *found])


@pytest.mark.slow
def test_nothing_tests_on_the_name_of_a_component() -> None:
    found = [
        f"{place}:{line}: {text}" for place in _modules() if place != "config/components.py"
        for line, text in comparisons_of_names(_tree(place))
    ]
    found += [
        f"{place}:{line}: {text}" for place in _modules() if not _listed(place, NAME_LISTS)
        for line, text in lists_of_names(_tree(place))
    ]
    assert not found, "\n".join(["declare an attribute on the base class instead:", *found])


@pytest.mark.parametrize("text", [
    'getattr(scorer, "bounds", None)', 'hasattr(model, "act")', 'x = [getattr(m, "notes", ()) for m in models]',
])
def test_a_planted_read_is_found(text: str) -> None:
    assert list(undeclared(ast.parse(text)))


@pytest.mark.parametrize("text", ["getattr(scorer, name)", "scorer.bounds", 'setattr(model, "id", "a")'])
def test_declared_reads_are_not_reported(text: str) -> None:
    assert not list(undeclared(ast.parse(text)))


@pytest.mark.parametrize("text", [
    'model.name == "classifier"', 'spec["name"] in ("choice", "best_of_n")', 'recipe.data["name"] != "digits"',
    'spec.get("name") == "threshold"', 'str(spec["name"]) not in {"subset"}', 'component == "memorisation"',
    'BY_REWARD = frozenset({"choice", "threshold"})\nfound = [c["name"] for c in specs if c["name"] in BY_REWARD]',
    '_GOLD, _PROXY = "gold_reward", "reward"\nif component == _GOLD: pass', '"full" == spec.adapter["name"]',
])
def test_a_planted_test_on_a_name_is_found(text: str) -> None:
    assert list(comparisons_of_names(ast.parse(text)))


@pytest.mark.parametrize("text", [
    'model.name == "policy"', 'samples.kind == "points"', 'spec["name"] in found', 'path.name == "mixture.parquet"',
    'curator.selects == "reward"', 'policy == "replace"',
])
def test_other_comparisons_are_not_found(text: str) -> None:
    assert not list(comparisons_of_names(ast.parse(text)))


def test_a_planted_list_of_names_is_found_and_others_are_not() -> None:
    assert list(lists_of_names(ast.parse('CHOOSERS = ("choice", "best_of_n")')))
    assert list(lists_of_names(ast.parse('TITLES = {"reward": 1, "coverage": 2}')))
    assert not list(lists_of_names(ast.parse('KINDS = ("text", "image", "points")\n__all__ = ["choice", "subset"]')))


@pytest.mark.slow
def test_no_exception_is_left_over() -> None:
    """An entry whose module has nothing to excuse is removed from the tables."""
    for entry in THIRD_PARTY:
        places = [place for place in _modules() if _listed(place, {entry: ""})]
        assert any(list(undeclared(_tree(place))) for place in places), f"remove '{entry}' from THIRD_PARTY"
    for entry in NAME_LISTS:
        places = [place for place in _modules() if _listed(place, {entry: ""})]
        assert any(list(lists_of_names(_tree(place))) for place in places), f"remove '{entry}' from NAME_LISTS"
