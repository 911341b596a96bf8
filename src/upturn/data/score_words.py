"""Words for the quality of an image, appended to its captions, so that prompts can request good images.

As score tags of anime models, and conditional training of Korbak et al., ICML 2023, "Pretraining language models with
human preferences", section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from upturn.data.caption_fields import CAPTIONS, with_captions
from upturn.types import REAL, Array, Prompt, Samples, objects

FIELD = "score_words"  # of the samples of a mixture: the words of each sample


def thresholds(levels: Mapping[float, str], shares: Mapping[float, str], rewards: Array) -> dict[float, str]:
    """Least reward -> words: ``levels`` as they are, of ``shares`` the least of the known among ``rewards`` (N,) that
    so large a share of them is below.

    ValueError where none is known, or none is above so many.
    """
    if levels:
        return dict(sorted(levels.items()))
    known = np.sort(rewards[~np.isnan(rewards)])
    if not len(known):
        raise ValueError("no reward is known")
    below = np.searchsorted(known, known, side="left") / len(known)
    found = {}
    for share in sorted(shares):
        if below[-1] < share:
            raise ValueError(f"rewards are so often equal that none is better than {share:.0%} of them")
        found[float(known[np.argmax(below >= share)])] = shares[share]
    return found


def earned(least: Mapping[float, str], rewards: Array) -> Array:
    """(N,) words by reward: those of the highest threshold that it reaches; "" below all, and for NaN."""
    order = sorted(least)
    words = ["", *(least[at] for at in order)]
    places = np.searchsorted(order, np.where(np.isnan(rewards), -np.inf, rewards), side="right")
    return objects([words[place] for place in places])


def asking(prompt: Prompt, words: str) -> Prompt:
    """The prompt with these words appended."""
    return replace(prompt, text=_joined(prompt.text, words))


def without_words(samples: Samples, words: str) -> Samples:
    """Synthetic samples without the words that their prompts were extended with; real samples unchanged."""
    captions = [
        texts if origin == REAL else [_without(text, words) for text in texts]
        for texts, origin in zip(_captions(samples), samples.origin, strict=True)
    ]
    return with_captions(samples, captions)


def with_words(samples: Samples) -> Samples:
    """Every caption with the words of the field "score_words" appended."""
    captions = [
        [_joined(text, word) for text in texts]
        for texts, word in zip(_captions(samples), samples.fields[FIELD], strict=True)
    ]
    return with_captions(samples, captions)


def _captions(samples: Samples) -> Sequence[Sequence[str]]:
    if CAPTIONS in samples.fields:
        return list(samples.fields[CAPTIONS])
    return [(prompt.text,) for prompt in samples.prompts]


def _joined(text: str, words: str) -> str:
    return ", ".join(part for part in (text, words) if part)


def _without(text: str, words: str) -> str:
    if not words:
        return text
    return "" if text == words else text.removesuffix(f", {words}")
