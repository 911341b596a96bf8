"""The reference page of recipe keys, generated from the pydantic models in ``upturn.config``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from upturn.config.recipe import Recipe

COMPONENT = "component"
MEANINGS = {  # of keys that have no comment in the schema; "Model.key" goes before "key"
    "Recipe.name": "the name of the run and of its directory",
    "Recipe.seed": "every random number follows from it",
    "Recipe.data": "a source; its held-out part is never trained on",
    "Recipe.models": "`policy` is the model that is improved; helpers have names of your own",
    "Recipe.features": "the encoder for distances between samples, in metrics and deduplication",
    "Recipe.stages": "trainings before the rounds, in order; the model after the last is round 0",
    "Recipe.rounds": "the loop; null: only the stages",
    "Recipe.evaluate": "what is measured, on fixed prompts and noise; the first is the main one",
    "Recipe.gate": "which metric promotes a round; null: every round is promoted",
    "Recipe.grid": "the samples that the report displays",
    "Recipe.keep": "which weights stay on disk",
    "Recipe.provenance": "estimates the synthetic share of the data before training",
    "Recipe.filter": "selects real training data before the first stage",
    "Recipe.score_words": "words in the captions that state the score of a sample",
    "Recipe.usd_per_hour": "turns seconds into cost",
    "Recipe.tracker": "logs losses through accelerate",
    "trusted": "a source that is known to be real; never trained on",
    "score": "scorers; their weighted sum (`weight:`, 1 by default) is the reward",
    "curate": "curators, in order; each sees what the one before kept",
    "Model.name": "the model component; further keys are its fields",
    "fit": "how a helper model is trained before round 0",
    "refit": "how a reward model is fitted again in each round",
    "objective": "what is minimised",
    "adapter": "which weights are trained: `full`, or low-rank layers",
    "epochs": "passes over the mixture; give this or `steps`",
    "steps": "optimizer updates; give this or `epochs`",
    "batch_size": "examples per update, over all processes",
    "learning_rate": "the highest rate of the schedule",
    "schedule": "the learning rate after the warm-up",
    "optimizer": "the optimizer component",
    "weight_decay": "decoupled weight decay",
    "Stage.name": "the name of the stage and of its folder",
    "Turn.name": "tells two trainings with one objective apart",
    "split": "which part of the real data it is trained on",
    "where": "which real samples: a field and its value",
    "Rounds.count": "number of rounds",
    "mix": "how real and synthetic samples are mixed",
    "Evaluation.name": "the name of the evaluation, before its metrics in tables",
    "prompts": "number of prompts",
    "candidates": "samples per prompt",
    "settings": "settings of the model's sampling, such as `temperature`, `max_tokens`, `steps`, `guidance`",
    "metrics": "metrics; `as:` gives one another name",
    "metric": "the metric that decides",
    "alpha": "the level over all rounds of the run",
    "anchor": "the round that guards compare with",
    "per_prompt": "samples per prompt",
    "texts": "prompts of your own",
    "disk_gb": "budget for weights; rejected rounds go first, then the oldest",
    "mode": "the kind of vote",
    "simulated": "annotators for `--simulate`",
    "Voters.count": "number of simulated annotators",
    "policy": "which rounds' samples are in the mixture",
    "weights": "weight by source, before λ is applied",
}


def page() -> str:
    """The page: one section a model, the recipe first, then its parts in the order in which they are reached."""
    sections = [
        "# Recipe keys\n\n"
        "Generated from the schema in `src/upturn/config/`. A *component* is a name (`curate: choice`) or a mapping "
        "with a name and the component's fields (`curate: {name: choice, temperature: 0.5}`); the fields are on the "
        "[component pages](components/index.md). A key without a default is required. An unknown key is an error.\n"
    ]
    sections += [section(model, path) for model, path in models()]
    return "\n".join(sections)


def models() -> list[tuple[type[BaseModel], list[str]]]:
    """Every model that a recipe holds, with the keys at which it is written."""
    found: dict[type[BaseModel], list[str]] = {Recipe: []}
    queue: list[tuple[type[BaseModel], str]] = [(Recipe, "")]
    while queue:
        model, path = queue.pop(0)
        for key, field in keys(model):
            for inner, suffix in nested(field.annotation):
                at = f"{path}.{key}{suffix}".removeprefix(".")
                if inner not in found:
                    found[inner] = []
                    queue.append((inner, at))
                if at not in found[inner]:
                    found[inner].append(at)
    return list(found.items())


def keys(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The keys as they are written in YAML, with their fields."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def nested(hint: Any) -> list[tuple[type[BaseModel], str]]:
    """The models within a type hint, with ``[]`` for a list and ``.<name>`` for a mapping."""
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return [(hint, "")]
    origin, out = get_origin(hint), []
    if origin is Annotated:
        return nested(get_args(hint)[0])
    suffix = {list: "[]", tuple: "[]", dict: ".<name>"}.get(origin, "")  # type: ignore[call-overload]
    for inner in get_args(hint):
        out += [(model, f"{suffix}{more}") for model, more in nested(inner)]
    return out


def section(model: type[BaseModel], paths: list[str]) -> str:
    title = "The recipe" if model is Recipe else f"`{paths[0]}`"
    lines = [f"## {title} {{#{model.__name__.lower()}}}\n"]
    lines.append(f"{paragraph(model)}\n")
    if len(paths) > 1:
        lines.append("Also at " + ", ".join(f"`{path}`" for path in paths[1:]) + ".\n")
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        meaning = meaning_of(model, name, field)
        inner = nested(field.annotation)
        if inner:
            see = ", ".join(f"[{m.__name__}](#{m.__name__.lower()})" for m, _ in inner)
            meaning = f"{meaning} ({see})" if meaning else f"see {see}"
        written = shorten(field)
        lines.append(f"| `{field.alias or name}` | {written} | {default(field)} | {escape(meaning)} |")
    return "\n".join([*lines, ""])


def meaning_of(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """The schema's own words where it has some, the table of this file elsewhere."""
    stated = field.description or comments_of(model).get(name)
    return stated or MEANINGS.get(f"{model.__name__}.{name}") or MEANINGS.get(name, "")


def paragraph(model: type[BaseModel]) -> str:
    """The docstring of a model; pydantic hands down none."""
    return inspect.cleandoc(model.__dict__.get("__doc__") or "")


def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """The comment behind each field, in the source of the model and of the models that it extends."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls.__module__.startswith("upturn.")):
            continue
        source = textwrap.dedent(inspect.getsource(cls))
        lines = source.splitlines()
        for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                rest = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
                if match := re.match(r"\s*#\s*(.+)", rest):
                    found[node.target.id] = match[1].strip()
    return found


def shorten(field: FieldInfo) -> str:
    """The type of a key in words, with its limits."""
    return words(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)


def words(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, *extra = args
        validators = {getattr(getattr(item, "func", None), "__qualname__", "") for item in extra}
        if any(name == "named" or name.startswith("plug_in.") for name in validators) and not nested(inner):
            return COMPONENT
        text = words(inner)
        return ", ".join([text, *filter(None, map(limit, extra))])
    if origin in (Union, UnionType):
        return " or ".join(words(arg) for arg in args)
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (list, tuple):
        return f"list of {words(args[0])}" if args else "list"
    if origin is dict:
        return f"mapping of {words(args[1])}" if args[1] is not Any else "mapping"
    if hint is NoneType:
        return "null"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any"}
    return names.get(hint) or getattr(hint, "__name__", str(hint))


def limit(item: Any) -> str:
    """A constraint in words."""
    inner = getattr(item, "metadata", None)
    if inner:
        return ", ".join(filter(None, map(limit, inner)))
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {getattr(item, at):g}" for at, sign in signs.items() if getattr(item, at, None) is not None]
    if getattr(item, "min_length", None):
        found.append(f"at least {item.min_length}")
    pattern = getattr(item, "pattern", None)
    if pattern:
        found.append(f"`{pattern}`")
    return escape(", ".join(found))


def default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, dict) and set(value) == {"name"}:
        value = value["name"]
    return f"`{value}`"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
