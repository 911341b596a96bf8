"""Section: metrics by epoch of every training whose checkpoints were evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report.epochs import RULE, by_epoch
from upturn.report.facts import Facts
from upturn.report.section import Section


@dataclass(frozen=True)
class TrainingProgress(Section):
    """Checkpoints of a training: metrics by epoch, plateau and price."""

    title: ClassVar[str] = "Training, epoch by epoch"
    contents: ClassVar[str] = "Epochs"
    anchor: ClassVar[str] = "epochs"
    order: ClassVar[int] = 50

    def render(self, facts: Facts) -> Markup | None:
        trainings = by_epoch(facts)
        return self.fill(trainings=trainings, rule=RULE) if trainings else None
