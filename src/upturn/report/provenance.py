"""How real the data is that claims to be: as an interval, where the recipe asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upturn.report import titles
from upturn.report.facts import DATA, Facts

_SIGNS = {
    "copies": "copies of our own samples",
    "two_samples": "accuracy of a classifier that tells it from trusted data, where 0.5 is chance",
    "likelihood": "likelier as our own than trusted data is, in nats",
}


@dataclass(frozen=True)
class Provenance:
    """``lead`` is a sentence, ``signs`` are (what, value, p); ``warning`` is empty where nothing was found."""

    lead: str
    signs: tuple[tuple[str, str, str], ...]
    note: str
    warning: str


def provenance(facts: Facts) -> Provenance | None:
    """None where the recipe did not ask, or the step has not run."""
    found = facts.info(DATA, "provenance")
    if not found:
        return None
    counts = facts.counts(DATA, "provenance")
    known = (("trusted", "trusted real sample", ""), ("own", "sample", " of earlier runs"))
    against = titles.listed([titles.plural(counts[name], what) + end for name, what, end in known if counts.get(name)])
    lead = f"{_said(found)} ({titles.plural(counts.get('looked_at', 0), 'sample')} against {against})."
    signs = tuple(
        (_SIGNS[name], titles.number(sign["value"]), "" if sign["p"] is None else titles.number(sign["p"]))
        for name, sign in found["signs"].items() if name in _SIGNS
    )
    return Provenance(lead, signs, str(found["note"]), f"{_said(found)}." if found["low"] > 0 else "")


def _said(found: Mapping[str, Any]) -> str:
    if found["how"] == "nothing":
        return "Nothing can be said of how much of the data that claims to be real is synthetic"
    ends = f"{titles.share(found['low'])} to {titles.share(found['high'])}"
    shown = ends if found["high"] < 1 else f"At least {titles.share(found['low'])}"
    return f"{shown} of the data that claims to be real is synthetic"
