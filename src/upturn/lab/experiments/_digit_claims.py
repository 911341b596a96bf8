"""Checks of the published claims about training on curated samples, each with its measured value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
_STANDARD_ERRORS = 3.0  # within this, settled shares agree with their fixed point
BEYOND = "beyond picks by chance"
_HELD = 0.1  # share of the first model's recall that may be lost while "recall holds"

Table = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Claim:
    """``measured`` with its interval (Student's t, over repetitions), and whether it supports the claim."""

    of: str  # which reward by how many nats, which λ
    claim: str
    measured: float
    low: float
    high: float
    agrees: bool


def claim_sentences(found: Sequence[Claim]) -> list[str]:
    """For each cell a sentence with the claims that hold, and one with those that do not."""
    sentences = []
    for of in dict.fromkeys(claim.of for claim in found):
        own = [claim for claim in found if claim.of == of]
        held, lost = ([_figure(claim) for claim in own if claim.agrees is agrees] for agrees in (True, False))
        if held:
            sentences.append(f"{of[0].upper()}{of[1:]}, {len(held)} of {len(own)} claims hold: {'; '.join(held)}.")
        if lost:
            sentences.append(f"{of[0].upper()}{of[1:]}, NOT SUPPORTED: {'; '.join(lost)}.")
    return sentences


def _figure(claim: Claim) -> str:
    return f"{claim.claim}, {claim.measured:.3f} ({claim.low:.3f} to {claim.high:.3f})"


def claims(table: Table, rounds: int) -> list[Claim]:
    """All claims that the rows of the finished table can check, cell by cell."""
    found = []
    for cell in dict.fromkeys(_cell(row) for row in table):
        reward, lam, scale = cell
        if not scale:
            continue  # random selection: the baseline of the others
        rows = {row["quantity"]: row for row in table if _cell(row) == cell and row["round"] == rounds}
        alone = math.isinf(lam)
        beside = "selected images alone" if alone else f"with real images, λ = {lam:g}"
        name = f"reward {scale:g} × '{reward}', {beside}"
        found += [Claim(name, *rest) for rest in (_alone(rows) if alone else _mixed(rows))]
    return found


def _cell(row: Mapping[str, Any]) -> tuple[str, float, float]:
    return str(row["reward"]), float(row["lam"]), float(row["scale"])


def _alone(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float, float, float, bool]]:
    yield from _sign(rows, "reward, gained since the first model", "the reward rises", 1)
    yield from _sign(rows, f"reward, {BEYOND}", f"the reward rises {BEYOND}", 1)
    yield from _sign(rows, "entropy of the classes, gained since the first model", "the classes drift apart", -1)
    yield from _sign(rows, "largest share, gained since the first model", "one class grows at the others' cost", 1)


def _mixed(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float, float, float, bool]]:
    yield from _sign(rows, "reward, gained since the first model", "the reward rises", 1)
    yield from _sign(rows, f"reward, {BEYOND}", f"the reward rises {BEYOND}", 1)
    early, late = rows.get("reward, gained in the first half"), rows.get("reward, gained in the second half")
    if early and late and early["simulation"] > 0:
        low, high = interval(late)
        slower = high < interval(early)[0] or high < early["simulation"] / 2
        yield "the reward levels off: the second half gains less", late["simulation"], low, high, slower
    settled = [row for name, row in rows.items() if name.startswith("settled share")]
    if settled:
        worst = max(abs(row["z"]) if row["z"] is not None else 0.0 if row["agrees"] else math.inf for row in settled)
        text = "the shares settle at the fixed point of their own advantage (largest |z|, bound 3)"
        yield text, worst, 0.0, _STANDARD_ERRORS, worst <= _STANDARD_ERRORS
    yield from _sign(rows, "precision, gained since the first model", "precision rises", 1)
    yield from _sign(rows, f"precision, {BEYOND}", f"precision rises {BEYOND}", 1)
    now, change = rows.get("recall"), rows.get("recall, gained since the first model")
    if now and change:
        low, high = interval(change)
        least = -_HELD * (now["simulation"] - change["simulation"])
        yield f"recall holds (no loss beyond {-least:.3f})", change["simulation"], low, high, low >= least


def _sign(
    rows: Mapping[str, Mapping[str, Any]], quantity: str, text: str, sign: int
) -> Iterator[tuple[str, float, float, float, bool]]:
    """Whether the interval of the change lies on the claimed side of zero."""
    row = rows.get(quantity)
    if row:
        low, high = interval(row)
        yield text, row["simulation"], low, high, low > 0 if sign > 0 else high < 0


def interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """95% interval of a mean over few repetitions, by Student's t."""
    from scipy.stats import t

    spread = float(t.ppf((1 + LEVEL) / 2, max(row["count"] - 1, 1))) * row["standard_error"]
    return row["simulation"] - spread, row["simulation"] + spread
