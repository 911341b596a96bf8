"""What the curators kept, what they dropped and why: counts by round, and samples to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upturn.report import pictures
from upturn.report.facts import DATA, Facts
from upturn.report.samples import prompt_label
from upturn.report.text import shortened
from upturn.report.words import number
from upturn.store import tables
from upturn.store.columns import read_table, to_samples
from upturn.types import Array, Sample, Samples, Selection

EARLIER = "dropped by an earlier curator"
_EXAMPLES = 6  # of each reason
_GROUPS = 6  # prompts whose candidates are shown together
_MOST_TOGETHER = 8  # candidates of a prompt that fit beside each other
_TEXT = 260  # characters of an example


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
    found = {n: tables.read_selections(facts.run.unit(u) / "selections.parquet") for n, u in units.items()}
    found = {n: selections for n, selections in found.items() if selections}
    if not found:
        return None
    counted = {n: _counted(selections) for n, selections in found.items()}
    kinds = dict.fromkeys(kind for counts in counted.values() for kind in counts)
    looks = _Looks(facts)
    reasons = []
    for curator, kind in kinds:
        newest = max(n for n, counts in counted.items() if counts[curator, kind])
        rows = _rows_of(found[newest], curator, kind)
        counts = tuple(counted[n][curator, kind] for n in found)
        reasons.append(Reason(curator, kind, counts, looks.spread(units[newest], rows, found[newest]), newest))
    newest = max(found)
    last = [selections[-1] for selections in found.values()]
    return Choices(
        tuple(found), tuple(len(s.kept) for s in last), tuple(int(s.kept.sum()) for s in last), tuple(reasons),
        looks.groups(units[newest], found[newest]), newest,
    )


def _kind(reason: str) -> str:
    """A reason may carry numbers after its kind; it is counted by kind."""
    return str(reason).split(":")[0]


def _counted(selections: Sequence[Selection]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for selection in selections:
        dropped = selection.reasons[~selection.kept]
        for kind, count in Counter(map(_kind, dropped.tolist())).items():
            if kind != EARLIER:
                counts[selection.curator, kind] += count
    return counts


def _rows_of(selections: Sequence[Selection], curator: str, kind: str) -> Array:
    mine = next(s for s in selections if s.curator == curator)
    return np.flatnonzero([not kept and _kind(why) == kind for kept, why in zip(mine.kept, mine.reasons, strict=True)])


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
            found = {} if path is None else tables.read_scores(path)
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
