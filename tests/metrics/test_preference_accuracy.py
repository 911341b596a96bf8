"""Preference accuracy against pairs whose order by log-probability is planted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from upturn.metrics.preference_accuracy import PreferenceAccuracy
from upturn.protocols import INITIAL_POLICY
from upturn.types import Batch, Outputs, Prompt, Samples, real_samples


class Fixed:
    """A model whose log-prob of a text is a table's."""

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table
        self.module = torch.nn.Linear(1, 1)

    def encode(self, samples: Samples) -> Batch:
        return Batch({"value": torch.tensor([[self.table[str(text)]] for text in samples.content])})

    def forward(self, batch: Batch, draw: Any) -> Outputs:
        return Outputs(batch["value"], torch.ones_like(batch["value"]))


@dataclass
class Tools:
    held_out: Samples
    models: dict[str, Fixed] = field(default_factory=dict)

    def model(self, name: str) -> Fixed:
        return self.models[name]


@dataclass
class Evidence:
    samples: Samples
    tools: Tools
    seed: int = 0


def evidence(pairs: list[tuple[str, str]], policy: dict[str, float], base: dict[str, float], **fields: Any) -> Evidence:
    texts = [text for pair in pairs for text in pair]
    ranks = fields.get("rank", np.array([1, 2] * len(pairs)))
    samples = real_samples("text", texts, [Prompt(f"p{i // 2}") for i in range(len(texts))], "s", {"rank": ranks})
    samples = Samples(
        samples.kind, samples.ids, samples.prompts, samples.content, samples.origin, samples.source,
        np.repeat(np.arange(len(pairs)), 2), np.tile([0, 1], len(pairs)), samples.fields,
    )
    return Evidence(samples, Tools(samples, {"policy": Fixed(policy), INITIAL_POLICY: Fixed(base)}))


PAIRS = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
POLICY = {"a": -1.0, "b": -3.0, "c": -5.0, "d": -1.0, "e": -2.0, "f": -2.0, "g": -9.0, "h": -1.0}
BASE = {"a": -2.0, "b": -3.0, "c": -5.0, "d": -2.0, "e": -3.0, "f": -3.0, "g": -20.0, "h": -1.0}


def test_it_is_the_share_of_pairs_with_the_larger_gain_over_the_base() -> None:
    """Gains: a 1 and b 0; c 0 and d 1; e and f 1 each; g 11 and h 0: right, wrong, half, right."""
    found = PreferenceAccuracy().measure(evidence(PAIRS, POLICY, BASE))  # type: ignore[arg-type]
    assert found.value == pytest.approx(2.5 / 4)
    assert found.values is not None and found.values.tolist() == [1.0, 0.0, 0.5, 1.0]
    assert found.low <= found.value <= found.high


def test_without_a_reference_the_log_probability_decides() -> None:
    found = PreferenceAccuracy(relative=False).measure(evidence(PAIRS, POLICY, BASE))  # type: ignore[arg-type]
    assert found.values is not None and found.values.tolist() == [1.0, 0.0, 0.5, 0.0]


def test_the_untrained_policy_has_one_half() -> None:
    found = PreferenceAccuracy().measure(evidence(PAIRS, BASE, BASE))  # type: ignore[arg-type]
    assert found.value == 0.5


def test_ties_are_left_out_and_counted() -> None:
    given = evidence(PAIRS, POLICY, BASE, rank=np.array([1, 2, 1, 1, 1, 1, 1, 2]))
    found = PreferenceAccuracy().measure(given)  # type: ignore[arg-type]
    assert (found.value, found.n) == (1.0, 2)
    assert "2 pairs of 2 comparisons" in found.note


def test_data_without_comparisons_has_none() -> None:
    samples = real_samples("text", ["a"], [Prompt("p")], "s")
    found = PreferenceAccuracy().measure(Evidence(samples, Tools(samples)))  # type: ignore[arg-type]
    assert math.isnan(found.value) and "no comparisons" in found.note
