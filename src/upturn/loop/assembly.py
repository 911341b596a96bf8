"""The components of a recipe by name, and the models it describes: nothing is loaded or trained yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.protocols import (
    Adapter,
    Caption,
    Component,
    Curator,
    Features,
    Metric,
    MixingPolicy,
    Objective,
    Policy,
    SamplingSettings,
    Scorer,
    Source,
    Trainable,
)

_WEIGHTS = frozenset({"config", "folder", "hub", "tokenizer"})  # fields that say where a model's weights come from


@dataclass(frozen=True)
class Evaluator:
    """One evaluation of the recipe: checked settings, and metrics by the names that metrics.json gives them."""

    name: str
    prompts: int
    candidates: int
    settings: Any
    metrics: Mapping[str, Metric]
    captions: Caption | None = None  # the captions of its prompts; None: as in training
    checkpoints: bool = True  # whether checkpoints within a training are measured, too
    where: Mapping[str, str] = field(default_factory=dict)  # whose prompts; {}: all of the held-out part


@dataclass(frozen=True)
class Filtering:
    """How the real training data is filtered before the first stage."""

    scorers: Mapping[str, tuple[Scorer, float]]
    curators: Mapping[str, Curator]


@dataclass(frozen=True)
class Spoken:
    """Score words: scorers, the least reward or share of each word, and the word that prompts request."""

    scorers: Mapping[str, tuple[Scorer, float]]
    levels: Mapping[float, str]
    shares: Mapping[float, str]
    ask: str


@dataclass(frozen=True)
class Assembly:
    """All components of a recipe; nothing is loaded or trained yet."""

    recipe: Recipe
    source: Source
    features: Features
    scorers: Mapping[str, tuple[Scorer, float]]  # by name, with the weight of each in the reward
    curators: Mapping[str, Curator]
    evaluators: tuple[Evaluator, ...]
    mixing: MixingPolicy | None  # None without rounds
    sampling: Any  # the policy's settings in a round; None without rounds
    judges: Mapping[str, Mapping[str, tuple[Scorer, float]]]  # of each model that is fitted from scratch each round
    captions: Caption | None = None  # None: the prompts are worded as the source gives them
    filtering: Filtering | None = None
    score_words: Spoken | None = None
    taste: Mapping[str, tuple[Scorer, float]] = field(default_factory=dict)  # what simulated annotators vote by

    def model(self, name: str, policy: Path | None = None) -> Trainable:
        """A new model without weights; one that starts from the policy's weights receives their folder."""
        component: Trainable = new_model(self.recipe, name, policy)
        return component

    def objective(self, spec: Training) -> Objective:
        component: Objective = components.make("objective", spec.objective, "objective")
        return component

    def adapter(self, spec: Training) -> Adapter:
        component: Adapter = components.make("adapter", spec.adapter, "adapter")
        return component


def new_model(recipe: Recipe, name: str, policy: Path | None = None) -> Trainable:
    spec = dict(recipe.models[name].spec)
    refit = recipe.models[name].refit
    if refit is not None and refit.base == "policy":
        spec = {key: value for key, value in spec.items() if key not in _WEIGHTS} | {"folder": str(policy)}
    model: Trainable = components.make("model", spec, f"models.{name}")
    return model


def models_named(part: Component) -> list[str]:
    """The models of the recipe that a component uses."""
    return list(part.models_used)


def reward_bounds(scorers: Mapping[str, tuple[Scorer, float]]) -> tuple[float, float]:
    """The least and the greatest reward, the weighted sum of the scorers' bounds; infinite where one is unbounded."""
    low = high = 0.0
    for scorer, weight in scorers.values():
        ends = scorer.bounds
        low, high = low + weight * ends[weight < 0], high + weight * ends[weight >= 0]
    return low, high


def sampling_settings(policy: Policy, settings: Mapping[str, Any], where: str, keyed: bool = True) -> SamplingSettings:
    """Settings of a model's sampling; ``keyed``: samples must be functions of their keys, whatever the sampler."""
    checked: SamplingSettings = components.checked(policy.Sampling, settings, where, "sampling")
    if checked.keyed:
        return checked
    if keyed:
        raise UserError(
            f"the sampler '{checked.sampler}' does not reproduce a sample from its key, and here it must",
            where=f"{where}.sampler",
            fix="Remove it: it is for 'rounds.sample'. Evaluations use equal noise, online training replays samples.",
        )
    checked.require(where)
    return checked


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
