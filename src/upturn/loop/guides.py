"""Guidance by another model: what a sampling setting ``guide:`` names, and whether it is there when it is needed.

Either a model of the recipe's ``models:``, or an earlier version of the policy: ``round 0``, a stage such as
``pretrain``, and a checkpoint of either, ``pretrain@5``: its weights after epoch 5. Autoguidance: Karras et al. 2024,
"Guiding a diffusion model with a bad version of itself"; with a model trained on samples as the bad one: Alemohammad et
al. 2024, "Self-improving diffusion models with synthetic data" (SIMS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upturn.config.recipe import Recipe
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.store.run import Run
from upturn.store.units import round_unit, stage_unit, unit_round

if TYPE_CHECKING:
    from upturn.protocols import SamplingSettings

_ROUND = re.compile(r"round (\d+)")


@dataclass(frozen=True)
class Version:
    """The policy as a unit left it, or as it was after one epoch of the unit's training."""

    unit: str
    epoch: int | None = None

    def folder(self, run: Run) -> Path:
        """The folder of the weights. Raises UserError where the run has not written them yet, or has removed them."""
        if run.done(self.unit, "train") is not None:
            whole = run.model_folder(self.unit)
            place = whole if self.epoch is None else run.unit(self.unit) / "checkpoints" / f"epoch-{self.epoch:04d}"
            if place.is_dir():
                return place
        raise UserError(
            f"there are no weights of {self.unit}{'' if self.epoch is None else f' after epoch {self.epoch}'}",
            where="settings.guide", fix="Name a round, a stage or a listed epoch that the run has been through.",
        )

    def model_id(self, run: Run) -> str:
        """The id in the lineage; for a checkpoint, that of the training's final model, with the epoch."""
        record = run.done(self.unit, "train")
        assert record is not None, "folder() is called first"
        name = str(record.info["model"])
        return name if self.epoch is None else f"{name}/epoch-{self.epoch:04d}"


def version(recipe: Recipe, guide: str, where: str) -> Version | None:
    """The version of the policy that ``guide`` names, None for a model of ``models:``, whose names go first.

    Raises UserError for a name that is neither, and for an epoch that is not listed.
    """
    if guide in recipe.models and guide != "policy":
        return None
    place, at, epoch = guide.partition("@")
    found = _place(recipe, place)
    if found is None or (at and not epoch.isdecimal()):
        models = [name for name in recipe.models if name != "policy"]
        count = recipe.rounds.count if recipe.rounds else 0
        stages = [stage.name for stage in recipe.all_stages]
        known = [*models, *stages, "round 0", *([f"round {count}"] if count else [])]
        raise UserError(
            f"'{guide}' is neither a model nor an earlier version of the policy", where=where,
            fix=f"There: {', '.join(known)}; with '@5' after a stage or round, its weights after the listed epoch 5.",
        )
    unit, spec = found
    if at and int(epoch) not in spec.checkpoint_epochs:
        raise UserError(
            f"'{guide}': the weights after epoch {epoch} are not kept", where=where,
            fix=f"Add {epoch} to the 'checkpoint_epochs:' of '{place}'; there: "
            f"{', '.join(map(str, spec.checkpoint_epochs)) or 'none'}.",
        )
    return Version(unit, int(epoch) if at else None)


def _place(recipe: Recipe, name: str) -> tuple[str, Training] | None:
    """The unit that a stage or "round N" trains in, and how; round 0 is the last stage."""
    stages, numbered = {stage.name: stage for stage in recipe.all_stages}, _ROUND.fullmatch(name)
    if name in stages:
        return stage_unit(name), stages[name]
    if numbered is None:
        return None
    number = int(numbered[1])
    if number == 0:
        return stage_unit(recipe.all_stages[-1].name), recipe.all_stages[-1]
    if recipe.rounds is None or number > recipe.rounds.count:
        return None
    return round_unit(number), recipe.rounds.train[-1]


def check(recipe: Recipe, settings: SamplingSettings, where: str, measures: bool) -> None:
    """Raises UserError where a guide is not there whenever these settings are used, or cannot guide.

    ``measures``: they are used from the end of the first stage on, not only in rounds. What they may name is of round
    0, whose weights ``keep:`` never removes.
    """
    guide = settings.guide
    if not guide:
        return
    at = f"{where}.guide"
    named = version(recipe, guide, at)
    if named is None:
        _check_model(recipe, guide, at)
    elif unit_round(named.unit) > 0:
        raise UserError(
            f"'{guide}' is not there yet when round 1 samples, or is measured", where=at,
            fix="Name a stage or 'round 0'; a model of a later round can guide 'upturn sample'.",
        )
    elif measures and named.unit != (first := stage_unit(recipe.all_stages[0].name)):
        raise UserError(
            f"'{guide}' is not there yet when {first} is measured", where=at,
            fix=f"Name '{recipe.all_stages[0].name}', or an epoch of it.",
        )


def _check_model(recipe: Recipe, guide: str, where: str) -> None:
    """A guide denoises: it is a model of the policy's own kind, fitted before the stages."""
    own, other = recipe.models["policy"], recipe.models[guide]
    if other.name != own.name:
        raise UserError(
            f"'{guide}' is a '{other.name}': it cannot guide a '{own.name}'", where=where,
            fix=f"Name a model '{own.name}', or an earlier version of the policy.",
        )
    if other.fit is None:
        raise UserError(f"the model '{guide}' has no 'fit:', so it has no weights to guide with", where=where)
