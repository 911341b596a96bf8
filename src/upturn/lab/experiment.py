"""What an experiment is: settings, the cells that they span, a batched run, and what its page shows."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from upturn import seeds
from upturn.lab.rows import Formula, Row
from upturn.types import Array

Cell = Mapping[str, Any]  # one point of the grid: a value of each setting that is a list
State = Mapping[str, Array]  # what a chunk leaves for the next: nothing else is remembered


def setting(default: Any, about: str) -> Any:
    """A field of an experiment: its default, and what ``--help`` says of it. A list spans the grid."""
    metadata = {"about": about}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Cloud:
    """Points (N, 2) of one panel of a picture, by row and column; what has no row stands behind all of them: the data.

    ``cell`` is which of those run together.
    """

    cell: int
    picture: str
    row: str
    column: str
    points: Array


@dataclass(frozen=True)
class Chunk:
    """A part of a run that is kept whole or not at all; a run that is killed goes on from the ``state`` of the last."""

    rows: Sequence[Row]
    clouds: Sequence[Cloud] = ()
    state: State = field(default_factory=dict)
    note: str = ""  # for whoever watches


@dataclass(frozen=True)
class Chart:
    """A figure of the page: measurement as dots with intervals, theory as lines.

    ``quantity`` over ``x`` ("round", or a setting), one colour for each value of ``series``, one panel for each
    combination of ``panels``, of the cells that have the values ``where``. ``log`` names axes: "", "x", "y" or "xy".
    ``joined`` joins dots that have no theory. Where x is a setting, ``at`` names the round shown; None is the last.
    """

    title: str
    about: str
    quantity: str
    x: str = "round"
    series: str = ""
    panels: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""
    at: float | None = None
    joined: bool = True


@dataclass
class Experiment(ABC):
    """Settings in the fields; lists span the grid of cells. Every replica of a cell stands in one set of tensors.

    A subclass gives ``chunks``; one whose stacks are quick is an ``AtOnce`` and gives ``run``.
    """

    title: ClassVar[str]
    question: ClassVar[str]
    formulas: ClassVar[Mapping[str, Formula]] = {}
    version: ClassVar[int] = 1  # raised when the same settings measure something else: what was kept is then not used
    parallel: ClassVar[bool] = False  # whether a stack takes longer than starting a process for it

    def cells(self) -> list[Cell]:
        """Every combination of the lists; an experiment leaves out those that make no sense."""
        grid = self.grid()
        values = [getattr(self, name) for name in grid]
        return [dict(zip(grid, combination, strict=True)) for combination in itertools.product(*values)]

    def grid(self) -> list[str]:
        """The names of the settings that are lists."""
        return [item.name for item in fields(self) if isinstance(getattr(self, item.name), list)]

    def stacks(self) -> list[list[Cell]]:
        """Cells that are run together, in one set of tensors; stacks are what processes share out."""
        return [[cell] for cell in self.cells()]

    @abstractmethod
    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        """The chunks of a stack beyond the first ``after``, from the state that the last of these left."""

    @abstractmethod
    def charts(self) -> Sequence[Chart]:
        """What the page draws, in order."""

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """What came out, in words, from the rows of the finished table; the page begins with them."""
        return ()


@dataclass
class AtOnce(Experiment):
    """An experiment whose stack is one chunk."""

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        if after == 0:
            yield self.run(cells)

    @abstractmethod
    def run(self, cells: Sequence[Cell]) -> Chunk:
        """A stack at once."""


def source(name: str, cell: Cell, *parts: str | int) -> np.random.Generator:
    """The random stream of a cell: a function of its values alone, not of what is run beside it."""
    return seeds.generator(seeds.key(f"lab {name}", *(f"{key}={cell[key]}" for key in sorted(cell)), *parts))


def reported_rounds(rounds: int) -> list[int]:
    """Rounds at which quantities are compared: 1, 2, 5, 10, 20, 50, … and the last."""
    marks = {mark * 10 ** (2 * decade) for mark in (1, 2, 5, 10, 20, 50) for decade in range(len(str(rounds)))}
    return sorted({t for t in marks if t < rounds} | {rounds})
