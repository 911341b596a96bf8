"""Base class of lab experiments: settings, the cells that they span, a batched run, and the charts of the page."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from upturn import seeds
from upturn.lab.rows import Formula, LabRow
from upturn.types import Array

Cell = Mapping[str, Any]  # one point of the grid: a value of each setting that is a list
State = Mapping[str, Array]  # passed from a chunk to the next; nothing else persists


def setting(default: Any, about: str) -> Any:
    """A field of an experiment: its default, and its line in ``--help``. A list spans the grid."""
    metadata = {"about": about}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Cloud:
    """Points (N, 2) of one panel of a figure, by row and column; without a row they are the data, behind every panel.

    ``cell``: index among the cells that run together.
    """

    cell: int
    picture: str
    row: str
    column: str
    points: Array


@dataclass(frozen=True)
class Chunk:
    """A part of a run that is stored whole or not at all; an interrupted run resumes from the last ``state``."""

    rows: Sequence[LabRow]
    clouds: Sequence[Cloud] = ()
    state: State = field(default_factory=dict)
    note: str = ""  # for the progress display


@dataclass(frozen=True)
class Chart:
    """A chart of the page: measurement as dots with intervals, theory as lines.

    ``quantity`` over ``x`` ("round", or a setting), one colour for each value of ``series``, one panel for each
    combination of ``panels``, of the cells that have the values ``where``. ``log`` names axes: "", "x", "y" or "xy".
    ``joined`` joins dots that have no theory. If x is a setting, ``at`` is the round to draw; None is the last.
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
    """Settings in the fields; lists span the grid of cells. All replicas of a cell are one set of tensors.

    A subclass implements ``chunks``; one whose stacks are fast is an ``AtOnce`` and implements ``run``.
    """

    title: ClassVar[str]
    question: ClassVar[str]
    formulas: ClassVar[Mapping[str, Formula]] = {}
    version: ClassVar[int] = 1  # increase it when the same settings measure something else
    parallel: ClassVar[bool] = False  # whether a stack takes longer than starting a process for it

    def cells(self) -> list[Cell]:
        """Every combination of the lists; an experiment leaves out combinations without meaning."""
        grid = self.grid()
        values = [getattr(self, name) for name in grid]
        return [dict(zip(grid, combination, strict=True)) for combination in itertools.product(*values)]

    def grid(self) -> list[str]:
        """The names of the settings that are lists."""
        return [item.name for item in fields(self) if isinstance(getattr(self, item.name), list)]

    def stacks(self) -> list[list[Cell]]:
        """Cells that run together, in one set of tensors; processes share the stacks."""
        return [[cell] for cell in self.cells()]

    @abstractmethod
    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        """The chunks of a stack after the first ``after``, from the state of the last of these."""

    @abstractmethod
    def charts(self) -> Sequence[Chart]:
        """The charts of the page, in order."""

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """The result in sentences, from the rows of the finished table; the page begins with them."""
        return ()


@dataclass
class AtOnce(Experiment):
    """An experiment whose stack is one chunk."""

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        if after == 0:
            yield self.run(cells)

    @abstractmethod
    def run(self, cells: Sequence[Cell]) -> Chunk:
        """A whole stack."""


def source(name: str, cell: Cell, *parts: str | int) -> np.random.Generator:
    """The random stream of a cell: a function of its values alone, not of the other cells."""
    return seeds.generator(seeds.key(f"lab {name}", *(f"{key}={cell[key]}" for key in sorted(cell)), *parts))


def reported_rounds(rounds: int) -> list[int]:
    """Rounds at which quantities are compared: 1, 2, 5, 10, 20, 50, … and the last."""
    marks = {mark * 10 ** (2 * decade) for mark in (1, 2, 5, 10, 20, 50) for decade in range(len(str(rounds)))}
    return sorted({t for t in marks if t < rounds} | {rounds})
