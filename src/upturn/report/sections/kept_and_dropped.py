"""Section: how many candidates the curators kept and dropped, the reasons, and examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from markupsafe import Markup

from upturn.report.examples import SampleView, sample_view
from upturn.report.facts import DATA, Facts
from upturn.report.section import Section
from upturn.report.titles import number, share, visible
from upturn.store import parquet_tables
from upturn.store.columns import read_table, to_samples
from upturn.types import Array, Samples, Selection

EARLIER = "dropped by an earlier curator"
_EXAMPLES = 6  # of each reason
_GROUPS = 6  # prompts of which all candidates are displayed
_MOST_CANDIDATES = 8  # of a prompt that fit beside each other
_KINDS = 8  # reasons of one curator in full; more make a list that nobody reads
_VARIES = re.compile(r"\b[0-9a-f]{16}\b|[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")  # an id of a sample, or a number
_GAP = "…"


@dataclass(frozen=True)
class KeptAndDropped(Section):
    """Selection by curator and reason."""

    title: ClassVar[str] = "Kept and dropped candidates"
    contents: ClassVar[str] = "Kept and dropped"
    anchor: ClassVar[str] = "dropped"
    order: ClassVar[int] = 110

    def render(self, facts: Facts) -> Markup | None:
        found = selections_by_reason(facts)
        return self.fill(found=found, number=number) if found is not None else None


@dataclass(frozen=True)
class DropReason:
    """One reason of one curator; ``counts`` by round in the order of ``SelectionSummary.rounds``."""

    curator: str
    kind: str
    counts: tuple[int, ...]
    examples: tuple[SampleView, ...]
    examples_round: int


@dataclass(frozen=True)
class SelectionSummary:
    """Counts by round; ``groups`` are all candidates of some prompts of ``groups_round``."""

    rounds: tuple[int, ...]
    sampled: tuple[int, ...]
    kept: tuple[int, ...]
    reasons: tuple[DropReason, ...]
    groups: tuple[tuple[SampleView, ...], ...]
    groups_round: int
    right: tuple[str, ...] = ()  # of the kept, how many the verifier finds right, by round; () without one


def selections_by_reason(facts: Facts) -> SelectionSummary | None:
    """None before the first curation."""
    units = {r.round: r.unit for r in facts.status.rounds if facts.path(r.unit, "selections.parquet") is not None}
    found = {n: parquet_tables.read_selections(facts.run.unit(u) / "selections.parquet") for n, u in units.items()}
    found = {n: selections for n, selections in found.items() if selections}
    if not found:
        return None
    examples = _Examples(facts)
    reasons = []
    for curator in dict.fromkeys(s.curator for selections in found.values() for s in selections):
        for kind, rows in by_kind(curator, found).items():
            newest = max(n for n, own in rows.items() if len(own))
            some = examples.spread(units[newest], rows[newest], found[newest])
            reasons.append(DropReason(curator, kind, tuple(len(rows[n]) for n in found), some, newest))
    newest = max(found)
    last = [selections[-1] for selections in found.values()]
    return SelectionSummary(
        tuple(found), tuple(len(s.kept) for s in last), tuple(int(s.kept.sum()) for s in last), tuple(reasons),
        examples.groups(units[newest], found[newest]), newest, _right(facts, [units[n] for n in found]),
    )


def _right(facts: Facts, units: Sequence[str]) -> tuple[str, ...]:
    """How many of the kept candidates are right, and their share; nothing where no scorer verifies."""
    counts = [facts.counts(unit, "curate") for unit in units]
    if not any("kept_right" in count for count in counts):
        return ()
    return tuple(
        f"{number(count.get('kept_right'), 0)} ({share(facts.info(unit, 'curate').get('share_right'))})"
        for count, unit in zip(counts, units, strict=True)
    )


def by_kind(curator: str, found: Mapping[int, Sequence[Selection]]) -> dict[str, dict[int, Array]]:
    """Reason -> round -> the rows that the curator dropped for it.

    Reasons that differ only in numbers and ids are one kind; numbers that are equal in all of them stay. If many kinds
    remain, only the text before the colon separates them.
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
        label = _kind_label(curator, mask, mine.tolist())
        kinds[mask if label in kinds else label] = {n: rows[np.isin(why, mine)] for n, (rows, why) in dropped.items()}
    return kinds


def _kind_label(curator: str, mask: str, reasons: Sequence[str]) -> str:
    """The mask with the numbers that all reasons share, without the prefix of the curator's name."""
    values = [_VARIES.findall(reason) for reason in reasons]
    label = mask
    if _GAP in mask and len({len(v) for v in values}) == 1:
        shared = [column[0] if len(set(column)) == 1 else _GAP for column in zip(*values, strict=True)]
        parts = mask.split(_GAP)
        if len(parts) == len(shared) + 1:
            label = "".join(part + value for part, value in zip(parts, [*shared, ""], strict=True))
    return visible(label.removeprefix(f"{curator}: "))


class _Examples:
    """Reads samples and rewards of a round; decodes only the images that are displayed."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.classes = [str(name) for name in facts.info(DATA, "load").get("classes", ())]
        self._rewards: dict[str, Array] = {}

    def spread(self, unit: str, rows: Array, selections: Sequence[Selection]) -> tuple[SampleView, ...]:
        """Some of the rows, evenly from the lowest reward to the highest."""
        rewards = self.rewards(unit)
        order = rows[np.argsort(rewards[rows], kind="stable")] if len(rewards) else rows
        picks = order[np.unique(np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).round().astype(int))]
        return self.examples(unit, picks, selections)

    def groups(self, unit: str, selections: Sequence[Selection]) -> tuple[tuple[SampleView, ...], ...]:
        """All candidates of a few prompts; none if there is one per prompt, or too many to compare."""
        path = self.facts.path(unit, "samples.parquet")
        if path is None:
            return ()
        group = np.asarray(read_table(path, ["group"]).column("group").to_numpy())
        names, sizes = np.unique(group, return_counts=True)
        if len(names) == 0 or sizes.max() < 2 or sizes.max() > _MOST_CANDIDATES:
            return ()
        picks = names[np.linspace(0, len(names) - 1, min(_GROUPS, len(names))).round().astype(int)]
        return tuple(self.examples(unit, np.flatnonzero(group == pick), selections) for pick in picks)

    def rewards(self, unit: str) -> Array:
        """(N,) the weighted sum of the scorers, NaN where one is undefined; empty if nothing was scored."""
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

    def examples(self, unit: str, rows: Array, selections: Sequence[Selection]) -> tuple[SampleView, ...]:
        path = self.facts.path(unit, "samples.parquet")
        if path is None or len(rows) == 0:
            return ()
        rewards = self.rewards(unit)
        samples = _taken(path, rows)
        views = []
        for i, row in enumerate(rows.tolist()):
            reward = number(float(rewards[row]), 2) if len(rewards) else ""
            why, kept = _why(selections, row), bool(selections[-1].kept[row])
            views.append(sample_view(samples[i], self.classes, reward, why, kept))
        return tuple(views)


def _taken(path: Path, rows: Array) -> Samples:
    return to_samples(read_table(path).take(rows))


def _why(selections: Sequence[Selection], row: int) -> str:
    """The reason of the curator that dropped the sample; empty if it was kept."""
    return next((str(s.reasons[row]) for s in selections if not s.kept[row]), "")
