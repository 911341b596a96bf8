"""The memory of each stage by what it is used for, and what would make a recipe fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from upturn.config import components
from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.config.schema import Training
    from upturn.protocols import Adapter, OptimizerFactory

_MIB = 2**20  # bytes
_NARROW = 2.0  # bytes of optimizer state a weight: two moments of 8 bits
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes of one step of one unit, beside the interpreter, the libraries and the tables of samples."""

    unit: str
    step: str
    weights: float  # of every model that is loaded: the policy, that of the unit before, a reference, helpers
    gradients: float = 0.0
    optimizer: float = 0.0  # moments, and the averaged weights
    activations: float = 0.0  # of the largest micro-batch
    kv_cache: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, name) for name in PARTS))


PARTS = tuple(item.name for item in fields(Memory) if item.name not in ("unit", "step"))


def largest(rows: Sequence[Memory]) -> Memory | None:
    """The step that needs most."""
    return max(rows, key=lambda row: row.total, default=None)


def lines(rows: Sequence[Memory], free: float) -> list[str]:
    """The table, in MiB."""
    if not rows:
        return []
    head = f"{'memory in MiB':30}{'step':10}" + "".join(f"{name.replace('_', ' '):>12}" for name in (*PARTS, "total"))
    body = [
        f"{row.unit:30}{row.step:10}"
        + "".join(f"{value / _MIB:>12,.0f}" for value in (*(getattr(row, name) for name in PARTS), row.total))
        for row in rows
    ]
    return ["", head, *body, f"{'free now':40}{free / _MIB:>{12 * (len(PARTS) + 1)},.0f}"]


def to_json(rows: Sequence[Memory]) -> list[dict[str, object]]:
    return [{**asdict(row), "total": row.total} for row in rows]


def free_bytes() -> float:
    """What this machine has left: of the first GPU where there is one, else of the main memory or the container."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    free = _meminfo()
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return min(free, float(limit - used + int(counts.get("inactive_file", 0))))


def _meminfo() -> float:
    """What Linux says is available without swapping; elsewhere all of the memory."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def require(rows: Sequence[Memory], free: float, trainings: Sequence[tuple[str, Training]], batch: int) -> None:
    """UserError where a step cannot fit, with the settings that would make it fit.

    trainings  (unit, its settings) of all trainings;  batch  rows that are sampled at once
    """
    worst = largest(rows)
    if worst is None or worst.total <= free:
        return
    spec = next((spec for unit, spec in trainings if unit == worst.unit and worst.step in ("train", "fit")), None)
    raise UserError(
        f"needs {worst.total / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free "
        f"({', '.join(f'{name} {getattr(worst, name) / 2**30:.1f}' for name in PARTS if getattr(worst, name) > _MIB)})",
        where=f"{worst.unit}, {worst.step}", fix=_fix(worst, free, spec, batch),
    )


def _fix(worst: Memory, free: float, spec: Training | None, batch: int) -> str:
    room = free - (worst.total - worst.activations - worst.kv_cache - worst.logits)
    found = []
    if spec is None:
        moving = worst.kv_cache + worst.logits
        if room > 0 and moving:
            found.append(f"settings.batch: {max(1, int(batch * room / moving))} rows sampled at once")
    else:
        rows = spec.micro_batch or spec.batch_size
        fitting = int(rows * (room - worst.logits) / worst.activations) if worst.activations else 0
        if 0 < fitting < rows:
            found.append(f"micro_batch: {fitting}")
        adapter: Adapter = components.make("adapter", spec.adapter, "adapter")
        if adapter.trains_all:
            found.append("adapter: {name: lora}")
        if worst.activations > worst.total / 2:
            found.append("gradient_checkpointing: true (of the model)")
        optimizer: OptimizerFactory = components.make("optimizer", spec.optimizer, "optimizer")
        if worst.optimizer > worst.total / 4 and optimizer.state_bytes > _NARROW:
            found.append("optimizer: adamw_8bit")
    found.append("dtype: bfloat16 (of the model)")
    return f"What would make it smaller: {'; '.join(found)}."
