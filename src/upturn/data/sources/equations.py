"""Arithmetic with worked steps: generated, or out of GSM8K-format files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np

from upturn import seeds
from upturn.data.sources._arithmetic_steps import Worked, work_out, work_out_pieces
from upturn.data.sources._common import Rows, a_file, check_fraction, divide, with_own_test
from upturn.data.sources._gsm8k import problems
from upturn.data.split import content_keys
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Prompt, Samples, Splits, objects

_BLOCK = 512  # expressions drawn at a time
_PATIENCE = 40  # times the wanted number of draws before saying that there are too few expressions


@dataclass(frozen=True)
class Equations(Source):
    """Arithmetic: the prompt is "12+7*3=", the completion "12+21=33", one operation per step; all exact.

    Generated, unless ``train`` names a GSM8K-format file (``<<48/2=24>>`` inside the answers): then its equations. Held
    out by expression. ``Prompt.fields["answer"]`` is the final number.

    count       generated expressions, all different
    operations  how many operators, from and to
    operators   which: any of + - * /
    largest     operands are drawn uniformly from 1 to this
    parentheses share of the expressions with one pair of brackets
    results     [low, high] that every value on the way must keep to; any where null
    seed        of the generated ones
    train, test files in GSM8K's format; without ``test`` a share of the expressions of ``train`` is held out
    held_out    share of the expressions that training never sees
    worked      how many train expressions come with their solution; null: all. samples.fields["solution"] says
                "given" or "unseen": train on ``where: {solution: given}``, and let the model try the others
    """

    kind: ClassVar[Kind] = "text"

    count: int = 5000
    operations: list[int] = field(default_factory=lambda: [2, 4])
    operators: str = "+-*"
    largest: int = 20
    parentheses: float = 0.0
    results: list[int] | None = None
    seed: int = 0
    train: str | None = None
    test: str | None = None
    held_out: float = 0.1
    worked: int | None = None

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        if len(self.operations) != 2 or not 1 <= self.operations[0] <= self.operations[1]:
            raise ValueError(f"operations must be two numbers [from, to] of 1 or more, not {self.operations}")
        if not self.operators or set(self.operators) - set("+-*/"):
            raise ValueError(f"operators must be some of + - * /, not {self.operators!r}")
        if self.count < 2 or self.largest < 1:
            raise ValueError(f"count must be 2 or more and largest 1 or more, not {self.count} and {self.largest}")
        if not 0.0 <= self.parentheses <= 1.0:
            raise ValueError(f"parentheses must lie in [0, 1], not {self.parentheses}")
        if self.results is not None and (len(self.results) != 2 or self.results[0] > self.results[1]):
            raise ValueError(f"results must be two numbers [low, high], not {self.results}")
        if self.worked is not None and self.worked < 1:
            raise ValueError(f"worked must be 1 or more, not {self.worked}")
        if self.test is not None and self.train is None:
            raise ValueError("test needs train: both are files in GSM8K's format")

    def load(self) -> Splits:
        """Makes or reads the equations. Raises UserError: file and line, or that there are not so many."""
        splits = self._split()
        return replace(
            splits, train=self._marked(splits.train), held_out=self._marked(splits.held_out, nothing_given=True)
        )

    def _marked(self, samples: Samples, nothing_given: bool = False) -> Samples:
        """Which solutions are given: those of smallest content id, so that it does not depend on the order."""
        given = np.zeros(len(samples), dtype=bool)
        if not nothing_given:
            given[np.argsort(samples.ids.astype(str), kind="stable")[: self.worked or len(samples)]] = True
        return samples.with_fields(solution=objects(np.where(given, "given", "unseen").tolist()))

    def _split(self) -> Splits:
        if self.train is None:
            return divide(_rows(self._generated()), self.held_out, "equations")
        train, notes = _from_file(self.train, "train")
        if self.test is None:
            return divide(_rows(train), self.held_out, "equations", notes=notes)
        test, more = _from_file(self.test, "test")
        return with_own_test(_rows(train), _rows(test), "equations", notes=(*notes, *more))

    def _generated(self) -> dict[str, tuple[str, str]]:
        """expression -> (completion, answer), ``count`` of them."""
        found: dict[str, tuple[str, str]] = {}
        base = seeds.key("equations", self.seed)
        for block, key in enumerate(seeds.fold(base, range(1 + self.count * _PATIENCE // _BLOCK))):
            for operands, pieces in self._expressions(int(key)):
                text = "".join(pieces)
                if text not in found and (worked := self._accepted(operands, pieces)):
                    found[text] = worked
                    if len(found) == self.count:
                        return found
            if block * _BLOCK > self.count * _PATIENCE // 4 and len(found) < self.count // 8:
                break
        raise UserError(
            f"only {len(found):,} different expressions were found with these settings, {self.count:,} are requested",
            where="equations.count", fix="Lower 'count', or widen 'largest', 'operations', 'operators' or 'results'.",
        )

    def _expressions(self, key: int) -> Iterator[tuple[list[int], list[str]]]:
        """The operands of each expression, and all its pieces in order: numbers, operators, brackets."""
        rng = seeds.generator(key)
        fewest, most = self.operations
        sizes = rng.integers(fewest, most + 1, _BLOCK).tolist()
        numbers = rng.integers(1, self.largest + 1, (_BLOCK, most + 1)).tolist()  # NumPy is slow one by one
        signs = rng.integers(0, len(self.operators), (_BLOCK, most)).tolist()
        bracketed = (rng.random(_BLOCK) < self.parentheses).tolist()
        places = rng.random((_BLOCK, 2)).tolist()
        for row, size in enumerate(sizes):
            operands = numbers[row][: size + 1]
            pieces = [""] * (2 * size + 1)
            pieces[::2] = map(str, operands)
            pieces[1::2] = [self.operators[sign] for sign in signs[row][:size]]
            if bracketed[row] and size > 1:
                length = 2 + int(places[row][0] * (size - 1))  # operands inside: two, up to all but one
                start = int(places[row][1] * (size + 2 - length))
                pieces.insert(2 * (start + length) - 1, ")")
                pieces.insert(2 * start, "(")
            yield operands, pieces

    def _accepted(self, operands: list[int], pieces: list[str]) -> tuple[str, str] | None:
        numbers = iter(operands)
        try:
            worked = work_out_pieces([next(numbers) if p.isdigit() else None for p in pieces], [*pieces])
        except ZeroDivisionError:
            return None
        if worked.steps is None or any(value.denominator != 1 for value in worked.values):
            return None
        low, high = self.results or (None, None)
        if low is not None and high is not None and not all(low <= value <= high for value in worked.values):
            return None
        return "=".join(worked.steps), worked.steps[-1]


def different_equations(path: str) -> set[str]:
    """The different equations of a GSM8K-format file, as written."""
    return {equation for problem in problems(a_file(path, "train")) for equation in problem.equations}


def _rows(found: dict[str, tuple[str, str]]) -> Rows:
    prompts = [Prompt(text=f"{text}=", fields={"answer": answer}) for text, (_, answer) in found.items()]
    completions = objects([completion for completion, _ in found.values()])
    return Rows("text", completions, prompts, content_keys("text", list(found)))


def _from_file(path: str, key: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """expression -> (completion, answer) of a file, and notes that count what was left out and why.

    One row per expression: where the file writes its result in several ways (32, 32.00), the most frequent.
    """
    results: dict[str, Counter[str]] = {}
    for problem in problems(a_file(path, key)):
        for equation in problem.equations:
            left, right = "".join(equation.split()).rsplit("=", 1)
            results.setdefault(left, Counter())[right] += 1
    found: dict[str, tuple[str, str]] = {}
    unusable, wrong = [], []
    for text, writings in results.items():
        try:
            worked = work_out(text)
        except (ValueError, ZeroDivisionError):
            unusable.append(text)
            continue
        right_ones = [writing for writing, _ in writings.most_common() if _value(writing) == worked.value]
        if right_ones:
            found[text] = _completion(worked, right_ones[0]), right_ones[0]
        else:
            wrong.append(text)
    name = a_file(path, key).name
    notes = [f"{name}: {sum(map(len, results.values())):,} different equations, {len(results):,} different expressions"]
    for rows, why in ((unusable, "are not arithmetic"), (wrong, "do not equal their result")):
        if rows:
            notes.append(f"{name}: {len(rows):,} expressions {why}, left out, e.g. {rows[0]!r}")
    if not found:
        raise UserError("no equation was found", where=path, fix="Answers must hold <<expression=result>>.")
    return found, notes


def _value(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _completion(worked: Worked, result: str) -> str:
    """The steps with the result as the file writes it; the result alone where a value on the way is no decimal."""
    return "=".join([*worked.steps[:-1], result]) if worked.steps else result
