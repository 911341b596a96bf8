"""Tests of keyed random numbers against published known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from upturn import seeds


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123's kat_vectors, philox4x32 10 rounds
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter: list[int], key: list[int], answer: list[int]) -> None:
    words = seeds.philox(
        tuple(np.array([c], dtype=np.uint64) for c in counter), tuple(np.array([k], dtype=np.uint64) for k in key)  # type: ignore[arg-type]
    )
    assert [int(word[0]) for word in words] == answer


def test_a_row_depends_on_its_key_alone() -> None:
    keys = seeds.fold(5, range(100))
    whole = seeds.normal(keys, (3, 5))
    assert torch.equal(whole[40:60], seeds.normal(keys[40:60], (3, 5)))
    assert torch.equal(seeds.uniform(keys, (7,))[[3]], seeds.uniform(keys[[3]], (7,)))
    assert not torch.equal(seeds.normal(keys, (2,), stream=0), seeds.normal(keys, (2,), stream=1))


def test_a_table_can_be_read_in_parts() -> None:
    whole = seeds.table_normal(9, 0, 200, (4,))
    for start, stop in ((0, 64), (63, 65), (100, 101), (130, 200)):
        assert torch.equal(whole[start:stop], seeds.table_normal(9, start, stop, (4,)))
    assert not torch.equal(whole, seeds.table_normal(10, 0, 200, (4,)))


@pytest.mark.parametrize("draw", [seeds.normal, lambda keys, shape: seeds.table_normal(1, 0, len(keys), shape)])
def test_normal_is_normal(draw) -> None:  # type: ignore[no-untyped-def]
    """Kolmogorov–Smirnov on 40,000 numbers; the seed is fixed, so this passes or fails for good."""
    values = draw(seeds.fold(1, range(1000)), (40,)).numpy()
    assert stats.kstest(values.reshape(-1), "norm").pvalue > 0.01
    # rows are independent: 499,500 correlations of 40 numbers, greatest |r| expected near 0.67
    assert np.abs(np.corrcoef(values[:200]) - np.eye(200)).max() < 0.8


def test_uniform_is_inside_and_uniform() -> None:
    values = seeds.uniform(seeds.fold(2, range(2000)), (20,)).numpy().reshape(-1)
    assert values.min() > 0 and values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_keys_differ_by_words_and_types() -> None:
    different = [("a", 1), ("a1",), ("a", "1"), (1, "a"), ("a", 2), ("a",), ("a", 1, 0)]
    assert len({seeds.key(*parts) for parts in different}) == len(different)
    folded = seeds.fold(3, range(100_000))
    assert len(np.unique(folded)) == 100_000 and folded.min() >= 0
