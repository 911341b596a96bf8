"""Section: the generated samples that are nearest to training samples, and a warning where the model copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Facts
from upturn.report.nearest import nearest_pairs
from upturn.report.section import Section


@dataclass(frozen=True)
class NearestSamples(Section):
    """Pairs of a generated sample and the nearest training sample."""

    title: ClassVar[str] = "Nearest training samples"
    contents: ClassVar[str] = "Nearest samples"
    anchor: ClassVar[str] = "nearest"
    order: ClassVar[int] = 120

    def render(self, facts: Facts) -> Markup | None:
        model, pairs = nearest_pairs(facts)
        return self.fill(model=model, pairs=pairs) if pairs else None

    def warnings(self, facts: Facts) -> list[str]:
        found = copying_warning(facts.kept.metrics, "The kept model") if facts.kept is not None else None
        return [found] if found else []


def copying_warning(metrics: Mapping[str, Mapping[str, Any]], subject: str) -> str | None:
    """A sentence if a metric of memorisation is beyond its limit; ``subject`` begins it."""
    for found in metrics.values():
        details = found.get("details") or {}
        if details.get("flagged"):
            return (
                f"{subject} copies training data: {titles.interval(found)} of its samples are nearer to a training "
                f"sample than almost all unseen real data (by chance {titles.number(details['baseline'])}); "
                f"{titles.plural(details['copied'], 'training sample')} are copied."
            )
    return None
