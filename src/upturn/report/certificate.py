"""What each round's certificate says: whether an ideal learner would have done as this one did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upturn.report import titles
from upturn.report.facts import Facts
from upturn.store import files

FILE = "certificate.json"
_MEANINGS = {
    "growth": "growth of the mean of exp(reward)",
    "pile-up": "KL divergence from round 0",
    "class loss": "share that the worst class kept",
}


@dataclass(frozen=True)
class Line:
    """One check of one round, in words."""

    round: str
    check: str
    value: str
    bound: str
    word: str
    broken: bool
    by: str


@dataclass(frozen=True)
class Certificates:
    """``why_not`` is empty where there are ``lines``; ``broken`` names the rounds that no ideal learner would make."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    why_not: str
    broken: tuple[int, ...]
    foreseen: str = ""

    @property
    def warning(self) -> str:
        """The sentence for the top of the page; "" where no round is inconsistent."""
        if not self.broken:
            return ""
        what = f"Round {self.broken[0]} is" if len(self.broken) == 1 else (
            f"Rounds {titles.listed([str(n) for n in self.broken])} are"
        )
        return f"{what} inconsistent with an ideal learner, beyond chance: see Certificates."


def certificates(facts: Facts) -> Certificates | None:
    """Of every round that was judged; None before the first, and in runs older than certificates."""
    lines: list[Line] = []
    notes: dict[str, None] = {}
    reasons: dict[str, None] = {}
    broken: list[int] = []
    seen = False
    foreseen = ""
    for r in facts.status.rounds[1:]:
        path = facts.path(r.unit, FILE)
        if path is None:
            continue
        seen = True
        found = files.read_json(path)
        lines += [_line(f"Round {r.round}", check) for check in found["checks"]]
        notes |= dict.fromkeys(found["notes"])
        foreseen = _foreseen(found.get("foreseen"), facts) or foreseen
        if found["why_not"]:
            reasons[found["why_not"]] = None
        if found["word"] == "inconsistent":
            broken.append(r.round)
    if not seen:
        return None
    said = tuple(f"{note[0].upper()}{note[1:]}." for note in notes)
    return Certificates(tuple(lines), said, "; ".join(reasons), tuple(broken), foreseen)


def _foreseen(found: Mapping[str, Any] | None, facts: Facts) -> str:
    """What theory says of the whole run, once a round has been measured."""
    rounds = facts.recipe.rounds
    if not found or rounds is None:
        return ""
    kept = found["kept"]
    left = f"about {titles.share(kept)} of round 0's diversity left" if kept <= 1 else (
        f"{titles.number(kept)} times round 0's diversity"
    )
    return (
        f"After {titles.plural(found['after'], 'round')}, theory foresees of all {rounds.count}: {found['word']}, with "
        f"{left}. Assuming: {found['assumption'][:1].lower()}{found['assumption'][1:]}"
    )


def _line(title: str, check: Mapping[str, Any]) -> Line:
    places = titles.decimals((check["high"] - check["low"]) / 2)
    value, low, high = (f"{check[part]:.{places}f}" for part in ("value", "low", "high"))
    bound = f"at {check['side']} {check['bound']:.{max(places, 3)}f}"
    word = str(check["word"])
    return Line(
        title, _MEANINGS[check["name"]], f"{value} [{low}, {high}]", bound, word, word == "inconsistent",
        str(check["by"]),
    )
