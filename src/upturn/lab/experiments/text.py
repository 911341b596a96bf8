"""Small language models of real text, retrained on what they write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from upturn import seeds, theory
from upturn.lab.experiment import Cell, Chart, Chunk, Experiment, State, setting
from upturn.lab.experiments import _token_rows as passages
from upturn.lab.experiments._policies import ABOUT_LAMBDA, policy_title, resolved, rounds
from upturn.lab.rows import Formula, Row, measured
from upturn.types import Array

Policy = Literal["replace", "accumulate", "accumulate_subsample", "fixed_real"]

PERPLEXITY, EXCESS, SLOPE = "perplexity of held-out text", "excess loss", "slope of the loss"
DISTINCT, TAIL, NONWORDS = "distinct trigrams", "tail words lost", "words that the text does not have"
_RARE = (2, 10)  # how often a tail word stands in the text that the first model reads
_TRIGRAM = 3
_SPAN = 0.5  # the slope is that of this last part of the rounds
_POISSON = "Words keep the frequencies of what was read, as many words a round, n large: drift alone."


@dataclass
class Text(Experiment):
    """A small language model on real text, trained from nothing in every round on what the one before has written."""

    text: str = setting("", "a file or folder of text; '' is the Python reference inside CPython")
    n: list[int] = setting([250], "rows a round, of 64 tokens each")
    rounds: int = setting(10, "rounds; round 1 reads real text")
    seeds: int = setting(4, "independent repetitions: other parts of the text, other weights, other chance")
    policy: list[Policy] = setting(["replace", "accumulate"], "replace, accumulate, accumulate_subsample or fixed_real")
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    steps: int = setting(250, "training steps of each model, from nothing: the same under every policy")
    batch: int = setting(16, "rows a step")
    width: int = setting(64, "of the transformer")
    layers: int = setting(2, "of the transformer")
    learning_rate: float = setting(6e-3, "the highest; warmed up, then a half cosine")
    vocabulary: int = setting(512, "tokens of the byte-pair encoding")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A writer that reads itself"
    question: ClassVar[str] = (
        "A language model learns from text that the model before it wrote. How fast does it forget how people write, "
        "and does keeping everything ever written prevent it?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "missed": Formula(
            "mean of e^{-ac}: a = Σ w g + g, g ← 1-e^{-(1-w)g}", _POISSON, "theory.missed", "at least"
        ),
        "missed_accumulated": Formula(
            "mean of e^{-sc}: s = 1/t, s ← s + (1-e^{-s})/k, k = t-1 … 1", _POISSON, "theory.missed_accumulated",
            "at least",
        ),
    }
    parallel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.n) < 2 or min(self.rounds, self.steps, self.batch, self.layers) < 1 or self.seeds < 2:
            raise ValueError("needs n and seeds of 2 or more; rounds, steps, batch and layers of at least 1")
        if self.vocabulary < 256 + 3:
            raise ValueError(f"vocabulary {self.vocabulary} is too small: every byte and three special tokens are 259")
        if self.width < passages.HEAD or self.width % passages.HEAD:
            raise ValueError(f"width {self.width} is no multiple of {passages.HEAD}, the width of a head")
        if min(self.lam) < 0 or math.isnan(sum(self.lam)):
            raise ValueError(f"λ must not be below 0, got {min(self.lam):g}")
        if not set(self.policy) <= set(get_args(Policy)):
            raise ValueError(f"policies are {', '.join(get_args(Policy))}")

    def cells(self) -> list[Cell]:
        return resolved(super().cells())

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        loop = _TextRounds(self, cells[0], state, after)
        for t in range(1, self.rounds + 1):
            note = loop.turn(t)
            if t > after:
                yield Chunk(list(loop.rows(t)), (), loop.state(), note)

    def charts(self) -> Sequence[Chart]:
        about = {
            PERPLEXITY: "Of real text that no model has read, a token. It climbs where each model reads only the one "
            "before.",
            EXCESS: "Held-out loss above that of the model of real text, nats a token, paired by repetition.",
            TAIL: f"Share of the words that stand {_RARE[0]} to {_RARE[1]} times in the real rows and nowhere in as "
            "many written ones; the line is what chance alone would take from a learner of word frequencies.",
            NONWORDS: "Share of written words that stand nowhere in the whole training text.",
            DISTINCT: "Share of trigrams of tokens that are different, of all that a model writes.",
        }
        return [Chart(name.capitalize(), text, name, series="policy") for name, text in about.items()]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """Perplexities at both ends, and each policy's excess as a part of replace's."""
        last = [row for row in table if row["round"] == self.rounds]
        first = {_cell(row): row for row in table if row["quantity"] == PERPLEXITY and row["round"] == 1}
        out = [
            f"Under {policy_title(*_cell(row)[:2])} the perplexity of held-out text goes from "
            f"{first[_cell(row)]['simulation']:.1f} to {row['simulation']:.1f} in {self.rounds} rounds."
            for row in last if row["quantity"] == PERPLEXITY
        ]
        rows = {_cell(row): row for row in last if row["quantity"] == EXCESS}
        for cell, row in rows.items():
            whole = rows.get(("replace", math.inf, row["n"]))
            if cell[0] != "replace" and whole is not None and whole["simulation"] > 0:
                share, error = part(row, whole)
                name = policy_title(*cell[:2])
                out.append(f"The excess loss under {name} is {share:.2f} ± {error:.2f} of that under replace.")
        return out


def _cell(row: Mapping[str, Any]) -> tuple[str, float, int]:
    return str(row["policy"]), float(row["lam"]), int(row["n"])


def part(row: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[float, float]:
    """One measured mean as a part of another, and its standard error (delta method, independent)."""
    share = row["simulation"] / whole["simulation"]
    return share, math.hypot(row["standard_error"], share * whole["standard_error"]) / abs(whole["simulation"])


class _TextRounds:
    """All repetitions of a cell, from round to round; rounds that are kept are gone through without training."""

    def __init__(self, of: Text, cell: Cell, state: State, kept: int) -> None:
        self.of, self.cell, self.kept = of, cell, kept
        self.read = passages.read(of.text, of.vocabulary, cell["n"], of.seeds, of.seed)
        self.generated = [np.array(part) for part in state.get("made", ())]
        self.losses = [np.array(part) for part in state.get("losses", ())]
        self.t = 0
        rng = seeds.generator(self._keys("pool", 0)[0])
        self.models = rounds(
            cell["policy"], cell["lam"], rng, lambda: self.read.train, self._fit,
            lambda model: self.generated[self.t - 1],
        )

    def _keys(self, purpose: str, t: int) -> list[int]:
        """Of the repetition and the round alone: every policy has the same chance."""
        return passages.keys(purpose, self.of.seeds, self.of.seed, t)

    def _fit(self, rows: Array, weights: Array) -> Any:
        self.t += 1
        if self.t <= self.kept:
            return None
        from upturn.config.schema import Training
        from upturn.lab.stacked_language import Size, Writers

        of, words = self.of, self.read.words
        size = Size(words.size, passages.LENGTH, of.width, of.width // passages.HEAD, of.layers)
        spec = Training.model_validate(
            {"steps": of.steps, "batch_size": of.batch, "learning_rate": of.learning_rate}
        )
        models = Writers(self._keys("weights", self.t), size, words.begin)
        models.train(rows, weights, self._keys("training", self.t), spec)
        return models

    def turn(self, t: int) -> str:
        """The models of round t, what they write and what they make of held-out text."""
        models = next(self.models)
        if t <= self.kept:
            return ""
        self.losses.append(models.measure(self.read.held_out).mean(axis=1, dtype=np.float64))
        if not np.isfinite(self.losses[-1]).all():
            raise FloatingPointError(f"round {t}: the loss is no number; lower the learning rate")
        self.generated.append(models.write(self.cell["n"], self._keys("writing", t)).astype(np.int16))
        return f"{policy_title(self.cell['policy'], self.cell['lam'])}, perplexity {np.exp(self.losses[-1]).mean():.1f}"

    def rows(self, t: int) -> Iterator[Row]:
        loss, generated = self.losses[t - 1], self.generated[t - 1]
        yield measured(0, PERPLEXITY, t, np.exp(loss))
        yield measured(0, EXCESS, t, loss - self.losses[0])
        yield measured(0, DISTINCT, t, np.array([passages.distinct(one, _TRIGRAM) for one in generated]))
        lost, strange, due = zip(*(self._words(one, r, t) for r, one in enumerate(generated)), strict=True)
        by = "missed" if self.cell["policy"] in ("replace", "fixed_real") else "missed_accumulated"
        yield measured(0, TAIL, t, np.array(lost), float(np.mean(due)), by)
        yield measured(0, NONWORDS, t, np.array(strange))
        if t == self.of.rounds and t > 1:
            span = np.array(self.losses[-max(2, round(_SPAN * t)) :])
            yield measured(0, SLOPE, t, np.polyfit(np.arange(len(span)), span, 1)[0])

    def _words(self, generated: Array, repetition: int, t: int) -> tuple[float, float, float]:
        """The share of tail words that are lost, of words that are none, and the share that chance alone would take."""
        real, written = self.read.counts(self.read.train[repetition]), self.read.counts(generated)
        tail = [word for word, count in real.items() if _RARE[0] <= count <= _RARE[1]]
        if not tail:
            return math.nan, math.nan, math.nan
        counts = np.array([real[word] for word in tail])
        lost = np.mean([word not in written for word in tail])
        strange = sum(count for word, count in written.items() if word not in self.read.known)
        policy, lam = self.cell["policy"], self.cell["lam"]
        if policy in ("replace", "fixed_real"):
            due = theory.missed(counts, t, lam=lam)
        else:
            due = theory.missed_accumulated(counts, t, subsample=policy == "accumulate_subsample")
        return float(lost), strange / max(sum(written.values()), 1), float(due.mean())

    def state(self) -> State:
        return {"made": np.stack(self.generated), "losses": np.stack(self.losses)}



