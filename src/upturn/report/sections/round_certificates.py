"""Section: the forecast of the theory, and the certificate of each round against an ideal learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Facts
from upturn.report.section import Section
from upturn.store import files

FILE = "certificate.json"
_MEANINGS = {
    "growth": "growth of the mean of exp(reward)",
    "pile-up": "KL divergence from round 0",
    "class loss": "share that the worst class kept",
}


@dataclass(frozen=True)
class RoundCertificates(Section):
    """Forecast and certificates of the rounds."""

    title: ClassVar[str] = "Forecast and certificates"
    anchor: ClassVar[str] = "certificates"
    order: ClassVar[int] = 70

    def render(self, facts: Facts) -> Markup | None:
        found = certificates(facts)
        return self.fill(found=found) if found is not None else None

    def warnings(self, facts: Facts) -> list[str]:
        found = certificates(facts)
        return [found.warning] if found is not None and found.warning else []


@dataclass(frozen=True)
class CertificateCheck:
    """One check of one round, as text."""

    round: str
    check: str
    value: str
    bound: str
    word: str
    broken: bool
    by: str


@dataclass(frozen=True)
class Certificates:
    """``why_not`` is empty where there are ``checks``; ``broken`` are the rounds that no ideal learner would give."""

    checks: tuple[CertificateCheck, ...]
    notes: tuple[str, ...]
    why_not: str
    broken: tuple[int, ...]
    forecast: str = ""

    @property
    def warning(self) -> str:
        """The sentence for the top of the page; "" if no round is inconsistent."""
        if not self.broken:
            return ""
        what = f"Round {self.broken[0]} is" if len(self.broken) == 1 else (
            f"Rounds {titles.listed([str(n) for n in self.broken])} are"
        )
        return f"{what} inconsistent with an ideal learner, beyond chance: see Certificates."


def certificates(facts: Facts) -> Certificates | None:
    """Of every round that the gate decided; None before the first, and in runs older than certificates."""
    checks: list[CertificateCheck] = []
    notes: dict[str, None] = {}
    reasons: dict[str, None] = {}
    broken: list[int] = []
    seen = False
    forecast = ""
    for r in facts.status.rounds[1:]:
        path = facts.path(r.unit, FILE)
        if path is None:
            continue
        seen = True
        found = files.read_json(path)
        checks += [_check(f"Round {r.round}", check) for check in found["checks"]]
        notes |= dict.fromkeys(found["notes"])
        forecast = _forecast(found.get("foreseen"), facts) or forecast
        if found["why_not"]:
            reasons[found["why_not"]] = None
        if found["word"] == "inconsistent":
            broken.append(r.round)
    if not seen:
        return None
    sentences = tuple(f"{note[0].upper()}{note[1:]}." for note in notes)
    return Certificates(tuple(checks), sentences, "; ".join(reasons), tuple(broken), forecast)


def _forecast(found: Mapping[str, Any] | None, facts: Facts) -> str:
    """The theory's forecast of the whole run, once a round has been measured."""
    rounds = facts.recipe.rounds
    if not found or rounds is None:
        return ""
    kept = found["kept"]
    left = f"about {titles.share(kept)} of round 0's diversity left" if kept <= 1 else (
        f"{titles.number(kept)} times round 0's diversity"
    )
    return (
        f"After {titles.plural(found['after'], 'round')}, the forecast for all {rounds.count} is: {found['word']}, "
        f"with {left}. Assuming: {found['assumption'][:1].lower()}{found['assumption'][1:]}"
    )


def _check(title: str, check: Mapping[str, Any]) -> CertificateCheck:
    places = titles.decimals((check["high"] - check["low"]) / 2)
    value, low, high = (f"{check[part]:.{places}f}" for part in ("value", "low", "high"))
    bound = f"at {check['side']} {check['bound']:.{max(places, 3)}f}"
    word = str(check["word"])
    return CertificateCheck(
        title, _MEANINGS[check["name"]], f"{value} [{low}, {high}]", bound, word, word == "inconsistent",
        str(check["by"]),
    )
