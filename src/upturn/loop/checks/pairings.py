"""Which components of a recipe fit each other: a pair that does not is refused by naming both."""

from __future__ import annotations

from collections.abc import Mapping

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.config.schema import Mix, Training, named
from upturn.errors import UserError
from upturn.loop.assembly import Assembly, models_named, new_model, sampling_settings
from upturn.loop.checks import image_sizes
from upturn.loop.checks.caption_strategy import reads_text
from upturn.loop.checks.curator_chain import refuse_choices
from upturn.loop.gate import guard
from upturn.protocols import Adapter, Component, MixingPolicy, Objective, Policy, Scorer, Trainable, ValueHead


def check_objective(spec: Training, model: Trainable, name: str, where: str) -> None:
    objective: Objective = components.make("objective", spec.objective, f"{where}.objective")
    adapter: Adapter = components.make("adapter", spec.adapter, f"{where}.adapter")
    components.make("optimizer", spec.optimizer, f"{where}.optimizer")
    components.make("schedule", spec.schedule, f"{where}.schedule")
    odd = adapter.refuses(model)
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


def _check_rollout(spec: Training, objective: Objective, model: Trainable, name: str, where: str) -> None:
    """The actions of a policy (tokens, or denoising steps) have log-probs of their own, whatever its samples have."""
    if spec.online is None:
        raise UserError(
            f"the objective '{spec.objective['name']}' learns from what the policy does as it trains",
            where=f"{where}.online", fix="Add 'online: {prompts: 64, candidates: 4}', in the training of the rounds.",
        )
    if not isinstance(model, Policy):
        raise UserError(f"'{name}' cannot replay what it did", where=f"{where}.objective", fix="Use another objective.")
    if "values" in objective.inputs and not isinstance(model, ValueHead):
        raise UserError(
            f"the objective '{spec.objective['name']}' needs a value head, which '{name}' cannot have",
            where=f"{where}.objective", fix="Use rloo, grpo or mdloo: their baseline is the group.",
        )


def check_models_named(recipe: Recipe, parts: Assembly) -> None:
    """Raises UserError where a component uses a model (``models_used``) that the recipe does not have."""
    named: list[tuple[str, Component]] = [("features", parts.features)]
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
                    f"needs the model '{wanted}', which 'models:' does not have", where=where,
                    fix=f"There: {', '.join(recipe.models)}. Add '{wanted}: {{name: classifier, fit: {{…}}}}'.",
                )


def check_sizes(recipe: Recipe, parts: Assembly, policy: Policy | None) -> None:
    """Raises UserError where images have several sizes and a component takes those of one."""
    settings = [(f"evaluate.{i}.settings", e.settings) for i, e in enumerate(parts.evaluators)]
    why = image_sizes.several(parts.source, str(recipe.data["name"]), [*settings, ("rounds", parts.sampling)])
    if not why:
        return
    live: list[image_sizes.Named] = [
        (f"models.{name}", model.name, policy if name == "policy" else new_model(recipe, name))
        for name, model in recipe.models.items()
    ]
    live += [("rounds.score", name, scorer) for name, (scorer, _) in parts.scorers.items()]
    live += [("rounds.curate", name, curator) for name, curator in parts.curators.items()]
    if parts.filtering is not None:
        live += [("filter.score", name, scorer) for name, (scorer, _) in parts.filtering.scorers.items()]
        live += [("filter.curate", name, curator) for name, curator in parts.filtering.curators.items()]
    if parts.score_words is not None:
        live += [("score_words.score", name, scorer) for name, (scorer, _) in parts.score_words.scorers.items()]
    if recipe.provenance is not None:  # it compares whole images, by the recipe's features or by their bytes
        live.append(("provenance", "provenance", None))
    metrics = [("evaluate", name, metric) for e in parts.evaluators for name, metric in e.metrics.items()]
    image_sizes.refuse(why, live, metrics, ("features", str(recipe.features["name"]), parts.features))
    trainings = [*recipe.stages, *(recipe.rounds.train if recipe.rounds else ())]
    image_sizes.refuse_unrelated(why, [("objective", str(t.objective["name"]), parts.objective(t)) for t in trainings])


def check_gate(recipe: Recipe, parts: Assembly) -> None:
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


def check_rounds(recipe: Recipe, policy: Policy) -> None:
    rounds = recipe.rounds
    assert rounds is not None
    for i, turn in enumerate(rounds.train):
        check_objective(turn, policy, recipe.models["policy"].name, f"rounds.train.{i}")
        if turn.online is not None and not rounds.score:
            raise UserError("online training needs a reward", where=f"rounds.train.{i}.online", fix="Add 'score:'.")
        if turn.online is not None:
            sampling_settings(policy, turn.online.settings, f"rounds.train.{i}.online.settings")
    if rounds.sample is not None:
        fitted = any(model.refit is not None and not model.refit.score for model in recipe.models.values())
        refuse_choices(rounds, rounds.sample.candidates, fitted)
        if rounds.sample.texts and not (policy.kind == "text" or reads_text(policy)):
            raise UserError(
                f"the model '{recipe.models['policy'].name}' reads no text", where="rounds.sample.texts",
                fix="Remove it: its prompts are those of the data.",
            )


def check_mix(mix: Mix, policy: MixingPolicy | None) -> None:
    """Raises UserError where the mixing policy does not accept the recipe's mixture."""
    assert policy is not None
    if mix.lambda_ == 0 and not policy.real_only:
        raise UserError("λ = 0 leaves out all samples of the round", where="rounds.mix.lambda", fix="Raise it.")
    if mix.size is not None and not policy.subsamples:
        raise UserError(
            f"the mixing policy '{named(mix.policy)['name']}' draws no subsample", where="rounds.mix.size",
            fix="Remove it, or use accumulate_subsample.",
        )


def refuse_models_trained_later(recipe: Recipe, scorers: Mapping[str, tuple[Scorer, float]], where: str) -> None:
    """Raises UserError where real data is to be scored by a model that is trained on it afterwards."""
    for name, (scorer, _) in scorers.items():
        for wanted in models_named(scorer):
            if wanted == "policy" or (wanted in recipe.models and recipe.models[wanted].refit is not None):
                raise UserError(
                    f"'{name}' uses the model '{wanted}', which is first trained after the data was scored",
                    where=where, fix="Use a model with 'fit:'.",
                )
