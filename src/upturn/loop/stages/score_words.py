"""Score words: the scores of images as words that follow the captions that a model is trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from upturn.data import score_words as words
from upturn.errors import RunError
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.store.columns import read_table, write_table
from upturn.store.units import DATA
from upturn.types import REAL, Samples, concatenate, objects

_FILE = "score_words.parquet"


def score_words(context: RunContext) -> Outcome:
    """data/score_words.parquet: sample_id, reward (null: unscored) and words of all real samples that are used.

    The record has the thresholds and how many training samples have each word. RunError where no reward is known.
    """
    spoken = context.parts.score_words
    assert spoken is not None
    if context.finished(DATA, "score_words"):
        return Done()
    import pyarrow as pa

    train, held_out = context.tools.train, context.tools.held_out
    with context.committing(DATA, "score_words") as out, context.computing(out):
        every = concatenate([part for part in (train, held_out) if len(part)])
        _, rewards = context.judged(every, spoken.scorers)
        try:
            least = words.thresholds(spoken.levels, spoken.shares, rewards[: len(train)])
        except ValueError as error:
            raise RunError(
                f"of {len(train):,} training samples, {error}", where="score_words",
                fix="Look at its scorers and the fields that they need; 'levels:' names rewards themselves.",
            ) from None
        found = words.earned(least, rewards)
        write_table(out.path / _FILE, pa.table({
            "sample_id": pa.array(every.ids.tolist(), pa.string()),
            "reward": pa.array(rewards, mask=np.isnan(rewards)), "words": pa.array(found.tolist(), pa.string()),
        }))
        counted = Counter(found[: len(train)].tolist())
        out.info["least"] = [[at, word] for at, word in least.items()]
        out.info["training_samples"] = {word or "none": count for word, count in sorted(counted.items())}
    counts_text = ", ".join(f"{count:,} {word or 'without'}" for word, count in sorted(counted.items()))
    context.observer.note(f"score words of {len(train):,} training samples: {counts_text}")
    return Done()


def with_words(context: RunContext, samples: Samples) -> Samples:
    """Samples of a mixture, real and synthetic, with the word of each in the field "score_words"; unchanged
    without ``score_words:`` in the recipe.

    Real samples have the stored word; synthetic ones are scored now, without the words that their prompts requested.
    """
    spoken = context.parts.score_words
    if spoken is None:
        return samples
    found = objects([""] * len(samples))
    real = samples.origin == REAL
    table = read_table(context.run.unit(DATA) / _FILE)
    known = dict(zip(table.column("sample_id").to_pylist(), table.column("words").to_pylist(), strict=True))
    found[real] = [known[str(name)] for name in samples.ids[real]]
    if not real.all():
        _, rewards = context.judged(words.without_words(samples.take(~real), spoken.ask), spoken.scorers)
        found[~real] = words.earned(_least(context), rewards)
    return samples.with_fields(**{words.FIELD: found})


def with_words_in_prompts(context: RunContext, samples: Samples) -> Samples:
    """Samples that ``with_words`` went through, as the model reads them."""
    spoken = context.parts.score_words
    if spoken is None or words.FIELD not in samples.fields:
        return samples
    return words.with_words(words.without_words(samples, spoken.ask))


def _least(context: RunContext) -> dict[float, str]:
    record = context.run.done(DATA, "score_words")
    assert record is not None, "the data's words are found before any round"
    return {float(at): str(word) for at, word in record.info["least"]}
