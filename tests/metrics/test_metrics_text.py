"""Metrics of text against sums done by hand, brute force and known distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from helpers.text_metric_cases import Evidence, Tools, held_out, texts
from upturn import seeds
from upturn.errors import UserError
from upturn.metrics.distinct import Distinct
from upturn.metrics.perplexity import Perplexity
from upturn.metrics.verifier_accuracy import VerifierAccuracy, pass_at_k
from upturn.types import Batch, Outputs, Prompt, Ragged, Samples, real_samples

# --- perplexity -------------------------------------------------------------------------------------------------


class Unigram:
    """A model whose token is a character, with stated probabilities: perplexity can be done by hand."""

    likelihood = "exact"

    def __init__(self, probabilities: dict[str, float]) -> None:
        self.log = {c: math.log(p) for c, p in probabilities.items()}
        self.module = torch.nn.Linear(1, 1)

    def encode(self, samples: Samples) -> Batch:
        rows = [[self.log[c] for c in text] for text in samples.content]
        offsets = torch.tensor([0, *np.cumsum([len(row) for row in rows])])
        values = torch.tensor([x for row in rows for x in row])
        return Batch({"log": Ragged(values, offsets), "mask": Ragged(torch.ones(len(values)), offsets)})

    def forward(self, batch: Batch, draw: None) -> Outputs:
        assert not self.module.training
        return Outputs(batch["log"], batch["mask"])


def perplexity(model: Any, rows: Sequence[str], **fields: int) -> Any:
    return Perplexity(**fields).measure(Evidence(texts(["x"]), tools=Tools(held_out(rows), model)))


def test_perplexity_counts_every_token_once() -> None:
    model = Unigram({"a": 0.5, "b": 0.125})
    found = perplexity(model, ["a", "ab", "bbbb"])
    bits = (1 + 1 + 3 + 4 * 3) / 7
    assert found.value == pytest.approx(2**bits, rel=1e-6)
    assert found.details["bits_per_character"] == pytest.approx(bits, rel=1e-6)
    assert found.details["tokens"] == 7 and found.n == 3 and found.values is None
    assert found.low <= found.value <= found.high
    assert model.module.training, "the mode of the module is put back"


@pytest.mark.slow
def test_perplexity_interval_keeps_its_level() -> None:
    """Documents of uneven length and difficulty; 100 data sets: 95% ± 4 standard errors of a share (2.2% each)."""
    model = Unigram({"a": 0.5, "b": 0.125})
    rng = seeds.generator(8)

    def documents(n: int) -> list[str]:
        return ["".join(np.where(rng.random(int(rng.integers(5, 30))) < rng.beta(3, 3), "a", "b")) for _ in range(n)]

    lengths = [len(d) for d in documents(20_000)]
    assert min(lengths) < max(lengths)
    truth = 2 ** (0.5 * 1 + 0.5 * 3)  # half of the characters are a, whatever a document's share
    inside = 0
    for _ in range(100):
        found = perplexity(model, documents(60))
        inside += found.low <= truth <= found.high
    assert abs(inside / 100 - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / 100)


def test_perplexity_reports_how_many_documents_it_read() -> None:
    model = Unigram({"a": 0.5, "b": 0.125})
    found = perplexity(model, ["ab"] * 10, documents=4)
    assert found.n == 4 and found.note == "4 of 10 held-out documents"
    assert math.isnan(perplexity(model, []).value)


def test_perplexity_refuses_a_surrogate() -> None:
    model = Unigram({"a": 1.0})
    model.likelihood = "surrogate"
    with pytest.raises(UserError, match="needs exact log-likelihoods, those of the policy are surrogate"):
        perplexity(model, ["a"])


# --- verifier accuracy ------------------------------------------------------------------------------------------


def accuracy(rewards: Sequence[float], candidates: int, k: int) -> Any:
    samples = texts(["x"] * len(rewards), candidates)
    return VerifierAccuracy(k=k).measure(Evidence(samples, np.array(rewards, dtype=np.float64)))


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    for n in range(1, 8):
        for right in range(n + 1):
            outcomes = [1] * right + [0] * (n - right)
            for k in range(1, n + 1):
                expected = np.mean([max(subset) for subset in combinations(outcomes, k)])
                assert pass_at_k(np.array([n]), np.array([right]), k)[0] == pytest.approx(expected, abs=1e-12)
            assert math.isnan(pass_at_k(np.array([n]), np.array([right]), n + 1)[0])


def test_pass_at_k_is_unbiased() -> None:
    """From 8 candidates each right with probability p, the mean of pass@4 is 1 - (1-p)^4; four standard errors."""
    right = seeds.generator(5).binomial(8, 0.2, 20_000)
    values = pass_at_k(np.full(20_000, 8), right, 4)
    assert abs(values.mean() - (1 - 0.8**4)) <= 4 * values.std() / math.sqrt(20_000)
    assert np.isfinite(pass_at_k(np.array([100_000]), np.array([3]), 1000)).all()


def test_accuracy_at_1_and_at_k() -> None:
    rewards = [1, 0, 0, 0, 0, 0, 1, 1]  # two prompts of four
    one = accuracy(rewards, 4, 1)
    assert one.value == 3 / 8 and one.n == 8 and one.note == ""
    assert one.values.tolist() == rewards and one.low < one.value < one.high
    two = accuracy(rewards, 4, 2)
    assert two.values.tolist() == pytest.approx([1 - 3 / 6, 1 - 1 / 6])
    assert two.value == pytest.approx(2 / 3) and two.n == 2
    assert accuracy(rewards, 4, 4).value == 1.0


def test_unscored_samples_are_left_out_and_counted() -> None:
    nan = float("nan")
    one = accuracy([1, nan, 0, 0, nan, nan, nan, 1], 4, 1)
    assert one.value == 2 / 4 and one.n == 4 and "4 of 8 samples were not scored" in one.note
    assert len(one.values) == 8 and np.isnan(one.values).sum() == 4
    two = accuracy([1, nan, 0, 0, nan, nan, nan, 1], 4, 2)
    assert two.value == pytest.approx(1 - 1 / 3) and two.n == 1
    assert "1 of 2 prompts have fewer than 2 scored candidates" in two.note
    assert math.isnan(accuracy([nan, nan], 1, 1).value)
    undefined = accuracy([1, 0], 1, 2)
    assert math.isnan(undefined.value) and "no prompt has 2 scored candidates" in undefined.note


def test_rewards_that_are_no_verdicts_are_not_averaged() -> None:
    found = accuracy([0.3, 1.0], 1, 1)
    assert math.isnan(found.value) and "neither 0 nor 1" in found.note


# --- distinct ---------------------------------------------------------------------------------------------------


def brute(rows: Sequence[str], n: int, split: Any) -> float:
    grams = [tuple(units[i : i + n]) for row in rows for units in [split(row)] for i in range(len(units) - n + 1)]
    return len(set(grams)) / len(grams)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_distinct_is_the_share_of_different_n_grams(n: int) -> None:
    rng = seeds.generator(4)
    rows = [" ".join(rng.choice(["a", "bb", "c", "d"], int(rng.integers(0, 12)))) for _ in range(60)]
    words = Distinct(n=n).measure(Evidence(texts(rows)))
    assert words.value == pytest.approx(brute(rows, n, str.split), abs=1e-12)
    characters = Distinct(n=n, unit="characters").measure(Evidence(texts(rows)))
    assert characters.value == pytest.approx(brute(rows, n, list), abs=1e-12)
    assert words.low <= words.value <= words.high and words.values is None


def test_signs_are_words_of_their_own() -> None:
    found = Distinct(n=1).measure(Evidence(texts(["12+7*3=33", "12 + 7"])))
    assert found.details == {"different": 7, "all": 10}  # 12 + 7 * 3 = 33, then 12 + 7 again


def test_distinct_of_repeated_samples_falls() -> None:
    rows = [f"{i} {i + 1} {i + 2}" for i in range(0, 90, 3)]
    assert Distinct().measure(Evidence(texts(rows))).value == 1.0
    assert Distinct().measure(Evidence(texts(rows * 2))).value == 0.5


def test_short_samples_are_counted_and_an_empty_set_is_undefined() -> None:
    found = Distinct(n=2).measure(Evidence(texts(["a", "b c d"])))
    assert found.value == 1.0 and found.note == "1 of 2 samples are shorter than 2 words"
    nothing = Distinct(n=2).measure(Evidence(texts(["a", ""])))
    assert math.isnan(nothing.value) and "no sample has 2 words" in nothing.note


@pytest.mark.slow
def test_distinct_interval_covers_what_this_many_samples_give() -> None:
    """Zipf words, 80 samples of 12, 100 data sets: at least 85% hold the mean (nominal: 95%, approximate)."""
    rng = seeds.generator(6)
    shares = 1 / np.arange(1, 400)
    shares /= shares.sum()
    found = []
    for _ in range(100):
        rows = [" ".join(map(str, row)) for row in rng.choice(399, (80, 12), p=shares)]
        found.append(Distinct(n=1).measure(Evidence(texts(rows))))
    mean = np.mean([m.value for m in found])
    assert np.mean([m.low <= mean <= m.high for m in found]) >= 0.85
    assert np.mean([m.high - m.low for m in found]) < 0.1


def test_other_kinds_are_answered_with_a_note() -> None:
    points = real_samples("points", np.zeros((3, 2), np.float32), [Prompt()] * 3, "p")
    for metric in (Distinct(), Perplexity()):
        found = metric.measure(Evidence(replace(points)))
        assert math.isnan(found.value) and "the samples are points" in found.note


def test_bad_fields() -> None:
    for make in (lambda: Distinct(n=0), lambda: VerifierAccuracy(k=0), lambda: Perplexity(documents=1)):
        with pytest.raises(ValueError, match="is at least"):
            make()
