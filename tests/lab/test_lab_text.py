"""The lab on text: stacked writers are what single ones are, know a planted law, and lose words as theory says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from upturn import seeds, theory
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.lab import experiment_runner
from upturn.lab.experiments import _token_rows as passages
from upturn.lab.experiments import text as lab
from upturn.lab.stacked_language import Size, Writers

pytestmark = pytest.mark.slow

SMALL = Size(vocabulary=7, length=6, width=32, heads=1, layers=2)
WORDS = ("the", "king", "and", "queen", "of", "this", "land", "shall", "yield", "man", "comes", "with", "sword", "gold")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three hundred thousand characters, twenty sections of the corpus, of words with frequencies of Zipf."""
    rng = np.random.default_rng(0)
    made = [f"{word}{ending}" for ending in ("", "s", "ed", "ly", "ing") for word in WORDS]
    shares = 1 / np.arange(1, len(made) + 1)
    drawn = rng.choice(made, size=60_000, p=shares / shares.sum())
    path = tmp_path_factory.mktemp("story") / "story.txt"
    path.write_text("\n\n".join(" ".join(drawn[i : i + 40]) for i in range(0, len(drawn), 40)), encoding="utf-8")
    return str(path)


def tiny(story: str, **settings: object) -> dict[str, object]:
    return {
        "text": story, "n": [60], "rounds": 3, "seeds": 2, "steps": 3, "batch": 4, "width": 32, "layers": 1,
        "vocabulary": 280, **settings,
    }


def test_a_stack_is_what_its_models_are_alone() -> None:
    """Losses, gradients of a training and drawn rows of each of three models, beside the same model by itself."""
    pool = np.random.default_rng(0).integers(7, size=(3, 20, 6)).astype(np.int16)
    spec, even = Training(steps=4, batch_size=5, learning_rate=1e-2), np.full(20, 1 / 20)
    together = Writers([1, 2, 3], SMALL, 0)
    together.train(pool, even, [4, 5, 6], spec)
    for m in range(3):
        alone = Writers([1 + m], SMALL, 0)
        alone.train(pool[m : m + 1], even, [4 + m], spec)
        for name, value in alone.weights.items():
            assert torch.allclose(value[0], together.weights[name][m], atol=2e-4), name
        assert alone.measure(pool[0])[0] == pytest.approx(together.measure(pool[0])[m], abs=1e-3)


def test_the_past_alone_is_seen_and_the_cache_changes_nothing() -> None:
    """A row's loss by tokens is what the step-by-step probabilities say, and a later token changes no earlier one."""
    models = Writers([1], SMALL, 0)
    with torch.no_grad():
        models.weights["head"].normal_(generator=torch.Generator().manual_seed(0))
    rows = torch.from_numpy(np.random.default_rng(1).integers(7, size=(1, 1, 6)))
    other = rows.clone()
    other[0, 0, -1] = (other[0, 0, -1] + 1) % 7

    def each(given: torch.Tensor) -> torch.Tensor:
        from upturn.lab import stacked_language

        before = torch.nn.functional.pad(given[:, :, :-1], (1, 0), value=0)
        logits = models._logits(before, 0, stacked_language._whole).log_softmax(dim=3)
        return logits[0, 0]

    assert torch.equal(each(rows), each(other))
    # 40,000 rows drawn token by token with the cache: their first two tokens have the shares that the whole pass says
    drawn = models.write(40_000, [9])[0]
    first = np.bincount(drawn[:, 0], minlength=7) / len(drawn)
    expected = each(rows)[0].exp().detach().numpy()
    assert np.abs(first - expected).max() < 5 * math.sqrt(0.25 / len(drawn))
    begin = int(first.argmax())
    given = rows.clone()
    given[0, 0, 0] = begin
    after = drawn[drawn[:, 0] == begin]
    second = np.bincount(after[:, 1], minlength=7) / len(after)
    assert np.abs(second - each(given)[1].exp().detach().numpy()).max() < 5 * math.sqrt(0.25 / len(after))


def test_a_planted_law_is_learned() -> None:
    """Rows that count upwards from a random token: one token of six is chance, log 7 / 6 nats a token."""
    start = np.random.default_rng(0).integers(7, size=(2, 500, 1))
    pool = ((start + np.arange(6)) % 7).astype(np.int16)
    models = Writers([1, 2], SMALL, 0)
    models.train(pool, np.full(500, 1 / 500), [3, 4], Training(steps=200, batch_size=32, learning_rate=1e-2))
    assert models.measure(pool[:, :100]).mean() == pytest.approx(math.log(7) / 6, abs=0.03)
    written = models.write(300, [5, 6])
    assert (np.diff(written, axis=2) % 7 == 1).mean() > 0.98


def test_weights_decide_what_is_read() -> None:
    """Of two kinds of rows the second has no weight: it is not learned."""
    pool = np.stack([np.ones((1, 10, 6)), np.full((1, 10, 6), 2)], axis=1).reshape(1, 20, 6).astype(np.int16)
    models = Writers([1], SMALL, 0)
    weights = np.repeat([0.1, 0.0], 10)
    models.train(pool, weights, [2], Training(steps=60, batch_size=8, learning_rate=1e-2))
    loss = models.measure(pool[0])[0]
    assert loss[:10].max() < 0.1 < 3 < loss[10:].min()


@pytest.mark.parametrize("lam", [math.inf, 1.0, 0.25])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_missed_against_multinomial_draws(rounds: int, lam: float) -> None:
    """Words that stand 1, 2 and 5 times among 3,000, in 8,000 replicas drawn one by one: within 4 standard errors."""
    n, replicas, counts = 3000, 8000, np.array([1, 2, 5])
    rng = np.random.default_rng(rounds)
    share = np.append(counts, n - counts.sum()) / n
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    drawn = rng.multinomial(n, np.tile(share, (replicas, 1)))
    for _ in range(rounds - 1):
        drawn = rng.multinomial(n, w * share + (1 - w) * drawn / n)
    expected = theory.missed(counts, rounds, lam=lam)
    assert np.all(np.abs(gone_share(drawn) - expected) < 4 * np.sqrt(expected * (1 - expected) / replicas))


@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_missed_accumulated_against_multinomial_draws(rounds: int, subsample: bool) -> None:
    n, replicas, counts = 3000, 8000, np.array([1, 2, 5])
    rng = np.random.default_rng(rounds)
    pool = np.tile(np.append(counts, n - counts.sum()), (replicas, 1))
    for t in range(1, rounds + 1):
        learned = rng.multinomial(n, pool / (t * n)) / n if subsample else pool / (t * n)
        drawn = rng.multinomial(n, learned)
        pool = pool + drawn
    expected = theory.missed_accumulated(counts, rounds, subsample=subsample)
    assert np.all(np.abs(gone_share(drawn) - expected) < 4 * np.sqrt(expected * (1 - expected) / replicas))


def gone_share(drawn: np.ndarray) -> np.ndarray:
    """Of each of the three words the share of replicas without it."""
    return np.asarray((drawn[:, :3] == 0).mean(axis=0))


def test_counts_and_distinct_of_known_rows(story: str) -> None:
    read = passages.read(story, 280, 60, 2, 0)
    assert read.train.shape == (2, 60, passages.LENGTH) and not set(read.train[0].flat) & {read.words.begin}
    row = read.codec.encode(["cut the king's gold and the rest end"])[0]
    counts = read.counts(np.array([row, row]))
    assert counts == {"the": 4, "king's": 2, "gold": 2, "and": 2, "rest": 2}
    assert passages.distinct(np.array([[1, 1, 1, 1]]), 3) == 0.5
    assert passages.distinct(np.array([[1, 2, 3, 4], [1, 2, 3, 5]]), 3) == 0.75
    with pytest.raises(UserError, match="rows"):
        passages.read(story, 280, 100_000, 2, 0)


def test_the_experiment_resumes_to_the_same_rows(story: str, tmp_path: Path) -> None:
    """A loop that is thrown away after a round goes on from its state, draw for draw."""
    settings = tiny(story, policy=["accumulate_subsample"])
    experiment = experiment_runner.make("text", settings)
    cell = experiment.cells()[:1]
    whole = list(experiment.chunks(cell, 0, {}))
    rest = list(experiment.chunks(cell, 2, whole[1].state))
    assert len(rest) == 1 and repr(rest[0].rows) == repr(whole[2].rows)
    assert np.array_equal(rest[0].state["made"], whole[2].state["made"])


def test_a_writer_that_learns_nothing_is_seen(story: str, tmp_path: Path) -> None:
    """Without training each token is equally likely: perplexity is the vocabulary's size, and tail words are lost."""
    found = experiment_runner.conduct("text", tiny(story, learning_rate=1e-9, rounds=2), tmp_path, workers=1)
    rows = {(row["policy"], row["quantity"], row["round"]): row for row in found["checks"]}
    for policy in ("replace", "accumulate"):
        assert rows[policy, lab.PERPLEXITY, 2]["simulation"] == pytest.approx(280, rel=1e-3)
        assert rows[policy, lab.EXCESS, 2]["simulation"] == pytest.approx(0, abs=1e-4)
        assert rows[policy, lab.NONWORDS, 2]["simulation"] > 0.5
        tail = rows[policy, lab.TAIL, 2]
        assert tail["simulation"] > 0.9 > tail["theory"] and tail["agrees"]
    assert len(found["sentences"]) == 2  # no part of an excess that there is not


def test_a_part_and_its_error() -> None:
    """The delta method beside 200,000 draws."""
    row, whole = ({"simulation": m, "standard_error": s} for m, s in ((0.2, 0.02), (1.0, 0.05)))
    rng = np.random.default_rng(0)
    drawn = (0.2 + 0.02 * rng.standard_normal(200_000)) / (1 + 0.05 * rng.standard_normal(200_000))
    share, error = lab.part(row, whole)
    assert share == pytest.approx(drawn.mean(), rel=0.01) and error == pytest.approx(drawn.std(), rel=0.02)


@pytest.mark.parametrize(
    "settings", [{"policy": ["fresh"]}, {"width": 40}, {"seeds": 1}, {"n": [1]}, {"lam": [-1.0]}, {"vocabulary": 100}]
)
def test_settings_that_make_no_experiment_are_refused(story: str, settings: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        experiment_runner.conduct("text", tiny(story, **settings), tmp_path, workers=1)


def test_chance_is_of_its_key_alone() -> None:
    assert passages.keys("a", 3, 0, 1)[:2] == passages.keys("a", 2, 0, 1)
    assert len({seeds.key("lab text a", 0, r, 1) for r in range(3)}) == 3
