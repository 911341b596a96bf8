"""What a recipe will do and cost, row by row: as numbers, as JSON, and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from upturn import seeds
from upturn.config.recipe import Recipe, to_yaml
from upturn.plan.memory import Memory
from upturn.plan.memory import lines as memory_lines
from upturn.plan.memory import to_json as memory_json
from upturn.store.files import plain
from upturn.store.fingerprint import fingerprint
from upturn.theory import Verdict
from upturn.types import Array

COMMIT = 0.03  # seconds a committed step takes on a local disk: files, fsync, record


@dataclass(frozen=True)
class Row:
    """One step of one unit."""

    unit: str
    step: str
    samples: int  # sampled, trained on (an epoch), or measured
    optimiser_steps: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a recipe will do and cost on this machine, and the theory's forecast."""

    recipe: Recipe
    rows: tuple[Row, ...]
    real_fractions: tuple[float, ...]  # by round, from round 0
    disk_bytes: float
    theory: Verdict | None
    notes: tuple[str, ...]
    memory: tuple[Memory, ...] = ()  # of large models
    free_bytes: float = 0.0
    machine: dict[str, str] = field(default_factory=fingerprint)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    @property
    def usd(self) -> float:
        return self.seconds / 3600 * self.recipe.usd_per_hour

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(mode="json", by_alias=True), "stages": [asdict(row) for row in self.rows],
            "seconds": self.seconds, "usd": self.usd, "disk_bytes": self.disk_bytes,
            "memory": memory_json(self.memory), "free_bytes": self.free_bytes,
            "flops": sum(row.flops for row in self.rows), "real_fractions": list(self.real_fractions),
            "verdict": None if self.theory is None else plain(asdict(self.theory)), "notes": list(self.notes),
            "machine": self.machine,
        }

    def text(self) -> str:
        """The plan as a table of text."""
        lines = [to_yaml(self.recipe), f"{'unit':30}{'step':10}{'samples':>9}{'steps':>8}{'FLOP':>10}{'seconds':>9}"]
        lines += [
            f"{r.unit:30}{r.step:10}{r.samples:>9,}{r.optimiser_steps:>8,}{r.flops:>10.1e}{r.seconds:>9.1f}"
            for r in self.rows
        ]
        flops = sum(row.flops for row in self.rows)
        lines.append(f"{'in all':30}{'':27}{flops:>10.1e}{self.seconds:>9.1f}")
        lines.append("")
        lines.append(f"Time {_duration(self.seconds)} on this machine ({self.machine['processor']}), "
                     f"cost {self.usd:.2f} USD at {self.recipe.usd_per_hour:.2f} an hour, "
                     f"disk {self.disk_bytes / 1e6:.1f} MB.")
        lines += memory_lines(self.memory, self.free_bytes)
        if len(self.real_fractions) > 1:
            lines.append("Real fraction by round: " + ", ".join(f"{f:.0%}" for f in self.real_fractions))
        if self.theory is not None:
            left = f"{self.theory.kept:.0%} of round 0's diversity left after these rounds"
            lines += ["", f"Forecast: {self.theory.word}; {left}."]
            for statement in self.theory.statements:
                mark = {"ok": " ", "warn": "!", "danger": "!!"}[statement.level]
                lines.append(f"{mark:3}{statement.text}")
                lines.append(f"     assuming: {statement.assumption}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def placeholder_rewards(count: int) -> Array:
    """(N,) rewards that are all different: those of an untrained model are often all equal, and train nothing."""
    rewards: Array = seeds.generator(seeds.key("plan", "rewards")).random(count)
    return rewards


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
