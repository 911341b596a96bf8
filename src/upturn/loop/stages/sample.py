"""K candidates a prompt from the incumbent, in shards: what is sampled stays sampled."""

from __future__ import annotations

import shutil

import numpy as np

from upturn import seeds
from upturn.config.schema import Rounds, Sampling
from upturn.loop.checks.caption_strategy import prompt_for
from upturn.loop.stages.context import Done, Outcome, Work, prompt_keys
from upturn.loop.tools import where
from upturn.store import parquet_tables
from upturn.types import Prompt, Samples, concatenate


def sample(work: Work, unit: str, number: int, incumbent: str) -> Outcome:
    """rounds/NNN/samples.parquet; keys from (seed, round, prompt, candidate)."""
    if work.finished(unit, "sample"):
        return Done()
    rounds = work.parts.recipe.rounds
    assert rounds is not None and rounds.sample is not None
    policy = work.policy(incumbent)
    prompts = [prompt_for(policy, p) for p in work.asking(_asked(work, rounds, rounds.sample, number))]
    keys = prompt_keys(work.key("sample", number), prompts, rounds.sample.candidates)
    size = rounds.sample.shard
    folder = work.run.unit(unit) / ".sample-progress"
    folder.mkdir(parents=True, exist_ok=True)
    with work.committing(unit, "sample") as out:
        parts: list[Samples] = []
        for start in range(0, len(prompts), size):
            path = folder / f"shard-{start:08d}.parquet"
            if not path.exists():
                with work.computing(out):
                    some = slice(start, start + size)
                    made = work.draw(policy, prompts[some], keys[some], work.parts.sampling)
                partial = path.with_suffix(".tmp")
                parquet_tables.write_samples(partial, made)
                partial.rename(path)
            # read back, so that a resumed round sees exactly what an undisturbed one sees
            parts.append(parquet_tables.read_samples(path))
            work.watch.advance(min(start + size, len(prompts)), len(prompts), "prompts")
        samples = concatenate(parts)
        parquet_tables.write_samples(out.path / "samples.parquet", samples)
        out.counts["samples"] = len(samples)
        out.info.update(model=policy.id, incumbent=incumbent)
        if "guide" in samples.fields:
            out.info["guide"] = str(samples.fields["guide"][0])
        if not work.parts.sampling.keyed:
            out.info["key_reproducible"] = False
            work.watch.note(f"{unit}: drawn by {work.parts.sampling.sampler}; keys do not reproduce these samples")
    shutil.rmtree(folder, ignore_errors=True)
    return Done()


def _asked(work: Work, rounds: Rounds, sampling: Sampling, number: int) -> list[Prompt]:
    """The prompts of a round: texts of the recipe in turn, or those of real samples."""
    if sampling.texts:
        return [Prompt(sampling.texts[i % len(sampling.texts)]) for i in range(sampling.prompts)]
    asked = rounds.mix.where if sampling.where is None else sampling.where
    pool = where(work.tools.train, asked, "rounds.sample")
    return round_prompts(pool, sampling.prompts, work.key("prompts", number))


def round_prompts(pool: Samples, count: int, key: int) -> list[Prompt]:
    """``count`` prompts of real samples, each used as evenly as can be, in an order that the key fixes."""
    rng = seeds.generator(key)
    turns = -(-count // len(pool))
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(turns)])[:count]
    return [pool.prompts[i] for i in order]
