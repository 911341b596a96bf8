"""YAML -> a checked Recipe; a Recipe -> its resolved YAML.

What is checked here is structure: keys, types, one of two. What the parts are, and whether they fit each other,
is checked when ``assemble`` turns their names into objects, still before anything is spent.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from upturn.errors import UserError
from upturn.types import Mode


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError("a component is a name, or a mapping that has 'name:'")
    return dict(value)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _none_or_more(value: Any) -> Any:
    return [] if value is None else _listed(value)


Component = Annotated[dict[str, Any], BeforeValidator(_named)]
Positive = Annotated[int, Field(gt=0)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Online(Part):
    """Candidates drawn from the policy as it trains, and scored at once by the round's ``score:``."""

    prompts: Positive = 64  # of one draw
    candidates: Positive = 4
    settings: dict[str, Any] = {}
    where: dict[str, str] = {}  # whose prompts: real samples by field
    passes: Positive = 1  # how often a draw is gone through before the next


class Training(Part):
    """How one stage trains. Exactly one of ``epochs`` and ``steps``; both count the mixture as it is.

    With 0 of them the weights stay as they are: a base model, or one without training, to compare with.
    """

    objective: Component = {"name": "likelihood"}
    adapter: Component = {"name": "full"}
    epochs: Annotated[int | None, Field(ge=0)] = None
    steps: Annotated[int | None, Field(ge=0)] = None
    batch_size: Positive = 128
    micro_batch: Positive | None = None  # examples in one forward pass; None: the whole batch of a process
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: float = Field(0.02, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)  # greatest gradient norm
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"  # adamw_8bit: moments in a quarter of the memory
    ema: float = Field(0.0, ge=0, lt=1)  # decay a step of the averaged weights; 0: none
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on an accelerator that has it, fp32 elsewhere
    held_out_every: float = Field(1.0, gt=0)  # epochs between two held-out losses
    patience: Positive | None = None  # held-out losses without a gain before it stops; None: never
    kl_limit: Annotated[float | None, Field(gt=0)] = None  # nats a sample to the reference; beyond it the stage stops
    online: Online | None = None  # draw from the policy itself instead of a mixture; in rounds only
    checkpoint_epochs: tuple[Annotated[int, Field(ge=0)], ...] = ()  # weights kept, measured and shown; 0: before it
    save_every: Positive = 500  # steps between two states to resume from

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        return self


class Fit(Training):
    """How a helper model (a judge) is trained, and on which part of the real data."""

    split: Literal["train", "held_out"] = "train"
    where: dict[str, str] = {}


class Refit(Training):
    """How a reward model is fitted anew each round, on candidates that judges compare: verifiers, simulated people.

    Without judges it is fitted on what people said of the round's candidates.
    """

    score: Annotated[list[Component], BeforeValidator(_listed)] = []
    prompts: Positive | None = None  # whose candidates are judged each round; null: all
    base: Literal["own", "policy"] = "own"  # what it starts from: its own config or folder, or the incumbent policy


class Model(Part):
    """A model by name with its fields; ``fit`` for those that are trained before round 0 and then stay as they are,
    ``refit`` for those that follow the policy from round to round."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    fit: Fit | None = None
    refit: Refit | None = None

    @model_validator(mode="after")
    def _fitted_once(self) -> Model:
        if self.fit is not None and self.refit is not None:
            raise ValueError("give one of 'fit' (before the rounds) and 'refit' (in each)")
        return self

    @property
    def spec(self) -> dict[str, Any]:
        return {"name": self.name, **(self.model_extra or {})}

    @property
    def ready(self) -> bool:
        """Whether it comes with weights that nothing here trains."""
        return self.fit is not None and 0 in (self.fit.steps, self.fit.epochs)


class Stage(Training):
    """A stage before the rounds: pre-training, fine-tuning."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    where: dict[str, str] = {}  # which real samples: a field and its value


class Sampling(Part):
    prompts: Positive
    candidates: Positive = 4
    settings: dict[str, Any] = {}
    where: dict[str, str] | None = None  # whose prompts: real samples by field; null: those that mix.where names
    texts: list[str] = []  # prompts of its own in their place, in turn: DreamBooth's class
    shard: Positive = 1024  # prompts that are sampled, and saved, at a time

    @model_validator(mode="after")
    def _asked_once(self) -> Sampling:
        if self.texts and self.where is not None:
            raise ValueError("give one of 'texts' and 'where'")
        return self


class Mix(Part):
    policy: Literal["replace", "accumulate", "accumulate_subsample", "fresh"] = "replace"
    lambda_: Annotated[float | None, Field(alias="lambda", ge=0)] = 1.0  # synthetic : real; .inf: no real data
    weights: dict[str, float] = {}
    where: dict[str, str] = {}
    real: Positive | None = None  # real samples a round; null: all
    repeat: Positive = 1  # how often each real sample stands in the mixture: few pictures beside many synthetic ones
    size: Positive | None = None  # accumulate_subsample: how many samples a round trains on


class Turn(Training):
    """One of the trainings of a round, in order; a name tells two of one objective apart."""

    name: Annotated[str | None, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = None

    @property
    def label(self) -> str:
        return self.name or str(self.objective["name"])


class Voters(Part):
    """Simulated people, who answer for ``upturn run --simulate`` and nobody else."""

    score: Component  # what they like: a scorer
    count: Positive = 5
    temperature: float = Field(1.0, ge=0)  # of the softmax over scores that a pick is drawn from; 0: always the best
    careless: float = Field(0.0, ge=0, le=1)  # share of answers that are given at random
    seed: int = Field(0, ge=0)  # other people


class People(Part):
    """What people are asked about each round's candidates; the run waits until they have answered."""

    mode: Mode = "pick"
    prompts: Positive | None = None  # whose candidates are shown; null: all
    candidates: int = Field(4, ge=2, le=8)  # at a time, for pick and rank
    overlap: Positive = 1  # how many people answer each task
    quota: Positive | None = None  # answers in all; null: overlap x tasks
    attributes: tuple[str, ...] = ()  # what a rating is about; (): one number
    repeats: float = Field(0.0, ge=0, lt=1)  # share of tasks asked a second time, to see whether people say the same
    rule: Literal["majority", "winners", "rewards"] = "majority"  # how answers of several people become one choice
    least_reliability: Annotated[float | None, Field(gt=0, le=1)] = None  # below it a person is set aside; null: nobody
    most_share: float = Field(0.5, gt=0, le=1)  # of the votes that count; more of one person's is warned of
    seconds: float = Field(10.0, gt=0)  # that an answer takes: what 'plan' counts with
    database: str | None = None  # a Postgres of a team's; null: votes.db in the run's folder
    simulated: Voters | None = None


class Rounds(Part):
    count: int = Field(ge=0)
    sample: Sampling | None = None  # null where the policy is trained online
    people: People | None = None  # asked between sampling and scoring
    score: Annotated[list[Component], BeforeValidator(_listed)] = []
    curate: Annotated[list[Component], BeforeValidator(_listed)] = []
    mix: Mix = Mix()
    train: Annotated[list[Turn], BeforeValidator(_listed), Field(min_length=1)]  # in order, each on what it needs
    start: Literal["incumbent", "scratch"] = "incumbent"  # the weights that a round's training starts from

    @model_validator(mode="after")
    def _drawn_once(self) -> Rounds:
        labels = [turn.label for turn in self.train]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"train: '{twice[0]}' stands twice; give each a 'name:'")
        online = [turn.label for turn in self.train if turn.online]
        if online and (self.sample is not None or len(self.train) > 1):
            raise ValueError(f"train: '{online[0]}' draws its own samples (online): it stands alone, without sample")
        if not online and self.sample is None:
            raise ValueError("needs 'sample:' (or 'online:' in its training)")
        if self.people is not None and self.sample is None:
            raise ValueError("people: they are asked about the samples of a round: it needs 'sample:'")
        return self


class Filter(Part):
    """What of the real training data is used: scored and curated once, before the first stage."""

    score: Annotated[list[Component], BeforeValidator(_listed)] = []
    curate: Annotated[list[Component], BeforeValidator(_listed), Field(min_length=1)]


class ScoreWords(Part):
    """Words behind the captions that are trained on, by what scorers say of each picture, and those to ask for."""

    score: Annotated[list[Component], BeforeValidator(_listed), Field(min_length=1)]
    levels: dict[float, str] = {}  # least reward -> words
    shares: dict[Annotated[float, Field(ge=0, lt=1)], str] = {}  # of the training pictures that are worse -> words
    ask: str | None = None  # behind the prompts of rounds and evaluations; null: the words of the highest level

    @model_validator(mode="after")
    def _by_one_of_both(self) -> ScoreWords:
        if bool(self.levels) == bool(self.shares):
            raise ValueError("give exactly one of 'levels' (least reward) and 'shares' (of the training pictures)")
        return self


class Provenance(Part):
    """Whether what the data calls real is real: a source that is known to be, runs whose samples may have got in."""

    trusted: Component | None = None
    runs: list[str] = []  # folders
    at_most: Positive = 5000  # samples of each that are looked at, evenly spaced

    @model_validator(mode="after")
    def _against_something(self) -> Provenance:
        if self.trusted is None and not self.runs:
            raise ValueError("give 'trusted:', 'runs:' or both: what is the data to be held against?")
        return self


class Evaluation(Part):
    """Samples from fixed prompts and noise, the same in every round, and what is measured on them."""

    name: str = Field("main", pattern=r"^[a-z][a-z0-9_]*$")
    prompts: Positive = 500
    candidates: Positive = 1
    settings: dict[str, Any] = {}
    where: dict[str, str] = {}  # whose prompts: held-out samples by field
    captions: Component | None = None  # how the prompts are worded; null: as in training
    checkpoints: bool = True  # measured at 'checkpoint_epochs', too
    metrics: Annotated[list[Component], BeforeValidator(_listed)]


class Gate(Part):
    """Promote if ``metric`` is better at level ``alpha``, spent over all rounds, and every guard holds."""

    metric: str
    alpha: float = Field(0.05, gt=0, lt=1)
    guards: dict[str, dict[str, float]] = {}  # metric -> at_least / at_most (times the anchor's value), floor / ceiling
    anchor: str = "round_0"


class Grid(Part):
    """The pictures of the report: the same prompts and noise in every round."""

    prompts: Positive = 10
    per_prompt: Positive = 2
    texts: list[str] = []
    wordings: list[list[str]] = []  # of one prompt: all drawn from the noise of the first

    @model_validator(mode="after")
    def _worded(self) -> Grid:
        for group in self.wordings:
            if len(set(group)) < max(2, len(group)):
                raise ValueError(f"wordings: {group} has to name several, each once")
        return self


class Keep(Part):
    weights: Annotated[str, Field(pattern=r"^(all|promoted|last [1-9]\d*)$")] = "all"  # all | promoted | last N
    checkpoints: Literal["all", "plateau", "none"] = "all"  # of those within a training, once they are measured
    disk_gb: Annotated[float | None, Field(gt=0)] = None


def _has_weights(model: Model) -> bool:
    return model.fit is None and model.refit is None and any(model.spec.get(at) for at in ("folder", "hub"))


class Recipe(Part):
    """All that a run was asked to do."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    data: Component
    captions: Annotated[list[Component], BeforeValidator(_none_or_more)] = []  # several: a comparison, for a study
    provenance: Provenance | None = None
    filter: Filter | None = None
    score_words: ScoreWords | None = None
    models: dict[str, Annotated[Model, BeforeValidator(_named)]]
    features: Component = {"name": "pixels"}
    stages: list[Stage] = Field(min_length=1)
    rounds: Rounds | None = None
    evaluate: Annotated[list[Evaluation], BeforeValidator(_listed), Field(min_length=1)]
    gate: Gate | None = None
    grid: Grid = Grid()
    keep: Keep = Keep()
    usd_per_hour: float = Field(0.0, ge=0)
    threads: Positive | None = None  # of one process; part of the promise of the same bytes
    catalog: str | None = None  # a SQLAlchemy URL; None: SQLite in the run's folder
    tracker: Literal["tensorboard", "mlflow", "wandb"] | None = None

    @field_validator("models")
    @classmethod
    def _as_they_come(cls, models: dict[str, Model]) -> dict[str, Model]:
        """A helper with weights of its own, of which nothing else is said, is used as it is."""
        untouched = {"fit": Fit.model_validate({"steps": 0})}
        return {
            name: model.model_copy(update=untouched) if name != "policy" and _has_weights(model) else model
            for name, model in models.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if "policy" not in self.models:
            raise ValueError("models: needs 'policy', the model that is trained")
        if self.models["policy"].fit is not None or self.models["policy"].refit is not None:
            raise ValueError("models.policy: has 'fit:' or 'refit:', but 'stages:' and 'rounds:' train the policy")
        for what, names in (("stages", [s.name for s in self.stages]), ("evaluate", [e.name for e in self.evaluate])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name '{twice[0]}' stands twice")
        known = self.metric_names()
        if self.gate is not None:
            for name in (self.gate.metric, *self.gate.guards):
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean '{near[0]}'?" if near else ""
                    raise ValueError(f"gate: '{name}' is not among the metrics of evaluate: {', '.join(known)}{hint}")
        return self

    def metric_names(self) -> list[str]:
        """As they stand in metrics.json: the first evaluation's by name, the others' as evaluation/name."""
        names = []
        for position, evaluation in enumerate(self.evaluate):
            for metric in evaluation.metrics:
                shown = metric.get("as", metric["name"])
                names.append(str(shown) if position == 0 else f"{evaluation.name}/{shown}")
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
            f"not valid YAML: {getattr(error, 'problem', error)}", where=at, fix="Mend the line; look at indentation."
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
    flat_a, flat_b = (_flatten(r.model_dump(mode="json", by_alias=True)) for r in (a, b))
    return [
        f"{key}: {flat_a.get(key, 'nothing')} -> {flat_b.get(key, 'nothing')}"
        for key in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(key) != flat_b.get(key)
    ]


def line_of(text: str, key: str) -> int | None:
    """The line on which a key such as ``rounds.curate.0`` stands, or its nearest parent's."""
    return _nearest(_lines(yaml.compose(text, Loader=yaml.SafeLoader)), key.split("."))


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
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
            raise UserError(f"'{part}' is the word '{place}' there", where=f"--set {key}", fix="Set the whole of it.")
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
            f"'{part}' is no place in a list of {len(place)}", where=f"--set {key}",
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
        found = _models_in(by_name[part].annotation) if part in by_name else []
        model = found[0] if found else model
    return [str(item.alias or name) for name, item in model.model_fields.items()]


def _models_in(hint: Any) -> list[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [found for inner in getattr(hint, "__args__", ()) for found in _models_in(inner)]
