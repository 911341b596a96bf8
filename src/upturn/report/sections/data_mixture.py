"""Section: real and synthetic data in every training, and how much of the real data may be synthetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.bars import Bar, BarChart, Segment
from upturn.report.facts import DATA, Facts
from upturn.report.section import Section

_SIGNS = {
    "copies": "copies of samples of earlier runs",
    "two_samples": "accuracy of a classifier that separates it from trusted data; 0.5 is chance",
    "likelihood": "nats by which it is likelier as a sample of earlier runs than trusted data is",
}
_LABEL = 0.2  # share of a bar from which a label fits into a segment


@dataclass(frozen=True)
class DataMixture(Section):
    """Real and synthetic weight of every training."""

    title: ClassVar[str] = "Real and synthetic data"
    contents: ClassVar[str] = "Real and synthetic"
    anchor: ClassVar[str] = "mixture"
    order: ClassVar[int] = 90

    def render(self, facts: Facts) -> Markup | None:
        chart = real_fraction(facts)
        return self.fill(chart=chart, estimate=contamination(facts)) if chart is not None else None

    def warnings(self, facts: Facts) -> list[str]:
        found = contamination(facts)
        return [found.warning] if found is not None and found.warning else []


@dataclass(frozen=True)
class ContaminationEstimate:
    """``lead`` is a sentence, ``signs`` are (what, value, p); ``warning`` is empty where nothing was found."""

    lead: str
    signs: tuple[tuple[str, str, str], ...]
    note: str
    warning: str


def contamination(facts: Facts) -> ContaminationEstimate | None:
    """None if the recipe does not require a provenance check, or before it has run."""
    found = facts.info(DATA, "provenance")
    if not found:
        return None
    counts = facts.counts(DATA, "provenance")
    known = (("trusted", "trusted real sample", ""), ("own", "sample", " of earlier runs"))
    against = titles.listed([titles.plural(counts[name], what) + end for name, what, end in known if counts.get(name)])
    lead = f"{_finding(found)} ({titles.plural(counts.get('looked_at', 0), 'sample')} against {against})."
    signs = tuple(
        (_SIGNS[name], titles.number(sign["value"]), "" if sign["p"] is None else titles.number(sign["p"]))
        for name, sign in found["signs"].items() if name in _SIGNS
    )
    return ContaminationEstimate(lead, signs, str(found["note"]), f"{_finding(found)}." if found["low"] > 0 else "")


def _finding(found: Mapping[str, Any]) -> str:
    if found["how"] == "nothing":
        return "It is unknown how much of the data that is labelled real is synthetic"
    low, high = titles.share(found["low"]), titles.share(found["high"])
    return f"{f'{low} to {high}' if found['high'] < 1 else f'At least {low}'} of the data labelled real is synthetic"


def real_fraction(facts: Facts) -> BarChart | None:
    """Real and synthetic weight of the mixture of each training."""
    bars = []
    for training in facts.trainings:
        fraction, counts = facts.real_fraction(training.unit), facts.counts(training.unit, "mix")
        if fraction is None:
            continue
        real, synthetic = counts.get("real", 0), counts.get("synthetic", 0)
        parts = _real(facts, fraction, real)
        if fraction < 1:
            title = titles.plural(synthetic, "synthetic sample")
            parts.append((1 - fraction, "synthetic", f"synthetic {titles.share(1 - fraction)}", title))
        segments = tuple(Segment(s, colour, label if s > _LABEL else "", title) for s, colour, label, title in parts)
        end = f"{titles.number(real, 0)} + {titles.number(synthetic, 0)}" if counts else ""
        bars.append(Bar(training.title, "", segments, end))
    unsure = (("unsure", "real or synthetic"),) if facts.synthetic_in_real else ()
    legend = (("real", "real"), *unsure, ("synthetic", "synthetic"))
    return BarChart(legend, tuple(bars), "On the right: number of real + synthetic samples.") if bars else None


def _real(facts: Facts, fraction: float, count: int) -> list[tuple[float, str, str, str]]:
    """(share, colour, label, title) of the data labelled real, divided by the estimate of its contamination."""
    title = titles.plural(count, "real sample")
    if facts.synthetic_in_real is None:
        return [(fraction, "real", f"real {titles.share(fraction)}", title)]
    ends = [fraction * (1 - share) for share in reversed(facts.synthetic_in_real)]
    text = f"real {titles.share(ends[0])} to {titles.share(ends[1])}"
    in_first = ends[0] >= ends[1] - ends[0]
    found = [(ends[0], "real", text if in_first else "", title),
             (ends[1] - ends[0], "unsure", "" if in_first else text, f"{text}, of {title}")]
    synthetic = fraction - ends[1]
    return [*found, *([(synthetic, "synthetic", "", "synthetic, labelled real")] if synthetic > 0 else [])]
