"""Candidates drawn from the policy as it trains: sampled, scored, stored, then learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upturn.config import components
from upturn.config.schema import Online
from upturn.data.groups import by_reward, encode_groups
from upturn.errors import RunError
from upturn.loop.checks.caption_strategy import prompt_for
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.loop.stages.sample import round_prompts
from upturn.loop.stages.score import without_spread
from upturn.loop.tools import where
from upturn.protocols import Objective
from upturn.store import parquet_tables
from upturn.store.commit import Draft
from upturn.types import Array, Batch, Mixture, Samples, Scores, concatenate


@dataclass
class Draws:
    """``feeds.OnlineFeed.draw``: set after set of the policy's own candidates, on the disk before its first step."""

    context: RunContext
    unit: str
    policy: Any  # the model that is being trained
    online: Online
    objective: Objective
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        at = f"{self.unit}: online"
        self.settings = components.checked(self.policy.Sampling, self.online.settings, f"{at}.settings", "sampling")
        self.pool = where(self.context.tools.train, self.online.where, at)

    def __call__(self, number: int) -> Batch:
        """The batch of draw ``number``: P examples of K rows, or as many as have something to compare."""
        online, key = self.online, self.context.key("draw", self.unit, number)
        worded = self.context.with_score_words(round_prompts(self.pool, online.prompts, key))
        prompts = [prompt_for(self.policy, p) for p in worded]
        keys = prompt_keys(key, prompts, online.candidates)
        was_training = self.policy.module.training
        self.policy.module.eval()
        if self.objective.example == "rollout":
            rollout = self.policy.rollout(prompts, keys, self.settings)
            samples, rewards = rollout.samples, self._judged(rollout.samples, number)
            given = {"rewards": torch.from_numpy(rewards.reshape(keys.shape)).float()}
            batch: Batch = replace(self.policy.replay(rollout), candidates=online.candidates, given=given)
        else:
            samples = self.context.draw(self.policy, prompts, keys, self.settings)
            rewards = self._judged(samples, number)
            wanted = self.objective.candidates
            batch = encode_groups(self.policy, by_reward(samples, rewards, wanted), wanted)
        self.policy.module.train(was_training)
        return batch

    def _judged(self, samples: Samples, number: int) -> Array:
        """(N,) rewards; the first process stores the samples and their scores."""
        found, rewards = self.context.scores(samples)
        if np.isnan(rewards).all():
            raise RunError(
                "not one candidate was scored: there is no reward to learn from", where=f"{self.unit}, draw {number}",
                fix="Look at the scorer, and at the fields that it needs.",
            )
        if not self.context.follower:
            marked = samples.with_fields(draw=np.full(len(samples), number, dtype=np.int64))
            _stored(self.folder / f"draw-{number:06d}.parquet", marked, found)
        return rewards


def _stored(path: Path, samples: Samples, found: Sequence[Scores]) -> None:
    partial = path.with_suffix(".tmp")
    parquet_tables.write_scores(path.with_suffix(".scores"), samples, found)
    parquet_tables.write_samples(partial, samples)
    partial.rename(path)


def keep_draws(context: RunContext, unit: str, folder: Path, draws: int, out: Draft) -> None:
    """Write samples, scores and mixture of all that a stage drew; its figures of rewards go into the record."""
    paths = [folder / f"draw-{number:06d}.parquet" for number in range(draws)]
    parts = [parquet_tables.read_samples(path) for path in paths]
    stored = [parquet_tables.read_scores(path.with_suffix(".scores")) for path in paths]
    samples = concatenate(parts)
    parquet_tables.write_samples(out.path / parquet_tables.SAMPLES, samples)
    scores = [Scores(name, np.concatenate([s[name].values for s in stored])) for name in context.parts.scorers]
    parquet_tables.write_scores(out.path / parquet_tables.SCORES, samples, scores)
    mixture = Mixture(samples, np.ones(len(samples)))
    parquet_tables.write_mixture(out.path / parquet_tables.MIXTURE, mixture, [unit] * len(samples))
    weights = [weight for _, weight in context.parts.scorers.values()]
    rewards = sum(weight * s.values for weight, s in zip(weights, scores, strict=True))
    known = np.asarray(rewards, dtype=np.float64)
    first, last = (known[samples.fields["draw"] == number] for number in (0, draws - 1))
    out.counts.update(samples=len(samples), unscored=int(np.isnan(known).sum()))
    without = without_spread(samples, known)
    out.info.update(
        reward=float(np.nanmean(last)), reward_at_first=float(np.nanmean(first)), groups_without_spread=without,
        real_fraction=0.0,
    )
    out.info["rewards_equal"] = bool(np.nanmin(known) == np.nanmax(known))
    groups = len(np.unique(samples.group))
    if without > groups / 2:
        context.observer.note(f"{unit}: {without} of {groups} prompts do not train: they have equal rewards")
    finish = samples.fields.get("finish")
    if finish is not None and (cut := int((finish == "length").sum())):
        out.counts["cut_off"] = cut
        context.observer.note(f"{unit}: {cut} of {len(samples)} completions reached max_tokens without an end")
