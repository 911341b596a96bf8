"""Rows for preparing the data: writing captions, filtering, and encoding by frozen networks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn.data.captioning import captioned, texts
from upturn.loop.assembly import Assembly
from upturn.loop.stages.load import caption_key
from upturn.loop.tools import Toolbox
from upturn.plan import expected_counts, timing
from upturn.plan.result import COMMIT, Row, placeholder_rewards
from upturn.protocols import Caption
from upturn.types import Array, Samples, Splits, concatenate

if TYPE_CHECKING:
    from collections.abc import Callable

    from upturn.protocols import Trainable

_CAPTIONED = 8  # images that a captioning model is timed on
_FILTERED = 256  # samples that the filter is timed on


def worded(parts: Assembly, splits: Splits) -> tuple[Splits, list[Row]]:
    """The data with the recipe's captions, and rows of those that a model has to write first.

    Of a model's captions some are written and none are kept: the data then stays as it is. Raises UserError where a
    strategy lacks what it needs.
    """
    key, rows, notes = caption_key(parts), [], []
    every = concatenate([part for part in (splits.train, splits.held_out) if len(part)])
    if parts.captions is not None and written_by_model(parts.captions):
        rows.append(_writing("data", parts.captions, every, splits, key))
        notes.append("captions that are stored already cost nothing: all are counted")
    elif parts.captions is not None:
        splits = captioned(parts.captions, splits, None, key)
    for evaluator in parts.evaluators:
        if evaluator.captions is None or evaluator.captions == parts.captions:
            continue
        if written_by_model(evaluator.captions):
            rows.append(_writing(f"data/{evaluator.name}", evaluator.captions, splits.held_out, splits, key))
        else:
            texts(evaluator.captions, splits.held_out, splits.classes, None, key)
    return replace(splits, notes=(*splits.notes, *notes)), rows


def written_by_model(strategy: Caption) -> bool:
    """Whether a model writes these captions."""
    return strategy.expensive


def _writing(unit: str, strategy: Caption, samples: Samples, splits: Splits, key: int) -> Row:
    def measure(count: int) -> object:
        return strategy.caption(samples.take(np.arange(count)), splits.classes, None, key)

    line = timing.measuring_line(measure, min(_CAPTIONED, len(samples)), len(samples))
    return Row(unit, "captions", len(samples), 0, 0.0, line(len(samples)))


def filtered(parts: Assembly, splits: Splits, tools: Toolbox) -> tuple[Samples, Row, list[str]]:
    """As many training samples as the filter is expected to keep, its row, and what had to be guessed."""
    filtering, spec = parts.filtering, parts.recipe.filter
    assert filtering is not None and spec is not None
    train = splits.train

    def measure(count: int) -> object:
        some = train.take(np.arange(count))
        for scorer, _ in filtering.scorers.values():
            scorer.score(some, tools)
        return [curator.curate(some, placeholder_rewards(count), tools, 0) for curator in filtering.curators.values()]

    line = _scoring(measure, len(train), tools)
    kept = expected_counts.after_filter(spec, len(train))
    rows: Array = np.linspace(0, len(train) - 1, kept).astype(np.int64)
    if parts.source.compares:  # whole comparisons
        groups = np.unique(train.group)
        some = np.linspace(0, len(groups) - 1, max(1, kept * len(groups) // len(train))).astype(np.int64)
        rows = np.flatnonzero(np.isin(train.group, groups[some]))
    row = Row("data", "filter", len(train), 0, 0.0, line(len(train)) + COMMIT)
    return train.take(rows), row, expected_counts.guesses(spec.curate, "the filter's curator")


def score_words_seconds(parts: Assembly, splits: Splits, tools: Toolbox) -> timing.Line:
    """Seconds that the scorers of ``score_words:`` take for n images."""
    words = parts.score_words
    assert words is not None
    train = splits.train

    def measure(count: int) -> object:
        some = train.take(np.arange(count))
        return [scorer.score(some, tools).values for scorer, _ in words.scorers.values()]

    return _scoring(measure, len(train), tools)


def _scoring(measure: Callable[[int], object], count: int, tools: Toolbox) -> timing.Line:
    return timing.measuring_line(measure, min(_FILTERED, count), count, loaded=lambda: len(tools.cache))


@dataclass
class Encoding:
    """Rows for encoding images and captions by frozen networks before each training, where a model has such.

    ``kept``: encodings are stored in a folder, so that a real image is encoded once in a run.
    """

    kept: bool
    _each: dict[str, float] = field(default_factory=dict)  # seconds of a sample, by model
    _known: int = 0

    def timed(self, model: Trainable, samples: int, encode: Callable[[], Any]) -> Any:
        """What ``encode`` returns; the first call measures the seconds of a sample."""
        seconds, found = timing.timed(encode)
        self._each.setdefault(model.id, seconds / max(1, samples))
        return found

    def row(self, unit: str, model: Trainable, count: int, new: int | None) -> list[Row]:
        """``count`` samples, of which ``new`` are the round's own; None where all are real."""
        if not model.expensive:
            return []
        fresh = count
        if self.kept:
            fresh = max(0, count - self._known) if new is None else min(count, new)
            self._known = max(self._known, count)
        return [Row(unit, "encode", fresh, 0, 0.0, fresh * self._each[model.id])]
