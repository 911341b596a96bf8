"""Section: training and held-out loss of every training of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report import curves, titles
from upturn.report.cards import Card
from upturn.report.facts import Facts
from upturn.report.section import Section
from upturn.store.units import model_unit


@dataclass(frozen=True)
class LossCurves(Section):
    """Losses by step, of the policy and of the helper models."""

    title: ClassVar[str] = "Losses"
    anchor: ClassVar[str] = "losses"
    order: ClassVar[int] = 130

    def render(self, facts: Facts) -> Markup | None:
        policy, helpers = loss_cards(facts)
        return self.fill(policy=policy, helpers=helpers) if policy else None


def loss_cards(facts: Facts) -> tuple[list[Card], list[Card]]:
    """Of the policy stage by stage, and of the helper models."""
    own = [(training.title, training.unit) for training in facts.trainings]
    helpers = [(name, model_unit(name)) for name, model in facts.recipe.models.items() if model.fit is not None]
    return _losses(facts, own, "train"), _losses(facts, helpers, "fit")


def _losses(facts: Facts, units: list[tuple[str, str]], step: str) -> list[Card]:
    cards = []
    for title, unit in units:
        points = facts.losses(unit)
        figure = curves.loss(points, f"loss of {title} by step")
        if figure is None:
            continue
        held_out = [p["held_out"] for p in points if p.get("held_out") is not None]
        end = f"final loss {titles.number(points[-1]['loss'])}"
        end += f", held out {titles.number(held_out[-1])}" if held_out else ""
        stopped = facts.info(unit, step).get("stopped")
        cards.append(Card(title, end, "", figure, (f"Stopped early: {stopped}.",) if stopped else ()))
    return cards
