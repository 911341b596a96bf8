"""The rows of the rounds: candidates are sampled and scored, then each training of a round follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from upturn.config.schema import Rounds, Sampling, Turn
from upturn.data.groups import by_reward, encode_groups
from upturn.data.mixer import expected_real_fraction
from upturn.loop.checks.caption_strategy import prompt_for
from upturn.loop.stages.mix import learned
from upturn.loop.tools import where
from upturn.plan import expected_counts, timing
from upturn.plan.planner import Planner, PromptDraw, Timed
from upturn.plan.result import COMMIT, Row, placeholder_rewards
from upturn.plan.short_steps import is_large
from upturn.plan.timing import SamplingTime
from upturn.protocols import Policy
from upturn.store.units import round_unit, within
from upturn.training.feeds import OnlineFeed
from upturn.types import Batch, Ragged, Rollout, Samples

_LOG_PROB = -1.0  # nats of a token, in place of what the policy would have acted with
_ENDLESS = 10**9  # passes
_FITTED = 0.9  # of the labelled groups; the reward model is assessed on the others


def add_rounds(planner: Planner, rounds: Rounds) -> tuple[float, ...]:
    """Adds the rows of all rounds; the real fraction of each round's training data, from round 0."""
    planner.notes += [*expected_counts.guesses(rounds.curate, "the curator"), *expected_counts.votes(rounds)]
    if rounds.sample is None:
        return _online_rounds(planner, rounds, rounds.train[0])
    return _sampled_rounds(planner, rounds, rounds.sample)


def _sampled_rounds(planner: Planner, rounds: Rounds, sampling: Sampling) -> tuple[float, ...]:
    pool = where(planner.splits.train, rounds.mix.where if sampling.where is None else sampling.where, "rounds.sample")
    mixable = where(planner.splits.train, rounds.mix.where, "rounds.mix")
    settings, mixing = planner.parts.sampling, planner.parts.mixing
    assert mixing is not None
    seen = planner.sampled(pool, sampling.candidates, settings, sampling.prompts)
    scoring, count = planner.scoring(seen, sampling.prompts), expected_counts.sampled(rounds)
    labelling = {
        name: planner.scoring(seen, min(model.refit.prompts or sampling.prompts, sampling.prompts), name)
        for name, model in planner.recipe.models.items() if model.refit is not None
    }
    flops, fractions = count * planner.policy.sampling_flops(settings), [1.0]
    for number in range(1, rounds.count + 1):
        unit = round_unit(number)
        planner.add_sampling_memory(unit, "sample", settings, sampling.prompts, sampling.candidates)
        planner.rows.append(Row(unit, "sample", count, 0, flops, seen.line(sampling.prompts) + COMMIT))
        for name, model in planner.recipe.models.items():
            if model.refit is not None:
                labelled = min(model.refit.prompts or sampling.prompts, sampling.prompts)
                seconds = labelling[name](labelled) + COMMIT
                planner.rows.append(Row(f"{unit}/{name}", "judge", labelled * sampling.candidates, 0, 0.0, seconds))
                rows = round(_FITTED * labelled * number * sampling.candidates)
                groups = _as_groups(seen, None)
                planner.train_on(within(unit, name), "fit", planner.tools.model(name), model.refit, groups, rows)
        planner.rows.append(Row(unit, "score", count, 0, 0.0, scoring(sampling.prompts) + 2 * COMMIT))
        fraction = 1.0
        for turn in rounds.train:
            into = unit if turn is rounds.train[-1] else within(unit, turn.label)
            objective = planner.parts.objective(turn)
            if objective.example == "group":
                like = _as_groups(seen, objective.candidates)
                rows, fraction = len(like) * sampling.prompts // seen.prompts, 0.0
                new = rows
            else:
                real, _ = learned(objective, mixable)
                sizes = [len(real), *[expected_counts.kept(rounds)] * number]
                like, new = real, expected_counts.kept(rounds)
                rows = expected_counts.mixed(mixing, rounds.mix, sizes, rounds.count)
                if planner.recipe.score_words is not None:
                    planner.rows.append(Row(into, "score_words", new, 0, 0.0, planner.words(new)))
                real_rows = mixing.real_count(len(real), rounds.mix.real, rounds.count) * rounds.mix.repeat
                fraction = expected_real_fraction(mixing, rounds.mix.lambda_, number, [real_rows, *sizes[1:]])
            planner.train_on(into, "train", planner.policy, turn, like, rows, new)
        fractions.append(fraction)  # of the last training, which makes the round's model
        planner.evaluate(unit, rounds.train[-1])
    return tuple(fractions)


def _online_rounds(planner: Planner, rounds: Rounds, turn: Turn) -> tuple[float, ...]:
    online = turn.online
    assert online is not None
    pool = where(planner.splits.train, online.where, "rounds.train.online")
    seen = planner.sampled(pool, online.candidates, planner.parts.sampling, online.prompts)
    batch = _drawn(planner, turn, pool, seen)
    # one set without end: what a set costs before its first step is added by the draw, not timed with the steps
    feed = OnlineFeed(lambda number: batch, len(batch), turn.batch_size, _ENDLESS, 0)
    timed = Timed(batch, feed, online.prompts)
    drawn = online.prompts * online.candidates
    seconds = seen.line(online.prompts) + planner.scoring(seen, online.prompts)(online.prompts)
    draw = PromptDraw(online.passes, seconds, drawn * planner.policy.sampling_flops(planner.parts.sampling))
    for number in range(1, rounds.count + 1):
        unit = round_unit(number)
        planner.train(unit, "train", planner.policy, turn, timed, drawn, draw)
        planner.evaluate(unit, turn)
    return (1.0, *[0.0] * rounds.count)


def _as_groups(seen: SamplingTime, candidates: int | None) -> Samples:
    """Groups with placeholder ranks: the time of a step does not depend on which candidate is better."""
    width = min(candidates or seen.candidates, seen.candidates)
    some = seen.samples.take(seen.samples.candidate < width)
    rewards = placeholder_rewards(len(some))
    ranks = (-rewards.reshape(-1, width)).argsort(axis=1).argsort(axis=1) + 1
    return some.with_fields(rank=ranks.reshape(-1), score=rewards)


def _drawn(planner: Planner, turn: Turn, pool: Samples, seen: SamplingTime) -> Batch:
    """What the policy learns from online, as it is drawn."""
    objective, policy = planner.parts.objective(turn), planner.policy
    if objective.example != "rollout":
        wanted = objective.candidates
        return encode_groups(policy, by_reward(seen.samples, placeholder_rewards(len(seen.samples)), wanted), wanted)
    if is_large(policy) and policy.kind == "text":
        return _as_rollout(policy, pool, turn.batch_size, seen.candidates)
    count = min(seen.prompts, turn.batch_size)
    keys = timing.candidate_keys(count, seen.candidates)
    prompts = [prompt_for(policy, pool.prompts[i % len(pool)]) for i in range(count)]
    rollout: Rollout = policy.rollout(prompts, keys, planner.as_trained(planner.parts.sampling))
    rewards = torch.from_numpy(placeholder_rewards(keys.size).reshape(keys.shape)).float()
    batch: Batch = policy.replay(rollout)
    return replace(batch, candidates=seen.candidates, given={"rewards": rewards})


def _as_rollout(policy: Policy, pool: Samples, prompts: int, candidates: int) -> Batch:
    """What ``replay`` makes of a rollout, from the data's own texts: they have the usual lengths."""
    rows = pool.take(np.repeat(np.arange(prompts) % len(pool), candidates))
    batch = policy.encode(rows)
    fewer = (batch.columns["tokens"].lengths - 1).clamp_min(0)  # type: ignore[union-attr]
    offsets = torch.nn.functional.pad(fewer.cumsum(0), (1, 0))
    behaviour = Ragged(torch.full((int(offsets[-1]),), _LOG_PROB), offsets)
    rewards = torch.from_numpy(placeholder_rewards(len(rows)).reshape(prompts, candidates)).float()
    return replace(batch.with_columns(behaviour=behaviour), candidates=candidates, given={"rewards": rewards})
