"""Section: which weights each model started from and what it was trained on, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Facts
from upturn.report.section import Section


@dataclass(frozen=True)
class ModelLineage(Section):
    """Lineage of the models, and the environment of the run."""

    title: ClassVar[str] = "Lineage and environment"
    contents: ClassVar[str] = "Lineage"
    anchor: ClassVar[str] = "lineage"
    order: ClassVar[int] = 150

    def render(self, facts: Facts) -> Markup | None:
        identity = facts.run.identity
        none = "Nothing has been trained yet." if "policy" in facts.recipe.models else "The run has no policy."
        return self.fill(
            models=lineage(facts), none=none, run_id=facts.run.id, forked_from=identity.get("forked_from"),
            created=str(identity.get("created", ""))[:16].replace("T", " "), fingerprint=facts.run.fingerprint,
        )


@dataclass(frozen=True)
class ModelOrigin:
    """The parent of a model and its training data."""

    title: str
    model: str
    parent: str
    real: str
    synthetic: str
    fraction: str
    steps: str
    removed: bool


def lineage(facts: Facts) -> list[ModelOrigin]:
    """A row for each model of the policy, also for those between two trainings of one round."""
    removed = {d.unit for d in facts.run.deletions() if d.name == "model"}
    found = []
    for training in facts.trainings:
        unit = training.unit
        info, counts = facts.info(unit, "train"), facts.counts(unit, "mix")
        if not info:
            continue
        found.append(ModelOrigin(
            training.title, str(info.get("model", "")), str(info.get("parent") or "none (new weights)"),
            titles.number(counts.get("real"), 0), titles.number(counts.get("synthetic"), 0),
            titles.share(facts.real_fraction(unit)), titles.number(info.get("steps"), 0), unit in removed,
        ))
    return found
