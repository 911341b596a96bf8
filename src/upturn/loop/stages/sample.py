"""K candidates a prompt from the incumbent, in shards: what is sampled stays sampled."""

from __future__ import annotations

import shutil

import numpy as np

from upturn import seeds
from upturn.config.schema import Rounds, Sampling
from upturn.data.groups import first_of_each
from upturn.loop.checks.caption_strategy import prompt_for
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.tools import where
from upturn.store import parquet_tables
from upturn.types import Prompt, Samples, concatenate


def sample(context: RunContext, unit: str, number: int, incumbent: str) -> Outcome:
    """rounds/NNN/samples.parquet; keys from (seed, round, prompt, candidate)."""
    if context.finished(unit, "sample"):
        return Done()
    rounds = context.parts.recipe.rounds
    assert rounds is not None and rounds.sample is not None
    policy = context.policy(incumbent)
    worded = context.with_score_words(_prompts(context, rounds, rounds.sample, number))
    prompts = [prompt_for(policy, p) for p in worded]
    keys = prompt_keys(context.key("sample", number), prompts, rounds.sample.candidates)
    size = rounds.sample.shard
    folder = context.run.unit(unit) / ".sample-progress"
    folder.mkdir(parents=True, exist_ok=True)
    with context.committing(unit, "sample") as out:
        parts: list[Samples] = []
        for start in range(0, len(prompts), size):
            path = folder / f"shard-{start:08d}.parquet"
            if not path.exists():
                with context.computing(out):
                    some = slice(start, start + size)
                    drawn = context.draw(policy, prompts[some], keys[some], context.parts.sampling)
                partial = path.with_suffix(".tmp")
                parquet_tables.write_samples(partial, drawn)
                partial.rename(path)
            # read back, so that a resumed round sees exactly what an undisturbed one sees
            parts.append(parquet_tables.read_samples(path))
            context.observer.advance(min(start + size, len(prompts)), len(prompts), "prompts")
        samples = concatenate(parts)
        parquet_tables.write_samples(out.path / "samples.parquet", samples)
        out.counts["samples"] = len(samples)
        out.info.update(model=policy.id, incumbent=incumbent)
        if "guide" in samples.fields:
            out.info["guide"] = str(samples.fields["guide"][0])
        if not context.parts.sampling.keyed:
            out.info["key_reproducible"] = False
            context.observer.note(
                f"{unit}: drawn by {context.parts.sampling.sampler}; keys do not reproduce these samples"
            )
    shutil.rmtree(folder, ignore_errors=True)
    return Done()


def _prompts(context: RunContext, rounds: Rounds, sampling: Sampling, number: int) -> list[Prompt]:
    """The prompts of a round: texts of the recipe in sequence, or those of real samples."""
    if sampling.texts:
        return [context.prompt_of(sampling.texts[i % len(sampling.texts)]) for i in range(sampling.prompts)]
    selected = rounds.mix.where if sampling.where is None else sampling.where
    pool = where(context.tools.train, selected, "rounds.sample")
    return round_prompts(pool, sampling.prompts, context.key("prompts", number))


def round_prompts(pool: Samples, count: int, key: int) -> list[Prompt]:
    """``count`` prompts of real samples, each used equally often up to one, in an order that depends on the key.

    A prompt that has several candidates in the data is one prompt.
    """
    pool = pool.take(first_of_each(pool))
    rng = seeds.generator(key)
    passes = -(-count // len(pool))
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(passes)])[:count]
    return [pool.prompts[i] for i in order]
