"""YAML -> a checked Recipe; a Recipe -> its resolved YAML.

Checks structure: keys, types, exclusive alternatives. Whether components exist and fit each other is checked when
``assemble`` builds them, before the first step.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from upturn.config.schema import (
    Component,
    Evaluation,
    Filter,
    Fit,
    Gate,
    Grid,
    Keep,
    Model,
    Part,
    Positive,
    Provenance,
    Rounds,
    ScoreWords,
    Stage,
    named,
    none_or_more,
)
from upturn.errors import UserError

BASE = "base"  # the stage that stands for a pre-trained policy as it came: measured, not trained


def _has_weights(model: Model) -> bool:
    return model.fit is None and model.refit is None and model.pretrained


class Recipe(Part):
    """Everything that a run does: data, models, stages, rounds, evaluation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    data: Component
    captions: Annotated[list[Component], BeforeValidator(none_or_more)] = Field([])  # several: a comparison
    provenance: Provenance | None = None
    filter: Filter | None = None
    score_words: ScoreWords | None = None
    models: dict[str, Annotated[Model, BeforeValidator(named)]]
    features: Component = Field({"name": "pixels"})
    stages: Annotated[list[Stage], BeforeValidator(none_or_more)] = Field([])  # none: round 0 is the model as it came
    rounds: Rounds | None = None
    evaluate: Annotated[list[Evaluation], BeforeValidator(none_or_more)] = Field([])  # none: losses alone, and no gate
    gate: Gate | None = None
    grid: Grid = Grid()
    keep: Keep = Keep()
    usd_per_hour: float = Field(0.0, ge=0)
    threads: Positive | None = None  # of one process; part of the guarantee of the same bytes
    catalog: str | None = None  # a SQLAlchemy URL; None: SQLite in the run's folder
    tracker: Literal["tensorboard", "mlflow", "wandb"] | None = None

    @field_validator("models")
    @classmethod
    def _as_they_come(cls, models: dict[str, Model]) -> dict[str, Model]:
        """A helper model with weights and without 'fit' or 'refit' is used unchanged."""
        untouched = {"fit": Fit.model_validate({"steps": 0})}
        return {
            name: model.model_copy(update=untouched) if name != "policy" and _has_weights(model) else model
            for name, model in models.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if "policy" not in self.models:
            return self._without_policy()
        if self.models["policy"].fit is not None or self.models["policy"].refit is not None:
            raise ValueError("models.policy: has 'fit:' or 'refit:', but 'stages:' and 'rounds:' train the policy")
        for what, names in (("stages", [s.name for s in self.stages]), ("evaluate", [e.name for e in self.evaluate])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name '{twice[0]}' occurs twice")
        self._check_what_there_is()
        known = self.metric_names()
        if self.gate is not None:
            for name in (self.gate.metric, *self.gate.guards):
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean '{near[0]}'?" if near else ""
                    raise ValueError(f"gate: '{name}' is not among the metrics of evaluate: {', '.join(known)}{hint}")
        return self

    def _without_policy(self) -> Recipe:
        """A recipe that trains a reward model or a classifier, and no generative model: data, models, and nothing of
        what samples."""
        if not any(model.fit is not None and not model.ready for model in self.models.values()):
            raise ValueError(
                "models: needs 'policy', the model that is trained; or, of a reward model or classifier, say how it is "
                "trained: 'fit: {epochs: 1}'"
            )
        wrong = [name for name in ("stages", "rounds", "evaluate", "gate", "captions", "score_words", "filter")
                 if getattr(self, name)]
        if wrong:
            raise ValueError(f"{wrong[0]}: is of a policy, and 'models:' has none")
        return self

    @property
    def main_model(self) -> str:
        """The model that the recipe is about: the policy, or without one the last that is trained."""
        trained = [name for name, model in self.models.items() if model.fit is not None and not model.ready]
        return "policy" if "policy" in self.models else trained[-1]

    def _check_what_there_is(self) -> None:
        """Whether a recipe without stages or evaluations still says what is to be done."""
        policy = self.models["policy"]
        if not self.stages and not policy.pretrained:
            raise ValueError(
                "stages: there are none, and the policy has no weights yet; add a stage that trains it, or name its "
                "weights: 'models: {policy: {folder: …}}' or 'hub:'"
            )
        if not self.evaluate and self.rounds is not None:
            raise ValueError("evaluate: is missing, and each round is compared with the one before; name the metrics")
        if not self.evaluate and self.gate is not None:
            raise ValueError("gate: decides by a metric, and 'evaluate:' is missing")
        if not self.evaluate and not self.stages:
            raise ValueError("there is nothing to do: give 'stages:', 'rounds:' or 'evaluate:'")
        if self._comes_first and any(stage.name == BASE for stage in self.stages):
            raise ValueError(f"stages: '{BASE}' is the name of the model as it came; give the stage another name")

    @property
    def _comes_first(self) -> bool:
        """Whether the model as it came is a unit of its own: it has weights, and no stage of 0 steps stands for it."""
        if "policy" not in self.models or not self.models["policy"].pretrained or (self.stages and not self.evaluate):
            return False
        return not self.stages or 0 not in (self.stages[0].steps, self.stages[0].epochs)

    @property
    def all_stages(self) -> list[Stage]:
        """What makes round 0, in order: the model as it came, where it has weights, then the stages."""
        return [Stage.model_validate({"name": BASE, "steps": 0}), *self.stages] if self._comes_first else self.stages

    def metric_names(self) -> list[str]:
        """As they are in metrics.json: the first evaluation's by name, the others' as evaluation/name."""
        names = []
        for position, evaluation in enumerate(self.evaluate):
            for metric in evaluation.metrics:
                label = metric.get("as", metric["name"])
                names.append(str(label) if position == 0 else f"{evaluation.name}/{label}")
        return names


def load(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe; ``settings`` are ``a.b=value`` (values as YAML, lists by position: ``stages.0.epochs=3``).

    Raises UserError naming file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = f"There: {', '.join(sorted(near))}." if near else "'upturn new' writes one."
        raise UserError("there is no such recipe", where=str(path), fix=hint) from None
    except IsADirectoryError:
        raise UserError("this is a folder, not a recipe", where=str(path), fix="Name a YAML file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start})", where=str(path), fix="Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return parse(text, str(path), settings)


def parse(text: str, where: str, settings: Sequence[str] = ()) -> Recipe:
    """The same from text."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{where}:{mark.line + 1}" if mark else where
        raise UserError(
            f"not valid YAML: {getattr(error, 'problem', error)}", where=at, fix="Fix the line; look at indentation."
        ) from None
    if not isinstance(tree, dict):
        raise UserError(
            f"a recipe is a mapping of keys, found {type(tree).__name__}", where=where,
            fix="'upturn new' writes one to start from.",
        )
    for setting in settings:
        _override(tree, setting)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = _lines(yaml.compose(text, Loader=yaml.SafeLoader))  # read again, for line numbers, only when needed
        raise _explain(error, where, lines) from None


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe: every default written out; parses to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def renamed(recipe: Recipe, name: str) -> Recipe:
    """The same under another name; the name is checked as in a file."""
    return parse(to_yaml(recipe), "--name", [f"name={name}"])


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The keys in which two recipes differ, as ``key: a -> b``."""
    return [f"{key}: {old} -> {new}" for key, (old, new) in changed_keys(a, b).items()]


def changed_keys(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Key -> its values in two recipes that differ there; "nothing" where one has no such key."""
    flat_a, flat_b = (_flatten(r.model_dump(mode="json", by_alias=True)) for r in (a, b))
    return {
        key: (flat_a.get(key, "nothing"), flat_b.get(key, "nothing"))
        for key in sorted(flat_a.keys() | flat_b.keys()) if flat_a.get(key) != flat_b.get(key)
    }


def line_of(text: str, key: str) -> int | None:
    """The line on which a key such as ``rounds.curate.0`` is, or its nearest parent's."""
    return _nearest(_lines(yaml.compose(text, Loader=yaml.SafeLoader)), key.split("."))


def _flatten(tree: object, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        items = [(str(k), v) for k, v in tree.items()]
    elif isinstance(tree, list):
        items = [(str(k), v) for k, v in enumerate(tree)]
    else:
        return {prefix: tree}
    return {key: value for k, v in items for key, value in _flatten(v, f"{prefix}.{k}" if prefix else k).items()}


def _lines(node: yaml.Node | None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """(path of keys) -> line, from 1."""
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found[here] = key.start_mark.line + 1
            found |= _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            here = (*path, str(position))
            found[here] = value.start_mark.line + 1
            found |= _lines(value, here)
    return found


def _nearest(lines: Mapping[tuple[str, ...], int], path: Sequence[str]) -> int | None:
    for end in range(len(path), 0, -1):
        if tuple(path[:end]) in lines:
            return lines[tuple(path[:end])]
    return None


def _override(tree: dict[str, Any], setting: str) -> None:
    key, equals, raw = setting.partition("=")
    if not equals or not key:
        raise UserError(f"'{setting}' is not a setting", where="--set", fix="Write --set a.b=value.")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise UserError(f"'{raw}' is not a YAML value", where=f"--set {key}", fix="Quote it.") from None
    *parents, last = key.split(".")
    place: Any = tree
    for part in parents:
        if isinstance(place, list):
            place = place[_position(place, part, key)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        if isinstance(place, str):
            raise UserError(f"'{part}' is the string '{place}' there", where=f"--set {key}", fix="Set the whole of it.")
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UserError(f"there is nothing to set '{last}' in", where=f"--set {key}")


def _position(place: list[Any], part: str, key: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else item for item in place]
    if part in names:
        return names.index(part)
    if not part.isdigit() or int(part) >= len(place):
        raise UserError(
            f"'{part}' is not an item of a list of {len(place)}", where=f"--set {key}",
            fix=f"Use a number from 0 or one of: {', '.join(str(n) for n in names)}.",
        )
    return int(part)


def _explain(error: ValidationError, where: str, lines: Mapping[tuple[str, ...], int]) -> UserError:
    """One message, for the first thing that is wrong."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    line = _nearest(lines, path)
    at = f"{where}:{line}" if line else where
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(path[:-1]))
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        return UserError(f"unknown key '{key}'", where=at, fix=f"{hint}Known there: {', '.join(known)}.")
    if first["type"] == "missing":
        return UserError(f"'{key}' is missing", where=at, fix=f"Add '{path[-1]}: …'.")
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not key or first["type"] == "value_error":
        return UserError(f"{key}: {message}" if key else message, where=at)
    return UserError(f"'{key}' is {first['input']!r}: {message}", where=at)


def _fields_at(path: Sequence[str]) -> list[str]:
    """The keys that the recipe knows at a path."""
    model: type[BaseModel] = Recipe
    for part in path:
        if part.isdigit():
            continue
        by_name = {item.alias or name: item for name, item in model.model_fields.items()}
        found = models_in(by_name[part].annotation) if part in by_name else []
        model = found[0] if found else model
    return [str(item.alias or name) for name, item in model.model_fields.items()]


def models_in(hint: object) -> list[type[BaseModel]]:
    """The classes of the schema in the type of a key."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [found for inner in getattr(hint, "__args__", ()) for found in models_in(inner)]
