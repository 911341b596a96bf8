"""Similarity of images to the captions that they were generated for, by a dual encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.embeddings.image_text_encoder import Encoded, ImageTextEncoder
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement, Samples

_NEAR = 10  # number of nearest texts that are searched for the right one: recall@10


@dataclass
class CaptionAlignment(Encoded, Metric):
    """Mean cosine of an image and its prompt's text (CLIPScore of Hessel et al. 2021 without its factor 2.5).

    ``model``, ``folder`` or ``hub`` names the dual encoder. Cosines of two encoders cannot be compared; the details
    calibrate them: ``placed`` is the share of the evaluation's other texts that fit an image worse than its own (0.5 by
    chance, ties half; with its interval, candidates of a prompt together), ``recall_at_10`` how often its own is among
    the 10 nearest, with ``chance``; and ``real``, both for held-out images and their own texts.

    Samples whose prompt has no text are left out (NaN) and counted in the note.
    """

    title: ClassVar[str] = "Caption alignment"
    meaning: ClassVar[str] = (
        "Similarity of images and the captions that they were generated for, by a model that embeds both: higher "
        "is better."
    )
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    better: ClassVar[Better] = "higher"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        samples = evidence.samples
        encoder = self.encoder(evidence.tools)
        values, placed, near, texts = fitted(encoder, samples)
        known = int((~np.isnan(values)).sum())
        if not known:
            raise UndefinedMetric("no prompt has a text (the model is unconditional, or its captions are empty)")
        key = metric_key(evidence, "caption_alignment")
        low, high = bootstrap_mean(values, key, clusters=samples.group)
        details: dict[str, Any] = {"texts": texts, "encoder": encoder.id}
        details |= _calibrated(placed, near, texts, key, samples.group)
        real = evidence.tools.held_out
        if len(real):
            own, their, their_near, count = fitted(encoder, real)
            if np.isfinite(own).any():
                details["real"] = {"value": float(np.nanmean(own)), "texts": count,
                                   **_calibrated(their, their_near, count, key, real.group)}
        missing = len(values) - known
        note = f"{missing} of {len(values)} samples have a prompt without text" if missing else ""
        return Measurement(float(np.nanmean(values)), low, high, known, values, note, details)


def fitted(encoder: ImageTextEncoder, samples: Samples) -> tuple[Array, Array, Array, int]:
    """(N,) cosine, (N,) share of the other texts that fit worse, (N,) own text among the 10 nearest; how many texts.

    NaN where the prompt has no text; the last two where there is no other.
    """
    has_text = np.array([bool(prompt.text.strip()) for prompt in samples.prompts])
    cosine, placed, near = (np.full(len(samples), np.nan) for _ in range(3))
    rows = np.flatnonzero(has_text)
    if not len(rows):
        return cosine, placed, near, 0
    names, own = np.unique([samples.prompts[row].text for row in rows], return_inverse=True)
    scores = encoder.images(samples.content[rows]) @ encoder.texts([str(name) for name in names]).T
    mine = np.take_along_axis(scores, own.reshape(-1, 1), axis=1)
    cosine[rows] = mine[:, 0]
    others = len(names) - 1
    if others:
        worse, equal = (scores < mine).sum(axis=1), (scores == mine).sum(axis=1) - 1
        placed[rows] = (worse + equal / 2) / others
        near[rows] = (scores > mine).sum(axis=1) < _NEAR
    return cosine, placed, near, len(names)


def _calibrated(placed: Array, near: Array, texts: int, key: int, groups: Array) -> dict[str, Any]:
    if not np.isfinite(placed).any():
        return {"placed": None}
    low, high = bootstrap_mean(placed, key, clusters=groups)
    ends = {"low": low, "high": high}
    out: dict[str, Any] = {"value": float(np.nanmean(placed))}
    out |= {name: end if np.isfinite(end) else None for name, end in ends.items()}
    return {"placed": out, "recall_at_10": float(np.nanmean(near)), "chance": min(1.0, _NEAR / texts)}
