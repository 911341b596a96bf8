"""Small runs of lab experiments in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upturn.lab import experiment_runner


def lab(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    """The results of an experiment with "checks", the rows of its table."""
    return experiment_runner.conduct(name, settings, folder, workers=1)


def failed(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in result["checks"] if row["agrees"] is False]


def path(result: dict[str, Any], quantity: str, **cell: Any) -> dict[float, dict[str, Any]]:
    """The rows of a quantity by round, of the cells that have these values."""
    return {
        row["round"]: row for row in result["checks"]
        if row["quantity"] == quantity and all(row[key] == value for key, value in cell.items())
    }
