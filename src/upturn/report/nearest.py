"""The generated samples of a run that are nearest to a training sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upturn.report import titles
from upturn.report.examples import SampleView, sample_view
from upturn.report.facts import DATA, Column, Facts

_PAIRS = 10


def nearest_pairs(facts: Facts) -> tuple[str, list[tuple[SampleView, SampleView, str]]]:
    """Title of the kept model, and (generated, training sample, distance), nearest first; empty where not measured."""
    kept = facts.kept
    pairs = _measured_pairs(kept) if kept is not None else []
    if kept is None or not pairs:
        return "", []
    classes = [str(name) for name in facts.info(DATA, "load").get("classes", ())]
    generated = facts.samples_by_id(kept.unit, "evaluation.parquet", [str(p["sample"]) for p in pairs])
    real = facts.samples_by_id(DATA, "samples.parquet", [str(p["real"]) for p in pairs])
    views = [
        (
            sample_view(generated[p["sample"]], classes), sample_view(real[p["real"]], classes),
            titles.number(float(p["distance"])),
        )
        for p in pairs if p["sample"] in generated and p["real"] in real
    ]
    return kept.full_title, views


def _measured_pairs(column: Column) -> list[Mapping[str, Any]]:
    for measured in column.metrics.values():
        pairs = (measured.get("details") or {}).get("pairs")
        if pairs:
            return list(pairs)[:_PAIRS]
    return []
