"""Self-BLEU and the tail of rare words, against the reference library and exact probabilities."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from helpers.metric_cases import measure
from helpers.text_metric_cases import Evidence, Tools, texts
from upturn.metrics.tail_coverage import seen_by_chance

WORDS = ["the", "a", "cat", "dog", "saw", "ran", "old", "red", "house", "tree", "and", "but"]


def sentences(n: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(2, 9))) for _ in range(n)]


@pytest.mark.parametrize("n", [2, 4])
def test_self_bleu_is_nltks(n):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    rows = [*sentences(30, 1), "unlike all others", "the cat saw"]
    split = [row.split() for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [
            sentence_bleu(split[:i] + split[i + 1 :], row, [1 / n] * n, SmoothingFunction(epsilon=0.1).method1)
            for i, row in enumerate(split)
        ]
    found = measure("self_bleu", Evidence(texts(rows)), n=n)
    np.testing.assert_allclose(found.values, theirs, atol=1e-9)
    assert found.low < found.value < found.high


def test_self_bleu_of_repetition_is_one_and_falls_with_variety():
    same = measure("self_bleu", Evidence(texts(["the cat saw the old dog"] * 20)))
    assert same.value == pytest.approx(1.0)
    assert measure("self_bleu", Evidence(texts(sentences(60, 2)))).value < 0.95


def test_tail_coverage_counts_rare_words_that_are_still_used():
    rare = [f"rare{i}" for i in range(40)]
    train = [f"{word} common common" for word in rare] + ["common other"] * 50
    held_out = [f"common {word}" for word in rare]
    used = [f"common {word}" for word in rare[:10]] + ["common other"] * 30
    tools = Tools(texts(held_out))
    tools.__class__ = type("Two", (Tools,), {"train": property(lambda self: texts(train))})
    found = measure("tail_coverage", Evidence(texts(used), tools=tools))
    assert found.value == 10 / 40
    assert found.details["rare"] == 40
    assert found.low < found.value < found.high
    undefined = measure("tail_coverage", Evidence(texts(used), tools=Tools(texts(["common"] * 10))))
    assert "at least 30 are needed" in undefined.note


def test_what_chance_would_use_is_hypergeometric():
    from scipy.stats import hypergeom

    counts = np.array([1, 2, 5])
    expected = 1 - hypergeom(1000, counts, 300).pmf(0)
    np.testing.assert_allclose(seen_by_chance(counts, 1000, 300), expected, atol=1e-9)
    np.testing.assert_allclose(seen_by_chance(counts, 1000, 1000), 1.0)
