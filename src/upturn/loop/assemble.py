"""A Recipe -> live objects that fit each other; hands plug-ins their data and models; the only model loader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop import guides
from upturn.loop.checks import image_sizes
from upturn.loop.checks.captions import caption_of, reads_text, refuse_captions
from upturn.loop.checks.curation import AMONG_CANDIDATES, BY_REWARD, PICKED, refuse_choices
from upturn.loop.gate import guard
from upturn.protocols import Adapter, Caption, Curator, Features, Metric, Objective, Policy, Scorer, Source, Trainable

_WEIGHTS = frozenset({"config", "folder", "hub", "tokenizer"})  # fields that say where a model's weights come from


@dataclass(frozen=True)
class Evaluator:
    """One evaluation of the recipe: settings checked, metrics live, by the names that metrics.json gives them."""

    name: str
    prompts: int
    candidates: int
    settings: Any
    metrics: Mapping[str, Metric]
    captions: Caption | None = None  # how its prompts are worded; None: as in training
    checkpoints: bool = True  # whether checkpoints within a training are measured, too
    where: Mapping[str, str] = field(default_factory=dict)  # whose prompts; {}: all of the held-out part


@dataclass(frozen=True)
class Filtering:
    """What the real training part goes through before the first stage."""

    scorers: Mapping[str, tuple[Scorer, float]]
    curators: Mapping[str, Curator]


@dataclass(frozen=True)
class Spoken:
    """Score words: scorers, the least reward or share of each word, and what is asked for."""

    scorers: Mapping[str, tuple[Scorer, float]]
    levels: Mapping[float, str]
    shares: Mapping[float, str]
    ask: str


@dataclass(frozen=True)
class Assembly:
    """All the parts of a recipe; nothing is loaded or trained yet."""

    recipe: Recipe
    source: Source
    features: Features
    scorers: Mapping[str, tuple[Scorer, float]]  # by name, with the weight of each in the reward
    curators: Mapping[str, Curator]
    evaluators: tuple[Evaluator, ...]
    sampling: Any  # the policy's settings in a round; None without rounds
    judges: Mapping[str, Mapping[str, tuple[Scorer, float]]]  # of each model that is fitted anew each round
    captions: Caption | None = None  # None: the prompts are worded as the source gives them
    filtering: Filtering | None = None
    score_words: Spoken | None = None
    taste: Mapping[str, tuple[Scorer, float]] = field(default_factory=dict)  # of the recipe's simulated people

    def model(self, name: str, policy: Path | None = None) -> Trainable:
        """A fresh model without weights; one that starts from the policy's is given their folder to be built."""
        made: Trainable = _fresh(self.recipe, name, policy)
        return made

    def objective(self, spec: Training) -> Objective:
        made: Objective = components.make("objective", spec.objective, "objective")
        return made

    def adapter(self, spec: Training) -> Adapter:
        made: Adapter = components.make("adapter", spec.adapter, "adapter")
        return made


def assemble(recipe: Recipe) -> Assembly:
    """Every part made and every pairing checked.

    Raises UserError that names both where two parts do not fit.
    """
    source: Source = components.make("source", recipe.data, "data")
    policy: Policy = components.make("model", recipe.models["policy"].spec, "models.policy")
    for name, model in recipe.models.items():
        made = _fresh(recipe, name)
        if name != "policy" and model.fit is None and model.refit is None:
            raise UserError(f"models.{name} has no 'fit:'", fix="Say how: 'fit: {split: train, epochs: 20}'.")
        for word, spec in (("fit", model.fit), ("refit", model.refit)):
            if spec is not None and not model.ready:
                _check_objective(spec, made, recipe.models[name].name, f"models.{name}.{word}")
        if model.refit is not None and not model.refit.score and not (recipe.rounds and recipe.rounds.people):
            raise UserError("nobody compares the candidates that it is fitted on", where=f"models.{name}.refit.score",
                            fix="Name scorers that do, or write 'people:' into the rounds.")
        if model.refit is not None and (recipe.rounds is None or recipe.rounds.sample is None):
            raise UserError("is fitted on the candidates of a round, and no round samples any",
                            where=f"models.{name}.refit", fix="Add 'sample:' to the rounds, or use 'fit:'.")
    if not hasattr(policy, "sample"):
        raise UserError(
            f"models.policy is '{recipe.models['policy'].name}', which cannot sample",
            fix="The policy must be a generative model.",
        )
    if source.kind != policy.kind:
        raise UserError(
            f"data '{recipe.data['name']}' gives {source.kind}, but the model '{recipe.models['policy'].name}' "
            f"makes {policy.kind}", where="data, models.policy", fix="Pair a source and a model of one kind.",
        )
    for stage in recipe.stages:
        _check_objective(stage, policy, recipe.models["policy"].name, f"stages.{stage.name}")
        made = components.make("objective", stage.objective, f"stages.{stage.name}.objective")
        if made.example == "group" and not getattr(source, "compares", False):
            raise UserError(
                f"the objective '{stage.objective['name']}' learns from comparisons, and the data "
                f"'{recipe.data['name']}' has none", where=f"stages.{stage.name}.objective",
                fix="Use the source 'preferences', or put the objective into the rounds.",
            )
        if stage.online is not None:
            raise UserError(
                "a stage before the rounds trains on real data", where=f"stages.{stage.name}.online",
                fix="Put 'online:' into the training of the rounds.",
            )
    parts = Assembly(
        recipe=recipe,
        source=source,
        features=components.make("feature", recipe.features, "features"),
        scorers=_scorers(recipe.rounds.score if recipe.rounds else [], "rounds.score"),
        curators=_curators(recipe.rounds.curate if recipe.rounds else [], "rounds.curate"),
        evaluators=tuple(_evaluator(recipe, i, policy) for i in range(len(recipe.evaluate))),
        sampling=_round_sampling(policy, recipe),
        judges={
            name: _scorers(model.refit.score, f"models.{name}.refit.score")
            for name, model in recipe.models.items() if model.refit is not None
        },
        captions=caption_of(recipe, source, policy),
        filtering=_filtering(recipe),
        score_words=_score_words(recipe, source, policy),
        taste=_taste(recipe),
    )
    _check_models_named(recipe, parts)
    _check_sizes(recipe, parts, policy)
    _check_gate(recipe, parts)
    if recipe.rounds is not None:
        _check_rounds(recipe, policy)
    return parts


def _fresh(recipe: Recipe, name: str, policy: Path | None = None) -> Any:
    spec = dict(recipe.models[name].spec)
    refit = recipe.models[name].refit
    if refit is not None and refit.base == "policy":
        spec = {key: value for key, value in spec.items() if key not in _WEIGHTS} | {"folder": str(policy)}
    return components.make("model", spec, f"models.{name}")


def _scorers(specs: Sequence[Mapping[str, Any]], where: str) -> dict[str, tuple[Scorer, float]]:
    found: dict[str, tuple[Scorer, float]] = {}
    for i, spec in enumerate(specs):
        at, fields = f"{where}.{i}", dict(spec)
        weight = components.typed(float, fields.pop("weight", 1.0), f"{at}.weight")
        name = str(fields.pop("as", fields["name"]))
        if name in found:
            raise UserError(f"two scorers are called '{name}'", where=at, fix="Give one an 'as: another_name'.")
        found[name] = (components.make("scorer", fields, at), weight)
    return found


def _taste(recipe: Recipe) -> dict[str, tuple[Scorer, float]]:
    people = recipe.rounds.people if recipe.rounds else None
    if people is None or people.simulated is None:
        return {}
    if people.simulated.count < people.overlap:
        raise UserError(
            f"{people.overlap} people are to answer each task, and {people.simulated.count} are simulated",
            where="rounds.people.simulated.count", fix="Raise it, or lower 'overlap:'.",
        )
    return _scorers([people.simulated.score], "rounds.people.simulated.score")


def _curators(specs: Sequence[Mapping[str, Any]], where: str) -> dict[str, Curator]:
    found: dict[str, Curator] = {}
    for i, spec in enumerate(specs):
        fields = dict(spec)
        name = str(fields.pop("as", fields["name"]))
        if name in found:
            raise UserError(f"two curators are called '{name}'", where=f"{where}.{i}", fix="Give one an 'as:'.")
        found[name] = components.make("curator", fields, f"{where}.{i}")
    return found


def _filtering(recipe: Recipe) -> Filtering | None:
    if recipe.filter is None:
        return None
    names = [str(spec["name"]) for spec in recipe.filter.curate]
    if PICKED in names:
        raise UserError("nobody is asked about real data", where="filter.curate", fix=f"Remove '{PICKED}'.")
    alone = [name for name in names if name in AMONG_CANDIDATES]
    if alone:
        raise UserError(
            f"the curator '{alone[0]}' chooses among candidates of one prompt, and real data has one of each",
            where="filter.curate", fix="Use 'threshold', 'top_fraction' or 'deduplicate'.",
        )
    rewarded = [name for name in names if name in BY_REWARD]
    if rewarded and not recipe.filter.score:
        raise UserError(
            f"the curator '{rewarded[0]}' chooses by reward, but nothing scores", where="filter.curate",
            fix="Add 'score:' to the filter.",
        )
    made = Filtering(_scorers(recipe.filter.score, "filter.score"), _curators(recipe.filter.curate, "filter.curate"))
    _asked_before_training(recipe, made.scorers, "filter.score")
    return made


def _score_words(recipe: Recipe, source: Source, policy: Policy) -> Spoken | None:
    asked = recipe.score_words
    if asked is None:
        return None
    refuse_captions(recipe, source, policy, "score_words")
    scorers = _scorers(asked.score, "score_words.score")
    _asked_before_training(recipe, scorers, "score_words.score")
    highest = (asked.levels or asked.shares)[max(asked.levels or asked.shares)]
    return Spoken(scorers, asked.levels, asked.shares, highest if asked.ask is None else asked.ask)


def _asked_before_training(recipe: Recipe, scorers: Mapping[str, tuple[Scorer, float]], where: str) -> None:
    """Raises UserError where real data is to be scored by a model that is trained on it afterwards."""
    for name, (scorer, _) in scorers.items():
        for wanted in models_named(scorer):
            if wanted == "policy" or (wanted in recipe.models and recipe.models[wanted].refit is not None):
                raise UserError(
                    f"'{name}' asks the model '{wanted}', which is first trained after the data was scored",
                    where=where, fix="Use a model with 'fit:'.",
                )


def models_named(part: Any) -> list[str]:
    """The models of the recipe that a plug-in names in its fields ``model`` and ``models``."""
    return [name for name in (getattr(part, "model", None), *(getattr(part, "models", None) or ()))
            if isinstance(name, str)]


def reward_bounds(scorers: Mapping[str, tuple[Scorer, float]]) -> tuple[float, float]:
    """The least and the greatest reward, the weighted sum of what scorers state; infinite where one states no end."""
    low = high = 0.0
    for scorer, weight in scorers.values():
        ends: tuple[float, float] = getattr(scorer, "bounds", (-math.inf, math.inf))
        low, high = low + weight * ends[weight < 0], high + weight * ends[weight >= 0]
    return low, high


def _evaluator(recipe: Recipe, position: int, policy: Policy) -> Evaluator:
    asked = recipe.evaluate[position]
    at = f"evaluate.{position}"
    metrics: dict[str, Metric] = {}
    for i, spec in enumerate(asked.metrics):
        fields = dict(spec)
        name = str(fields.pop("as", fields["name"]))
        metric: Metric = components.make("metric", fields, f"{at}.metrics.{i}")
        if policy.kind not in metric.kinds:
            raise UserError(
                f"the metric '{fields['name']}' measures {' and '.join(sorted(metric.kinds))}, "
                f"but the model '{recipe.models['policy'].name}' makes {policy.kind}",
                where=f"{at}.metrics.{i}", fix="Remove it.",
            )
        shown = name if position == 0 else f"{asked.name}/{name}"
        if shown in metrics:
            raise UserError(f"the metric '{name}' stands twice", where=f"{at}.metrics.{i}", fix="Give one an 'as:'.")
        metrics[shown] = metric
    settings = _sampling(policy, asked.settings, f"{at}.settings")
    guides.check(recipe, settings, f"{at}.settings", measures=True)
    captions = None if asked.captions is None else components.make("caption", asked.captions, f"{at}.captions")
    return Evaluator(
        asked.name, asked.prompts, asked.candidates, settings, metrics, captions, asked.checkpoints, asked.where
    )


def _round_sampling(policy: Policy, recipe: Recipe) -> Any:
    if recipe.rounds is None:
        return None
    if recipe.rounds.sample is not None:
        made = _sampling(policy, recipe.rounds.sample.settings, "rounds.sample.settings", keyed=False)
        guides.check(recipe, made, "rounds.sample.settings", measures=False)
        return made
    online = recipe.rounds.train[0].online
    assert online is not None
    made = _sampling(policy, online.settings, "rounds.train.online.settings")
    guides.check(recipe, made, "rounds.train.online.settings", measures=False)
    objective: Objective = components.make("objective", recipe.rounds.train[0].objective, "rounds.train.objective")
    guide: str = getattr(made, "guide", "")
    if objective.example == "rollout" and guide:
        raise UserError(
            f"the objective '{recipe.rounds.train[0].objective['name']}' replays what this model itself did: no "
            f"'{guide}' may have led it", where="rounds.train.online.settings.guide", fix="Remove 'guide:'.",
        )
    return made


def _sampling(policy: Policy, settings: Mapping[str, Any], where: str, keyed: bool = True) -> Any:
    """Settings of a model's sampling; ``keyed``: samples must be functions of their keys, whatever draws them."""
    made = components.checked(policy.Sampling, settings, where, "sampling")
    if getattr(made, "keyed", True):
        return made
    if keyed:
        raise UserError(
            f"the sampler '{made.sampler}' does not reproduce a sample from its key, and here it must",
            where=f"{where}.sampler",
            fix="Leave it out: it is for 'rounds.sample'. Evaluations compare on equal noise, online training replays.",
        )
    made.require(where)
    return made


def _check_objective(spec: Training, model: Trainable, name: str, where: str) -> None:
    objective: Objective = components.make("objective", spec.objective, f"{where}.objective")
    adapter = components.make("adapter", spec.adapter, f"{where}.adapter")
    odd = adapter.refuses(model) if hasattr(adapter, "refuses") else ""
    if odd:
        raise UserError(odd, where=f"{where}.adapter", fix="Use another adapter, or another model.")
    if objective.example == "rollout":
        _check_rollout(spec, objective, model, name, where)
        return
    if model.likelihood not in objective.accepts:
        raise UserError(
            f"the objective '{spec.objective['name']}' needs log-probs that are "
            f"{' or '.join(sorted(objective.accepts))}, those of '{name}' are {model.likelihood}",
            where=f"{where}.objective", fix="Choose another objective for this model.",
        )


def _check_rollout(spec: Training, objective: Objective, model: Any, name: str, where: str) -> None:
    """What a policy acts has log-probs of its own, whatever its samples have: tokens, or denoising steps."""
    if spec.online is None:
        raise UserError(
            f"the objective '{spec.objective['name']}' learns from what the policy does as it trains",
            where=f"{where}.online", fix="Add 'online: {prompts: 64, candidates: 4}', in the training of the rounds.",
        )
    if not hasattr(model, "act"):
        raise UserError(f"'{name}' cannot replay what it did", where=f"{where}.objective", fix="Use another objective.")
    if "values" in objective.inputs and not hasattr(model, "add_value_head"):
        raise UserError(
            f"the objective '{spec.objective['name']}' needs a value head, which '{name}' cannot have",
            where=f"{where}.objective", fix="Use rloo, grpo or mdloo: their baseline is the group.",
        )


def _check_models_named(recipe: Recipe, parts: Assembly) -> None:
    """Plug-ins that name a model in their field ``model`` must name one of the recipe's."""
    named: list[tuple[str, Any]] = [("features", parts.features)]
    named += [(f"rounds.score: {name}", scorer) for name, (scorer, _) in parts.scorers.items()]
    named += [(f"rounds.people.simulated: {name}", scorer) for name, (scorer, _) in parts.taste.items()]
    if parts.filtering is not None:
        named += [(f"filter.score: {name}", scorer) for name, (scorer, _) in parts.filtering.scorers.items()]
    if parts.score_words is not None:
        named += [(f"score_words.score: {name}", scorer) for name, (scorer, _) in parts.score_words.scorers.items()]
    named += [(f"evaluate: {name}", m) for e in parts.evaluators for name, m in e.metrics.items()]
    for where, part in named:
        for wanted in models_named(part):
            if wanted not in recipe.models:
                raise UserError(
                    f"asks for the model '{wanted}', which 'models:' does not have", where=where,
                    fix=f"There: {', '.join(recipe.models)}. Add '{wanted}: {{name: classifier, fit: {{…}}}}'.",
                )


def _check_sizes(recipe: Recipe, parts: Assembly, policy: Policy) -> None:
    """Raises UserError where pictures have several sizes and a part takes those of one."""
    settings = [(f"evaluate.{i}.settings", e.settings) for i, e in enumerate(parts.evaluators)]
    why = image_sizes.several(parts.source, str(recipe.data["name"]), [*settings, ("rounds", parts.sampling)])
    if not why:
        return
    live: list[image_sizes.Named] = [
        (f"models.{name}", model.name, policy if name == "policy" else _fresh(recipe, name))
        for name, model in recipe.models.items()
    ]
    live += [("rounds.score", name, scorer) for name, (scorer, _) in parts.scorers.items()]
    live += [("rounds.curate", name, curator) for name, curator in parts.curators.items()]
    if parts.filtering is not None:
        live += [("filter.score", name, scorer) for name, (scorer, _) in parts.filtering.scorers.items()]
        live += [("filter.curate", name, curator) for name, curator in parts.filtering.curators.items()]
    if parts.score_words is not None:
        live += [("score_words.score", name, scorer) for name, (scorer, _) in parts.score_words.scorers.items()]
    if recipe.provenance is not None:  # it compares pictures as a whole, by the recipe's features or by their bytes
        live.append(("provenance", "provenance", None))
    metrics = [("evaluate", name, metric) for e in parts.evaluators for name, metric in e.metrics.items()]
    image_sizes.refuse(why, live, metrics, ("features", str(recipe.features["name"]), parts.features))
    trainings = [*recipe.stages, *(recipe.rounds.train if recipe.rounds else ())]
    image_sizes.refuse_unrelated(why, [("objective", str(t.objective["name"]), parts.objective(t)) for t in trainings])


def _check_gate(recipe: Recipe, parts: Assembly) -> None:
    if recipe.gate is None:
        return
    metrics = {name: metric for evaluator in parts.evaluators for name, metric in evaluator.metrics.items()}
    if metrics[recipe.gate.metric].better == "neither":
        raise UserError(
            f"the metric '{recipe.gate.metric}' describes: it is neither better higher nor lower", where="gate.metric",
            fix=f"One of: {', '.join(name for name, m in metrics.items() if m.better != 'neither')}.",
        )
    for name, limits in recipe.gate.guards.items():
        guard(name, limits)


def _check_rounds(recipe: Recipe, policy: Policy) -> None:
    rounds = recipe.rounds
    assert rounds is not None
    for i, turn in enumerate(rounds.train):
        _check_objective(turn, policy, recipe.models["policy"].name, f"rounds.train.{i}")
        if turn.online is not None and not rounds.score:
            raise UserError("nothing says what is better", where=f"rounds.train.{i}.online", fix="Add 'score:'.")
        if turn.online is not None:
            _sampling(policy, turn.online.settings, f"rounds.train.{i}.online.settings")
    if rounds.sample is not None:
        fitted = any(model.refit is not None and not model.refit.score for model in recipe.models.values())
        refuse_choices(rounds, rounds.sample.candidates, fitted)
        if rounds.sample.texts and not (policy.kind == "text" or reads_text(policy)):
            raise UserError(
                f"the model '{recipe.models['policy'].name}' reads no text", where="rounds.sample.texts",
                fix="Remove it: its prompts are those of the data.",
            )
    if rounds.mix.lambda_ == 0 and rounds.mix.policy != "accumulate":
        raise UserError("λ = 0 leaves out all that the round makes", where="rounds.mix.lambda", fix="Raise it.")


def load_model(parts: Assembly, name: str, folder: Path, model_id: str) -> Trainable:
    """A model of the recipe with the weights of ``folder``."""
    model = parts.model(name)
    try:
        model.load(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"the weights of '{name}' cannot be read: {str(error).splitlines()[0]}", where=str(folder),
            fix="If the folder is damaged, remove its stage record beside it and run again.",
        ) from error
    model.id = model_id
    model.module.eval()
    return model
