"""A study: one base recipe, what is varied in it, and a recipe for each variant. Read from YAML, checked at once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from upturn.config import recipe as recipes
from upturn.config.recipe import Recipe
from upturn.errors import UserError

_SLUG = re.compile(r"[^A-Za-z0-9._-]+")
_LONG = 40  # characters of a label that a folder's name takes


def _labelled(value: object) -> Any:
    """Values of an axis as label -> value."""
    if isinstance(value, Mapping):
        return {str(label): inner for label, inner in value.items()}
    if not isinstance(value, list) or not value:
        raise ValueError("an axis is a list of values, or a mapping of labels to values")
    return {label_of(inner): inner for inner in value}


def label_of(value: object) -> str:
    """What a value is called in a table: a component by its name."""
    if isinstance(value, Mapping) and "name" in value:
        return str(value.get("as", value["name"]))
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


Axis = Annotated[dict[str, Any], BeforeValidator(_labelled)]


class StudyFile(BaseModel):
    """The keys of a study's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""  # the question of the study, in a sentence for the report
    recipe: str | dict[str, Any]  # a file, seen from this one, or a recipe itself
    set: dict[str, Any] = {}  # keys of the recipe by dotted path, for every variant
    vary: dict[str, Axis] = {}  # dotted path -> values; several are multiplied
    words: dict[str, str] = {}  # dotted path -> what it is called in tables and in the names of folders
    variants: dict[str, dict[str, Any]] = {}  # by name, each with its own settings: other models, none trained, …
    seeds: list[int] = []  # each variant is trained with each; none: with the recipe's
    judges: str | None = None  # the variant whose helper models measure all of them; null: each fits its own
    prompts: list[str] = []  # displayed side by side, one noise for all variants; none: those of the recipe's grid
    wordings: list[list[str]] = []  # of one prompt, drawn from one noise
    per_prompt: int | None = Field(None, gt=0)


@dataclass(frozen=True)
class Job:
    """One run of a variant; its recipe's name is the run's folder within the study's."""

    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Variant:
    """``labels`` are the axes' values in words; a variant of its own has none."""

    name: str
    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Study:
    name: str
    about: str
    axes: Mapping[str, tuple[str, ...]]  # what is varied, in words -> labels
    variants: tuple[Variant, ...]
    judges: str | None
    text: str  # as written
    wordings: tuple[tuple[str, ...], ...] = ()

    @property
    def jobs(self) -> list[tuple[Variant, Job]]:
        """The variants, first the one whose helper models the others use."""
        ordered = sorted(self.variants, key=lambda variant: variant.name != self.judges)
        return [(variant, job) for variant in ordered for job in variant.jobs]

    def only(self, names: Sequence[str]) -> Study:
        """The same study of some variants. UserError where one is unknown, or the lender of models is missing."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name not in known:
                raise UserError(f"there is no variant '{name}'", where="--only", fix=f"There: {', '.join(known)}.")
        if self.judges is not None and self.judges not in names:
            raise UserError(f"'{self.judges}' lends its helper models", where="--only", fix="Name it, too.")
        left = tuple(variant for variant in self.variants if variant.name in names)
        axes = {
            axis: tuple(label for label in labels if any(variant.labels.get(axis) == label for variant in left))
            for axis, labels in self.axes.items()
        }
        return replace(self, variants=left, axes=axes)


def load(path: Path, settings: Sequence[str] = ()) -> Study:
    """A study's file, or a recipe whose ``captions:`` names several strategies; ``settings`` as for a recipe.

    Raises UserError naming file, variant and key.
    """
    text = _text(path)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"not valid YAML: {getattr(error, 'problem', error)}", where=at) from None
    if not isinstance(tree, dict):
        raise UserError("a study is a mapping of keys", where=str(path), fix="See recipes/studies for some.")
    if "recipe" not in tree:
        return _of_captions(path, text, settings)
    try:
        spec = StudyFile.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        line = recipes.line_of(text, key) if key else None
        known = f"Known: {', '.join(StudyFile.model_fields)}." if first["type"] == "extra_forbidden" else ""
        problem_text = "unknown key" if known else first["msg"].removeprefix("Value error, ")
        raise UserError(f"'{key}': {problem_text}", where=f"{path}:{line}" if line else str(path), fix=known) from None
    base, where = _base(spec.recipe, path)
    return _built(spec, base, where, str(path), text, settings)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8 text", where=str(path), fix="Save it as UTF-8.") from None


def _base(spec: str | dict[str, Any], path: Path) -> tuple[str, str]:
    """The base recipe's text, and how to name it in messages."""
    if isinstance(spec, dict):
        return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), f"{path}: recipe"
    there = path.parent / spec
    if not there.is_file():
        raise UserError(f"there is no recipe '{spec}'", where=f"{path}: recipe", fix=f"Looked for {there}.")
    return _text(there), str(there)


def _of_captions(path: Path, text: str, settings: Sequence[str]) -> Study:
    """One variant for each strategy of a recipe's ``captions:``."""
    recipe = recipes.load(path, settings)
    if len(recipe.captions) < 2:
        raise UserError(
            "this is a recipe with nothing to compare", where=str(path),
            fix="A study has 'recipe:' and 'vary:' (see recipes/studies); a recipe is one by itself where 'captions:' "
            "lists several strategies.",
        )
    varied = {"captions": list(recipe.captions)}
    spec = StudyFile.model_validate({"name": recipe.name, "recipe": str(path), "vary": varied})
    return _built(spec, text, str(path), str(path), text, settings)


def _built(spec: StudyFile, base: str, where: str, path: str, text: str, given: Sequence[str]) -> Study:
    shared: dict[str, Any] = dict(spec.set)
    if spec.prompts:
        shared["grid.texts"] = list(spec.prompts)
    if spec.wordings:
        shared["grid.wordings"] = [list(group) for group in spec.wordings]
    if spec.per_prompt:
        shared["grid.per_prompt"] = spec.per_prompt
    strange = sorted(set(spec.words) - set(spec.vary))
    if strange:
        raise UserError(f"'{strange[0]}' is not varied", where=f"{path}: words", fix=f"There: {', '.join(spec.vary)}.")
    listed: list[tuple[str, dict[str, str], dict[str, Any]]] = []
    for choice in itertools.product(*(axis.items() for axis in spec.vary.values())):
        named = [spec.words.get(key, key) for key in spec.vary]
        labels = dict(zip(named, (label for label, _ in choice), strict=True))
        own = dict(zip(spec.vary, (value for _, value in choice), strict=True))
        if labels or not spec.variants:
            listed.append(("_".join(_part(key, label) for key, label in labels.items()) or "all", labels, own))
    listed += [(slug(name), {}, dict(own)) for name, own in spec.variants.items()]
    names = [name for name, _, _ in listed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two variants are called '{twice[0]}'", where=path, fix="Give their values other labels.")
    before = [*map(setting, shared.items()), *given]  # settings of the command line override the file's "set"
    variants = tuple(
        Variant(name, labels, own, _jobs(spec, name, base, where, [*before, *map(setting, own.items())], path))
        for name, labels, own in listed
    )
    if spec.judges is not None and spec.judges not in names:
        raise UserError(f"there is no variant '{spec.judges}'", where=f"{path}: judges",
                        fix=f"One of: {', '.join(names)}.")
    axes = {spec.words.get(key, key): tuple(axis) for key, axis in spec.vary.items()}
    wordings = tuple(tuple(group) for group in spec.wordings)
    return Study(spec.name, spec.about, axes, variants, spec.judges, text, wordings)


def _jobs(
    spec: StudyFile, name: str, base: str, where: str, settings: Sequence[str], path: str
) -> tuple[Job, ...]:
    out = []
    wanted: list[int | None] = [*spec.seeds] or [None]
    for seed in wanted:
        folder = name if len(spec.seeds) < 2 else f"{name}-seed{seed}"
        more = [f"name={folder}", *([] if seed is None else [f"seed={seed}"])]
        try:
            recipe = recipes.parse(base, where, [*settings, *more])
        except UserError as error:
            raise UserError(error.what, where=f"{path}: variant '{name}' ({error.where})", fix=error.fix) from None
        out.append(Job(recipe.seed, recipe))
    return tuple(out)


def setting(item: tuple[str, Any]) -> str:
    """As ``--set`` takes it."""
    key, value = item
    return f"{key}={yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)}"


def _part(key: str, label: str) -> str:
    """A label as part of a folder's name; a number says of what."""
    last, bare = slug(key.rpartition(".")[2]), slug(label)
    return bare if re.match(r"[A-Za-z]", label) and label not in ("null", "true", "false") else f"{last}-{bare}"


def slug(label: str) -> str:
    found = _SLUG.sub("-", label).strip("-._")[:_LONG]
    return found or "variant"
