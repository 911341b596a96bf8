"""Estimates the cost of a study before it runs."""

from __future__ import annotations

from typing import Any

from upturn.store.units import model_name
from upturn.studies.study_definition import Study


def estimate(study: Study) -> dict[str, Any]:
    """Every variant planned as a run of its own: seconds, USD and bytes of each (all seeds together), and in all.

    Helper models that one variant lends to the others are counted once. Raises UserError for what a run would refuse.
    """
    from upturn.plan import plan

    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        found = plan(variant.jobs[0].recipe)
        fitted = sum(row.seconds for row in found.rows if model_name(row.unit))
        times = len(variant.jobs)
        lent = study.judges is not None
        fits = (1 if variant.name == study.judges else 0) if lent else times
        seconds = (found.seconds - fitted) * times + fitted * fits
        row: dict[str, Any] = {
            "variant": variant.name, "runs": times, "seconds": seconds,
            "training_seconds": sum(row.seconds for row in found.rows if row.step == "train") * times,
            "usd": seconds / 3600 * found.recipe.usd_per_hour, "disk_bytes": found.disk_bytes * times,
            "notes": list(found.notes),
        }
        rows.append(row)
    total = {key: sum(row[key] for row in rows) for key in ("runs", "seconds", "training_seconds", "usd", "disk_bytes")}
    return {"study": study.name, "variants": rows, "total": total}
