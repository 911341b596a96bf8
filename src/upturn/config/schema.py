"""The schema of a recipe: its keys, their types and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from upturn.config import components, save_interval
from upturn.errors import UserError


def named(value: object) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError("a component is a name, or a mapping that has 'name:'")
    return dict(value)


def plug_in(kind: str) -> BeforeValidator:
    """A component of a kind by name, or as a mapping of ``name`` and its fields; a name alone stays a string."""

    def check(value: object) -> Any:
        spec = named(value)
        try:
            components.check_name(kind, spec["name"])
        except UserError as error:
            raise ValueError(f"{error.what}. {error.fix}") from error
        return spec["name"] if len(spec) == 1 else spec

    return BeforeValidator(check)


def listed(value: object) -> Any:
    return value if isinstance(value, list) else [value]


def none_or_more(value: object) -> Any:
    return [] if value is None else listed(value)


PlugIn = str | dict[str, Any]
Component = Annotated[dict[str, Any], BeforeValidator(named)]
Positive = Annotated[int, Field(gt=0)]
SaveInterval = Annotated[int | str, BeforeValidator(save_interval.checked)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Online(Part):
    """Candidates drawn from the policy as it trains, and scored at once by the round's ``score:``."""

    prompts: Positive = 64  # per draw
    candidates: Positive = 4
    settings: dict[str, Any] = {}
    where: dict[str, str] = {}  # whose prompts: real samples by field
    passes: Positive = 1  # passes over a draw before the next


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
    pack_tokens: Positive | None = None  # tokens in one forward pass, whole rows without padding; None: padded rows
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Annotated[PlugIn, plug_in("schedule")] = "cosine"
    warmup: float = Field(0.02, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)  # maximum gradient norm
    optimizer: Annotated[PlugIn, plug_in("optimizer")] = "adamw"  # adamw_8bit: moments in a quarter of the memory
    ema: float = Field(0.0, ge=0, lt=1)  # decay per step of the averaged weights; 0: none
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on an accelerator that has it, fp32 elsewhere
    held_out_every: float = Field(1.0, gt=0)  # epochs between two held-out losses
    patience: Positive | None = None  # held-out losses without a gain before it stops; None: never
    kl_limit: Annotated[float | None, Field(gt=0)] = None  # nats per sample to the reference; beyond it the stage stops
    online: Online | None = None  # draw from the policy itself instead of a mixture; in rounds only
    checkpoint_epochs: tuple[Annotated[int, Field(ge=0)], ...] = ()  # weights kept and evaluated; 0: before training
    save_every: SaveInterval = "10 min"  # steps, or a time ("90 s", "10 min", "1 h"), between two states to resume from

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        if self.micro_batch is not None and self.pack_tokens is not None:
            raise ValueError("give 'micro_batch' or 'pack_tokens', not both: each limits what one forward pass reads")
        return self


class Fit(Training):
    """How a helper model (a reward model, a classifier) is trained, and on which part of the real data."""

    split: Literal["train", "held_out"] = "train"
    where: dict[str, str] = {}


class Refit(Training):
    """How a reward model is fitted again each round, on candidates that scorers compare.

    Without scorers it is fitted on the votes of annotators on the round's candidates.
    """

    score: Annotated[list[Component], BeforeValidator(listed)] = []
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
    def pretrained(self) -> bool:
        """Whether it starts from weights that were trained before, elsewhere."""
        return any(self.spec.get(place) for place in ("folder", "hub"))

    @property
    def ready(self) -> bool:
        """Whether it has weights that this run does not train."""
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
    texts: list[str] = []  # prompts used instead, in turn: DreamBooth's class
    shard: Positive = 1024  # prompts that are sampled, and saved, at a time

    @model_validator(mode="after")
    def _texts_or_where(self) -> Sampling:
        if self.texts and self.where is not None:
            raise ValueError("give one of 'texts' and 'where'")
        return self


class Mix(Part):
    policy: Annotated[PlugIn, plug_in("mixing_policy")] = "replace"
    lambda_: Annotated[float | None, Field(alias="lambda", ge=0)] = 1.0  # synthetic : real; .inf: no real data
    weights: dict[str, float] = {}
    where: dict[str, str] = {}
    real: Positive | None = None  # real samples per round; null: all
    repeat: Positive = 1  # how often each real sample occurs in the mixture: few images beside many synthetic ones
    size: Positive | None = None  # how many samples a round trains on, for a policy that subsamples


class Turn(Training):
    """One of the trainings of a round, in order; a name tells two of one objective apart."""

    name: Annotated[str | None, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = None

    @property
    def label(self) -> str:
        return self.name or str(self.objective["name"])


class Voters(Part):
    """Simulated annotators for ``upturn run --simulate``."""

    score: Component  # the scorer whose scores they prefer
    count: Positive = 5
    temperature: float = Field(1.0, ge=0)  # of the softmax over scores that a pick is drawn from; 0: always the best
    careless: float = Field(0.0, ge=0, le=1)  # share of answers that are given at random
    seed: int = Field(0, ge=0)  # other annotators


class People(Part):
    """The poll of annotators on each round's candidates; the run waits for their answers."""

    mode: Annotated[str, plug_in("vote_mode")] = "pick"
    prompts: Positive | None = None  # whose candidates are displayed; null: all
    candidates: int = Field(4, ge=2, le=8)  # at a time, for pick and rank
    overlap: Positive = 1  # annotators per task
    quota: Positive | None = None  # answers in all; null: overlap x tasks
    attributes: tuple[str, ...] = ()  # attributes that are rated; (): one number
    repeats: float = Field(0.0, ge=0, lt=1)  # share of tasks repeated, to measure the consistency of annotators
    rule: Literal["majority", "winners", "rewards"] = "majority"  # how answers of several annotators are aggregated
    least_reliability: Annotated[float | None, Field(gt=0, le=1)] = None  # below it an annotator is left out
    most_share: float = Field(0.5, gt=0, le=1)  # of the votes that count; a warning if one annotator gives more
    seconds: float = Field(10.0, gt=0)  # per answer, for the forecast of 'plan'
    database: str | None = None  # a shared Postgres database; null: votes.db in the run directory
    simulated: Voters | None = None


class Rounds(Part):
    count: int = Field(ge=0)
    sample: Sampling | None = None  # null where the policy is trained online
    people: People | None = None  # polled between sampling and scoring
    score: Annotated[list[Component], BeforeValidator(listed)] = []
    curate: Annotated[list[Component], BeforeValidator(listed)] = []
    mix: Mix = Mix()
    train: Annotated[list[Turn], BeforeValidator(listed), Field(min_length=1)]  # in sequence
    start: Literal["incumbent", "scratch"] = "incumbent"  # the weights that a round's training starts from

    @model_validator(mode="after")
    def _drawn_once(self) -> Rounds:
        labels = [turn.label for turn in self.train]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"train: '{twice[0]}' occurs twice; give each a 'name:'")
        online = [turn.label for turn in self.train if turn.online]
        if online and (self.sample is not None or len(self.train) > 1):
            raise ValueError(
                f"train: '{online[0]}' draws its own samples (online): it takes no other training and no 'sample:'"
            )
        if not online and self.sample is None:
            raise ValueError("needs 'sample:' (or 'online:' in its training)")
        if self.people is not None and self.sample is None:
            raise ValueError("people: annotators compare the samples of a round: it needs 'sample:'")
        return self


class Filter(Part):
    """Which real training data is used: scored and curated once, before the first stage."""

    score: Annotated[list[Component], BeforeValidator(listed)] = []
    curate: Annotated[list[Component], BeforeValidator(listed), Field(min_length=1)]


class ScoreWords(Part):
    """Words appended to training captions by the scores of each image, and those appended to prompts."""

    score: Annotated[list[Component], BeforeValidator(listed), Field(min_length=1)]
    levels: dict[float, str] = {}  # least reward -> words
    shares: dict[Annotated[float, Field(ge=0, lt=1)], str] = {}  # share of worse training images -> words
    ask: str | None = None  # appended to the prompts of rounds and evaluations; null: the words of the highest level

    @model_validator(mode="after")
    def _by_one_of_both(self) -> ScoreWords:
        if bool(self.levels) == bool(self.shares):
            raise ValueError("give exactly one of 'levels' (least reward) and 'shares' (of the training images)")
        return self


class Provenance(Part):
    """Whether the real data is free of synthetic samples: compared with a trusted source and with earlier runs."""

    trusted: Component | None = None
    runs: list[str] = []  # run directories
    at_most: Positive = 5000  # samples of each that are looked at, evenly spaced

    @model_validator(mode="after")
    def _against_something(self) -> Provenance:
        if self.trusted is None and not self.runs:
            raise ValueError("give 'trusted:', 'runs:' or both: the data is compared with them")
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
    metrics: Annotated[list[Component], BeforeValidator(listed)]


class Gate(Part):
    """Promote if ``metric`` is better at level ``alpha``, spent over all rounds, and every guard holds."""

    metric: str
    alpha: float = Field(0.05, gt=0, lt=1)
    guards: dict[str, dict[str, float]] = {}  # metric -> at_least / at_most (times the anchor's value), floor / ceiling
    anchor: str = "round_0"


class Grid(Part):
    """The sample grids of the report: the same prompts and noise in every round."""

    prompts: Positive = 10
    per_prompt: Positive = 2
    texts: list[str] = []
    wordings: list[list[str]] = []  # of one prompt: all drawn from the noise of the first

    @model_validator(mode="after")
    def _worded(self) -> Grid:
        for group in self.wordings:
            if len(set(group)) < max(2, len(group)):
                raise ValueError(f"wordings: {group} must name several prompts, each once")
        return self


class Keep(Part):
    weights: Annotated[str, Field(pattern=r"^(all|promoted|last [1-9]\d*)$")] = "all"  # all | promoted | last N
    checkpoints: Literal["all", "plateau", "none"] = "all"  # of those within a training, once they are measured
    disk_gb: Annotated[float | None, Field(gt=0)] = None
