"""Experiment: small language models of real text, retrained on their own samples."""

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
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

Policy = Literal["replace", "accumulate", "accumulate_subsample", "fixed_real"]

PERPLEXITY, EXCESS, SLOPE = "perplexity of held-out text", "excess loss", "slope of the loss"
DISTINCT, TAIL, NONWORDS = "distinct trigrams", "tail words lost", "words that the text does not have"
_RARE = (2, 10)  # occurrences of a tail word in the text of the first round
_TRIGRAM = 3
_SPAN = 0.5  # the slope is fitted over this last share of the rounds
_POISSON = "A learner that reproduces word frequencies, equally many words a round, n large: drift only."


@dataclass
class Text(Experiment):
    """A small language model, trained from scratch in every round on text sampled from the previous one."""

    text: str = setting("", "a file or folder of text; '' is the Python reference that CPython includes")
    n: list[int] = setting([250], "rows a round, of 64 tokens each")
    rounds: int = setting(10, "rounds; round 1 trains on real text")
    seeds: int = setting(4, "independent repetitions with different parts of the text, weights and noise")
    policy: list[Policy] = setting(["replace", "accumulate"], "replace, accumulate, accumulate_subsample or fixed_real")
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    steps: int = setting(250, "training steps of each model, from scratch: the same under every policy")
    batch: int = setting(16, "rows a step")
    width: int = setting(64, "of the transformer")
    layers: int = setting(2, "of the transformer")
    learning_rate: float = setting(6e-3, "peak; warm-up, then half-cosine schedule")
    vocabulary: int = setting(512, "tokens of the byte-pair encoding")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A language model trained on its own text"
    question: ClassVar[str] = (
        "Each language model is trained on text from the previous model. How fast does it lose the distribution of "
        "real text, and does keeping all earlier text prevent it?"
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
            PERPLEXITY: "Per token of real held-out text. It rises where each model is trained only on samples of the "
            "previous one.",
            EXCESS: "Held-out loss minus that of the model of real text, in nats per token, paired by repetition.",
            TAIL: f"Share of the words that occur {_RARE[0]} to {_RARE[1]} times in the real rows and never in as many "
            "generated ones; the line is the share that sampling noise alone removes from a learner of frequencies.",
            NONWORDS: "Share of generated words that do not occur in the training text.",
            DISTINCT: "Share of distinct trigrams among all token trigrams that a model generates.",
        }
        return [Chart(name.capitalize(), text, name, series="policy") for name, text in about.items()]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """First and last perplexity, and each policy's excess loss as a share of that under replace."""
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
    """The ratio of two independent measured means, and its standard error (delta method)."""
    share = row["simulation"] / whole["simulation"]
    return share, math.hypot(row["standard_error"], share * whole["standard_error"]) / abs(whole["simulation"])


class _TextRounds:
    """All repetitions of a cell, round by round; stored rounds are replayed without training."""

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
        """Keys of the repetition and the round only: every policy has the same noise."""
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
        """Trains the models of round t, samples from them and measures the held-out loss; returns a progress note."""
        models = next(self.models)
        if t <= self.kept:
            return ""
        self.losses.append(models.measure(self.read.held_out).mean(axis=1, dtype=np.float64))
        if not np.isfinite(self.losses[-1]).all():
            raise FloatingPointError(f"round {t}: the loss is not finite; lower the learning rate")
        self.generated.append(models.write(self.cell["n"], self._keys("writing", t)).astype(np.int16))
        return f"{policy_title(self.cell['policy'], self.cell['lam'])}, perplexity {np.exp(self.losses[-1]).mean():.1f}"

    def rows(self, t: int) -> Iterator[LabRow]:
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
        """Shares of lost tail words and of unknown words, and the predicted share of lost tail words."""
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



