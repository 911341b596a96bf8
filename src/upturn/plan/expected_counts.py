"""What a round is expected to keep and to train on, before anybody has seen a reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

from upturn.config import components
from upturn.config.schema import Filter, Mix, Rounds, Sampling
from upturn.protocols import MixingPolicy

_ROUNDING = 1e-9  # samples: 0.07 * 100 is 7.000000000000001, and 7 are kept
UNKNOWN_KEPT = 0.5  # share that a threshold is taken to keep: it depends on rewards that nobody has seen yet


def sampled(rounds: Rounds) -> int:
    """Candidates that a round makes before its training."""
    return 0 if rounds.sample is None else rounds.sample.prompts * rounds.sample.candidates


def kept(rounds: Rounds) -> int:
    """How many candidates a round is expected to keep."""
    if rounds.sample is None:
        return 0
    count = float(sampled(rounds))
    for spec in rounds.curate:
        count = _after(count, spec, rounds.sample)
    return max(1, round(count))


def after_filter(asked: Filter, count: int) -> int:
    """How many of ``count`` real samples the filter is expected to keep."""
    left = float(count)
    for spec in asked.curate:
        left = math.ceil(_after(left, spec, None) - _ROUNDING)
    return max(1, round(left))


def _after(count: float, spec: dict[str, object], sample: Sampling | None) -> float:
    curator = components.make("curator", {k: v for k, v in spec.items() if k != "as"}, "rounds.curate")
    if sample is not None and spec["name"] in ("choice", "best_of_n", "picked"):
        return min(count, sample.prompts * getattr(curator, "keep", 1))
    if spec["name"] == "top_fraction":
        return count * float(curator.fraction)
    return count * UNKNOWN_KEPT if spec["name"] == "threshold" else count


def guesses(rounds: Rounds) -> list[str]:
    """What had to be guessed, said once."""
    if any(spec["name"] == "threshold" for spec in rounds.curate):
        return [f"a threshold is taken to keep {UNKNOWN_KEPT:.0%} of what it sees"]
    return []


def votes(rounds: Rounds) -> list[str]:
    """What people have to give, in answers and hours, and how long the run waits for it."""
    people, sample = rounds.people, rounds.sample
    if people is None or sample is None:
        return []
    tasks = min(people.prompts or sample.prompts, sample.prompts)
    tasks *= sample.candidates if people.mode in ("rate", "edit") else 1
    wanted = min(people.quota or tasks * people.overlap, tasks * people.overlap)
    answers = round(wanted * rounds.count / (1 - people.repeats))
    again = ", those asked twice counted" if people.repeats else ""
    return [
        f"people give {answers:,} answers ('{people.mode}', {wanted:,} a round{again}): "
        f"{answers * people.seconds / 3600:.1f} person-hours at {people.seconds:g} s each, which no time above holds; "
        f"at least {people.overlap} {'people' if people.overlap > 1 else 'person'}"
    ]


def share_kept(rounds: Rounds) -> float | None:
    """What a curator that keeps a share of the candidates keeps; None for those that choose among them."""
    if not {c["name"] for c in rounds.curate} & {"threshold", "top_fraction"}:
        return None
    return kept(rounds) / sampled(rounds)


def mixed(policy: MixingPolicy, mix: Mix, sizes: Sequence[int], rounds: int) -> int:
    """Rows of a round's mixture; ``sizes`` are the real rows, and those kept in each round so far."""
    share = mix.lambda_
    real = 0 if share == math.inf else policy.real_count(sizes[0], mix.real, rounds) * mix.repeat
    synthetic = 0 if share == 0 else sum(sizes[number] for number in policy.rounds_used(len(sizes) - 1))
    return round(sum(policy.expected_rows(real, synthetic, mix.size or sizes[0], share).values()))
