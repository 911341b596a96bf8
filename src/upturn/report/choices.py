"""What the curators kept, what they dropped and why: counts by round, and samples to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upturn.report import pictures
from upturn.report.facts import DATA, Facts
from upturn.report.samples import prompt_label
from upturn.report.text import shortened
from upturn.report.titles import number, visible
from upturn.store import parquet_tables
from upturn.store.columns import read_table, to_samples
from upturn.types import Array, Sample, Samples, Selection

EARLIER = "dropped by an earlier curator"
_EXAMPLES = 6  # of each reason
_GROUPS = 6  # prompts whose candidates are shown together
_MOST_TOGETHER = 8  # candidates of a prompt that fit beside each other
_TEXT = 260  # characters of an example
_SHORT = 40  # characters of a text that needs no wide box
_KINDS = 8  # reasons of one curator in words; beyond it they are not a list to read any more
_VARIES = re.compile(r"\b[0-9a-f]{16}\b|[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")  # an id of a sample, or a number
_GAP = "…"


@dataclass(frozen=True)
class Example:
    """A sample as shown: a picture, a text, or numbers."""

    source: str
    body: str
    prompt: str
    reward: str
    reason: str
    kept: bool
    crisp: bool = False

    @property
    def short(self) -> bool:
        return len(self.body) <= _SHORT


@dataclass(frozen=True)
class Reason:
    """One reason of one curator; ``counts`` by round in the order of ``Choices.rounds``."""

    curator: str
    kind: str
    counts: tuple[int, ...]
    examples: tuple[Example, ...]
    examples_round: int


@dataclass(frozen=True)
class Choices:
    rounds: tuple[int, ...]
    sampled: tuple[int, ...]
    kept: tuple[int, ...]
    reasons: tuple[Reason, ...]
    groups: tuple[tuple[Example, ...], ...]
    groups_round: int


def choices(facts: Facts) -> Choices | None:
    """None where nothing was curated yet."""
    units = {r.round: r.unit for r in facts.status.rounds if facts.path(r.unit, "selections.parquet") is not None}
    found = {n: parquet_tables.read_selections(facts.run.unit(u) / "selections.parquet") for n, u in units.items()}
    found = {n: selections for n, selections in found.items() if selections}
    if not found:
        return None
    looks = _Looks(facts)
    reasons = []
    for curator in dict.fromkeys(s.curator for selections in found.values() for s in selections):
        for kind, rows in by_kind(curator, found).items():
            newest = max(n for n, own in rows.items() if len(own))
            examples = looks.spread(units[newest], rows[newest], found[newest])
            reasons.append(Reason(curator, kind, tuple(len(rows[n]) for n in found), examples, newest))
    newest = max(found)
    last = [selections[-1] for selections in found.values()]
    return Choices(
        tuple(found), tuple(len(s.kept) for s in last), tuple(int(s.kept.sum()) for s in last), tuple(reasons),
        looks.groups(units[newest], found[newest]), newest,
    )


def by_kind(curator: str, found: Mapping[int, Sequence[Selection]]) -> dict[str, dict[int, Array]]:
    """Reason in words -> round -> the rows that the curator dropped for it.

    Reasons that differ only in their numbers and ids are one kind; numbers that are the same in all of them stay.
    Where that leaves very many, they are told apart by what stands before the colon only.
    """
    dropped: dict[int, tuple[Array, Array]] = {}
    for number_, selections in found.items():
        why = next((s.reasons for s in selections if s.curator == curator), np.empty(0, dtype=object)).astype(str)
        rows = np.flatnonzero((why != "") & (why != EARLIER))
        dropped[number_] = (rows, why[rows])
    texts = np.unique(np.concatenate([why for _, why in dropped.values()]))
    masks = np.array([_VARIES.sub(_GAP, text) for text in texts], dtype=str)
    if len(np.unique(masks)) > _KINDS:
        masks = np.array([text.split(":")[0] for text in texts], dtype=str)
    kinds: dict[str, dict[int, Array]] = {}
    for mask in dict.fromkeys(masks.tolist()):
        mine = texts[masks == mask]
        label = _in_words(curator, mask, mine.tolist())
        kinds[mask if label in kinds else label] = {n: rows[np.isin(why, mine)] for n, (rows, why) in dropped.items()}
    return kinds


def _in_words(curator: str, mask: str, reasons: Sequence[str]) -> str:
    """The mask with the numbers that all reasons share, without the curator's name before it."""
    values = [_VARIES.findall(reason) for reason in reasons]
    label = mask
    if _GAP in mask and len({len(v) for v in values}) == 1:
        shared = [column[0] if len(set(column)) == 1 else _GAP for column in zip(*values, strict=True)]
        parts = mask.split(_GAP)
        if len(parts) == len(shared) + 1:
            label = "".join(part + value for part, value in zip(parts, [*shared, ""], strict=True))
    return visible(label.removeprefix(f"{curator}: "))


class _Looks:
    """Reads samples and rewards of a round, and only the pictures that are shown."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.classes = [str(name) for name in facts.info(DATA, "load").get("classes", ())]
        self._rewards: dict[str, Array] = {}

    def spread(self, unit: str, rows: Array, selections: Sequence[Selection]) -> tuple[Example, ...]:
        """Some of the rows, evenly from the lowest reward to the highest."""
        rewards = self.rewards(unit)
        order = rows[np.argsort(rewards[rows], kind="stable")] if len(rewards) else rows
        picks = order[np.unique(np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).round().astype(int))]
        return self.examples(unit, picks, selections)

    def groups(self, unit: str, selections: Sequence[Selection]) -> tuple[tuple[Example, ...], ...]:
        """All candidates of a few prompts; nothing where there is one a prompt, or too many to see."""
        path = self.facts.path(unit, "samples.parquet")
        if path is None:
            return ()
        group = np.asarray(read_table(path, ["group"]).column("group").to_numpy())
        names, sizes = np.unique(group, return_counts=True)
        if len(names) == 0 or sizes.max() < 2 or sizes.max() > _MOST_TOGETHER:
            return ()
        picks = names[np.linspace(0, len(names) - 1, min(_GROUPS, len(names))).round().astype(int)]
        return tuple(self.examples(unit, np.flatnonzero(group == pick), selections) for pick in picks)

    def rewards(self, unit: str) -> Array:
        """(N,) the weighted sum of the scorers, NaN where one is silent; empty where nothing was scored."""
        if unit not in self._rewards:
            path = self.facts.path(unit, "scores.parquet")
            found = {} if path is None else parquet_tables.read_scores(path)
            weights = self._weights()
            parts = [weights.get(name, 1.0) * scores.values for name, scores in found.items()]
            self._rewards[unit] = np.sum(parts, axis=0) if parts else np.empty(0)
        return self._rewards[unit]

    def _weights(self) -> Mapping[str, float]:
        rounds = self.facts.recipe.rounds
        specs = rounds.score if rounds is not None else []
        return {str(spec.get("as", spec["name"])): float(spec.get("weight", 1.0)) for spec in specs}

    def examples(self, unit: str, rows: Array, selections: Sequence[Selection]) -> tuple[Example, ...]:
        path = self.facts.path(unit, "samples.parquet")
        if path is None or len(rows) == 0:
            return ()
        rewards = self.rewards(unit)
        samples = _taken(path, rows)
        shown = []
        for i, row in enumerate(rows.tolist()):
            reward = number(float(rewards[row]), 2) if len(rewards) else ""
            shown.append(look(samples[i], self.classes, reward, _why(selections, row), bool(selections[-1].kept[row])))
        return tuple(shown)


def _taken(path: Path, rows: Array) -> Samples:
    return to_samples(read_table(path).take(rows))


def _why(selections: Sequence[Selection], row: int) -> str:
    """The reason of the curator that dropped it; empty where none did."""
    return next((str(s.reasons[row]) for s in selections if not s.kept[row]), "")


def look(sample: Sample, classes: Sequence[str], reward: str = "", reason: str = "", kept: bool = True) -> Example:
    """A sample to be looked at."""
    prompt = prompt_label(sample.prompt, classes)
    if isinstance(sample.content, str):
        body, more = shortened(sample.content, _TEXT)
        return Example("", body + ("…" if more else ""), prompt, reward, reason, kept)
    if sample.content.ndim == 3:
        pictures_of = sample.content[None]
        return Example(pictures.strip(pictures_of), "", prompt, reward, reason, kept, pictures.crisp(pictures_of))
    body = ", ".join(number(float(x), 2) for x in sample.content[:4]) + (", …" if len(sample.content) > 4 else "")
    return Example("", f"({body})", prompt, reward, reason, kept)
