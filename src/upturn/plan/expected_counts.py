"""How many samples a round is expected to keep and to train on, before any is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from upturn.annotation.vote_mode import mode_named
from upturn.config import components
from upturn.config.schema import Filter, Mix, Rounds
from upturn.protocols import Curator, MixingPolicy
from upturn.theory import Selector, selector_of

_ROUNDING = 1e-9  # samples: 0.07 * 100 is 7.000000000000001, and 7 are kept


def sampled(rounds: Rounds) -> int:
    """Candidates that a round samples before its training."""
    return 0 if rounds.sample is None else rounds.sample.prompts * rounds.sample.candidates


def kept(rounds: Rounds) -> int:
    """How many candidates a round is expected to keep."""
    if rounds.sample is None:
        return 0
    count = float(sampled(rounds))
    for curator in _curators(rounds.curate):
        count = curator.expected_kept(count, rounds.sample.prompts)
    return max(1, round(count))


def selection(rounds: Rounds) -> list[Selector]:
    """The round's curators in the symbols of the theory, each with the share of what it reads that it should keep."""
    if rounds.sample is None:
        return []
    found, count = [], float(sampled(rounds))
    for curator in _curators(rounds.curate):
        left = curator.expected_kept(count, rounds.sample.prompts)
        found.append(selector_of(curator, left / count))
        count = left
    return found


def after_filter(spec: Filter, count: int) -> int:
    """How many of ``count`` real samples the filter is expected to keep."""
    left = float(count)
    for curator in _curators(spec.curate):
        left = math.ceil(curator.expected_kept(left, left) - _ROUNDING)
    return max(1, round(left))


def _curators(specs: Sequence[Mapping[str, object]]) -> list[Curator]:
    return [components.make("curator", {k: v for k, v in spec.items() if k != "as"}, "rounds.curate") for spec in specs]


def guesses(specs: Sequence[Mapping[str, object]], reader: str) -> list[str]:
    """A note on each curator whose share kept is assumed; ``reader`` names the part of the recipe that has it."""
    pairs = zip(specs, _curators(specs), strict=True)
    assumed = {str(spec["name"]): curator for spec, curator in pairs if curator.kept_is_assumed}
    return [f"{reader} '{name}' is assumed to keep {curator.expected_kept(1.0, 1.0):.0%} of the samples that it reads"
            for name, curator in assumed.items()]


def votes(rounds: Rounds) -> list[str]:
    """A note on the votes that a run needs, in answers and person-hours."""
    people, sample = rounds.people, rounds.sample
    if people is None or sample is None:
        return []
    tasks = min(people.prompts or sample.prompts, sample.prompts)
    tasks *= 1 if mode_named(people.mode).compares else sample.candidates
    wanted = min(people.quota or tasks * people.overlap, tasks * people.overlap)
    answers = round(wanted * rounds.count / (1 - people.repeats))
    again = ", those asked twice counted" if people.repeats else ""
    return [
        f"people give {answers:,} answers ('{people.mode}', {wanted:,} a round{again}): "
        f"{answers * people.seconds / 3600:.1f} person-hours at {people.seconds:g} s each, which no time above holds; "
        f"at least {people.overlap} {'people' if people.overlap > 1 else 'person'}"
    ]


def mixed(policy: MixingPolicy, mix: Mix, sizes: Sequence[int], rounds: int) -> int:
    """Rows of a round's mixture; ``sizes`` are the real rows, and those kept in each round so far."""
    share = mix.lambda_
    real = 0 if share == math.inf else policy.real_count(sizes[0], mix.real, rounds) * mix.repeat
    synthetic = 0 if share == 0 else sum(sizes[number] for number in policy.rounds_used(len(sizes) - 1))
    return round(sum(policy.expected_rows(real, synthetic, mix.size or sizes[0], share).values()))
