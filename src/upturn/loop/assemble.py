"""A recipe -> live objects that fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop import guides
from upturn.loop.assembly import (
    Assembly,
    Evaluator,
    Filtering,
    Spoken,
    new_model,
    sampling_settings,
)
from upturn.loop.checks.caption_strategy import caption_of, refuse_captions
from upturn.loop.checks.curator_chain import curator_classes
from upturn.loop.checks.pairings import (
    check_gate,
    check_mix,
    check_models_named,
    check_objective,
    check_rounds,
    check_sizes,
    refuse_models_trained_later,
)
from upturn.protocols import Curator, Metric, MixingPolicy, Objective, Policy, Scorer, Source

if TYPE_CHECKING:
    from upturn.protocols import SamplingSettings


def assemble(recipe: Recipe) -> Assembly:
    """Every component constructed and every pairing checked.

    Raises UserError that names both where two parts do not fit.
    """
    source: Source = components.make("source", recipe.data, "data")
    _check_models(recipe, source)
    if "policy" not in recipe.models:
        return _without_policy(recipe, source)
    policy: Policy = components.make("model", recipe.models["policy"].spec, "models.policy")
    if not isinstance(policy, Policy):
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
        check_objective(stage, policy, recipe.models["policy"].name, f"stages.{stage.name}")
        _check_compares(recipe, source, stage, f"stages.{stage.name}")
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
        mixing=_mixing_policy(recipe),
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
    check_models_named(recipe, parts)
    check_sizes(recipe, parts, policy)
    check_gate(recipe, parts)
    if recipe.rounds is not None:
        check_rounds(recipe, policy)
        check_mix(recipe.rounds.mix, parts.mixing)
    return parts


def _check_models(recipe: Recipe, source: Source) -> None:
    """The models beside the policy: how each is trained, and on what."""
    for name, model in recipe.models.items():
        component = new_model(recipe, name)
        if name != "policy" and model.fit is None and model.refit is None:
            raise UserError(f"models.{name} has no 'fit:'", fix="Say how: 'fit: {split: train, epochs: 20}'.")
        for word, spec in (("fit", model.fit), ("refit", model.refit)):
            if spec is not None and not model.ready:
                check_objective(spec, component, recipe.models[name].name, f"models.{name}.{word}")
                if word == "fit":
                    _check_compares(recipe, source, spec, f"models.{name}.fit")
        if model.refit is not None and not model.refit.score and not (recipe.rounds and recipe.rounds.people):
            raise UserError("the candidates that it is fitted on have no scores and no votes",
                            where=f"models.{name}.refit.score",
                            fix="Name scorers, or add 'people:' to the rounds.")
        if model.refit is not None and (recipe.rounds is None or recipe.rounds.sample is None):
            raise UserError("is fitted on the candidates of a round, and no round samples any",
                            where=f"models.{name}.refit", fix="Add 'sample:' to the rounds, or use 'fit:'.")


def _check_compares(recipe: Recipe, source: Source, spec: Training, where: str) -> None:
    objective: Objective = components.make("objective", spec.objective, f"{where}.objective")
    if objective.example == "group" and not source.compares:
        raise UserError(
            f"the objective '{spec.objective['name']}' learns from comparisons, and the data "
            f"'{recipe.data['name']}' has none", where=f"{where}.objective",
            fix="Use the source 'preferences', or put the objective into the rounds.",
        )


def _without_policy(recipe: Recipe, source: Source) -> Assembly:
    """Of a recipe that trains a reward model or a classifier alone."""
    for name, model in recipe.models.items():
        kind = new_model(recipe, name).kind
        if kind != source.kind:
            raise UserError(
                f"data '{recipe.data['name']}' gives {source.kind}, but the model '{model.name}' reads {kind}",
                where=f"data, models.{name}", fix="Pair a source and a model of one kind.",
            )
    parts = Assembly(
        recipe=recipe, source=source, features=components.make("feature", recipe.features, "features"), scorers={},
        curators={}, evaluators=(), mixing=None, sampling=None, judges={},
    )
    check_models_named(recipe, parts)
    check_sizes(recipe, parts, None)
    return parts


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
            f"each task needs votes of {people.overlap} annotators, and {people.simulated.count} are simulated",
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
    curators = curator_classes(recipe.filter.curate)
    voted = [name for name, curator in curators if curator.selects == "votes"]
    if voted:
        raise UserError("annotators do not vote on real data", where="filter.curate", fix=f"Remove '{voted[0]}'.")
    alone = [name for name, curator in curators if curator.among_candidates]
    if alone:
        raise UserError(
            f"the curator '{alone[0]}' chooses among candidates of one prompt, and real data has one of each",
            where="filter.curate", fix="Use 'threshold', 'top_fraction' or 'deduplicate'.",
        )
    rewarded = [name for name, curator in curators if curator.selects == "reward"]
    if rewarded and not recipe.filter.score:
        raise UserError(
            f"the curator '{rewarded[0]}' chooses by reward, but nothing scores", where="filter.curate",
            fix="Add 'score:' to the filter.",
        )
    found = Filtering(_scorers(recipe.filter.score, "filter.score"), _curators(recipe.filter.curate, "filter.curate"))
    refuse_models_trained_later(recipe, found.scorers, "filter.score")
    return found


def _score_words(recipe: Recipe, source: Source, policy: Policy) -> Spoken | None:
    spec = recipe.score_words
    if spec is None:
        return None
    refuse_captions(recipe, source, policy, "score_words")
    scorers = _scorers(spec.score, "score_words.score")
    refuse_models_trained_later(recipe, scorers, "score_words.score")
    highest = (spec.levels or spec.shares)[max(spec.levels or spec.shares)]
    return Spoken(scorers, spec.levels, spec.shares, highest if spec.ask is None else spec.ask)


def _evaluator(recipe: Recipe, position: int, policy: Policy) -> Evaluator:
    evaluation = recipe.evaluate[position]
    at = f"evaluate.{position}"
    metrics: dict[str, Metric] = {}
    for i, spec in enumerate(evaluation.metrics):
        fields = dict(spec)
        name = str(fields.pop("as", fields["name"]))
        metric: Metric = components.make("metric", fields, f"{at}.metrics.{i}")
        if policy.kind not in metric.kinds:
            raise UserError(
                f"the metric '{fields['name']}' measures {' and '.join(sorted(metric.kinds))}, "
                f"but the model '{recipe.models['policy'].name}' makes {policy.kind}",
                where=f"{at}.metrics.{i}", fix="Remove it.",
            )
        label = name if position == 0 else f"{evaluation.name}/{name}"
        if label in metrics:
            raise UserError(f"the metric '{name}' is listed twice", where=f"{at}.metrics.{i}", fix="Give one an 'as:'.")
        metrics[label] = metric
    settings = sampling_settings(policy, evaluation.settings, f"{at}.settings")
    guides.check(recipe, settings, f"{at}.settings", measures=True)
    wording = evaluation.captions
    captions = None if wording is None else components.make("caption", wording, f"{at}.captions")
    return Evaluator(
        evaluation.name, evaluation.prompts, evaluation.candidates, settings, metrics, captions,
        evaluation.checkpoints, evaluation.where,
    )


def _mixing_policy(recipe: Recipe) -> MixingPolicy | None:
    if recipe.rounds is None:
        return None
    component: MixingPolicy = components.make("mixing_policy", recipe.rounds.mix.policy, "rounds.mix.policy")
    return component


def _round_sampling(policy: Policy, recipe: Recipe) -> SamplingSettings | None:
    if recipe.rounds is None:
        return None
    if recipe.rounds.sample is not None:
        checked = sampling_settings(policy, recipe.rounds.sample.settings, "rounds.sample.settings", keyed=False)
        guides.check(recipe, checked, "rounds.sample.settings", measures=False)
        return checked
    online = recipe.rounds.train[0].online
    assert online is not None
    checked = sampling_settings(policy, online.settings, "rounds.train.online.settings")
    guides.check(recipe, checked, "rounds.train.online.settings", measures=False)
    objective: Objective = components.make("objective", recipe.rounds.train[0].objective, "rounds.train.objective")
    guide: str = checked.guide
    if objective.example == "rollout" and guide:
        raise UserError(
            f"the objective '{recipe.rounds.train[0].objective['name']}' replays what this model itself did: no "
            f"'{guide}' may have guided it", where="rounds.train.online.settings.guide", fix="Remove 'guide:'.",
        )
    return checked


