"""Whether what the data calls real is real: against a source that is known to be, and samples of earlier runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from upturn.config import components
from upturn.config.schema import Provenance
from upturn.embeddings.inference import log_likelihoods
from upturn.errors import UserError
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.protocols import Source
from upturn.statistics.contamination import Contamination, contamination
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.store.units import DATA, is_round
from upturn.types import Array, Kind, Samples, concatenate


def provenance(context: RunContext) -> Outcome:
    """The record's info is the :class:`Contamination` of the training part; it is also a message.

    Raises UserError where a run or a trusted source is not there, or is of another kind.
    """
    spec = context.parts.recipe.provenance
    assert spec is not None
    if context.finished(DATA, "provenance"):
        return Done()
    with context.committing(DATA, "provenance") as out, context.computing(out):
        kind = context.parts.source.kind
        trusted, own = _trusted(spec, kind), _own(spec, kind)
        part = context.real.fields["split"].astype(str) == "train"
        train = context.real.take(_some(np.flatnonzero(part), spec.at_most))
        found = contamination(train, trusted, own, context.tools.embed, key=context.key("provenance"),
                              log_likelihood=_likelihood(spec))
        out.info.update(found.as_json())
        out.counts.update(looked_at=found.n, trusted=_count(trusted), own=_count(own))
    context.observer.note(f"provenance: {summary(found)}")
    return Done()


def summary(found: Contamination) -> str:
    """In one sentence, without a full stop."""
    if found.how == "nothing":
        return f"how real the data is cannot be measured ({found.note})"
    if found.high < 1:
        return f"{found.low:.0%} to {found.high:.0%} of the data that claims to be real is synthetic"
    return f"at least {found.low:.0%} of the data that claims to be real is synthetic ({found.note})"


def _trusted(spec: Provenance, kind: Kind) -> Samples | None:
    if spec.trusted is None:
        return None
    source: Source = components.make("source", spec.trusted, "provenance.trusted")
    if source.kind != kind:
        raise UserError(f"the trusted source gives {source.kind}, the data {kind}", where="provenance.trusted")
    splits = source.load()
    every = concatenate([splits.train, splits.held_out])
    return every.take(_some(np.arange(len(every)), spec.at_most))


def _own(spec: Provenance, kind: Kind) -> Samples | None:
    """What earlier runs sampled, in their rounds and for their evaluations."""
    found = []
    for name in spec.runs:
        run = Run.open(Path(name))
        files = [path for unit in run.units() if is_round(unit)
                 for path in sorted(run.unit(unit).glob("*.parquet"))
                 if path.name == parquet_tables.SAMPLES or path.name.startswith("evaluation")]
        parts = [parquet_tables.read_samples(path) for path in files]
        if not parts:
            raise UserError("this run has no samples", where=f"provenance.runs: {name}", fix="Name one that sampled.")
        if parts[0].kind != kind:
            raise UserError(f"this run has {parts[0].kind} samples, the data is {kind}",
                            where=f"provenance.runs: {name}")
        found += parts
    if not found:
        return None
    every = concatenate(found)
    _, first = np.unique(every.ids.astype(str), return_index=True)
    return every.take(_some(np.sort(first), spec.at_most))


def _likelihood(spec: Provenance) -> Callable[[Samples], Array] | None:
    """(N,) nats a token (or a point) under the newest promoted policy of the earlier run that finds each likeliest.

    None where no run has one of exact log-likelihood whose weights are still there.
    """
    models: list[Any] = []
    for name in spec.runs:
        run = Run.open(Path(name))
        earlier = RunContext.open(run)
        unit = run.incumbent()
        policy: Any = earlier.parts.model("policy")
        if unit is not None and policy.likelihood == "exact" and (run.unit(unit) / "model").is_dir():
            models.append(earlier.policy(unit))

    def likeliest(samples: Samples) -> Array:
        each = [np.divide(*log_likelihoods(model, samples)) for model in models]
        return np.asarray(np.max(each, axis=0))

    return likeliest if models else None


def _some(rows: Array, at_most: int) -> Array:
    """Up to ``at_most`` of the rows, evenly spaced."""
    if len(rows) <= at_most:
        return rows
    picked: Array = rows[np.linspace(0, len(rows) - 1, at_most).round().astype(np.int64)]
    return picked


def _count(samples: Samples | None) -> int:
    return 0 if samples is None else len(samples)
