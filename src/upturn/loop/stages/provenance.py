"""Whether what the data calls real is real: against a source that is known to be, and samples of earlier runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from upturn.config import components, recipe
from upturn.config.schema import Provenance
from upturn.embeddings.inference import log_likelihoods
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.loop.stages.context import DATA, Done, Outcome, Work
from upturn.observer import Watch
from upturn.protocols import Source
from upturn.statistics.contamination import Contamination, contamination
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Kind, Samples, concatenate


def provenance(work: Work) -> Outcome:
    """The record's info is the :class:`Contamination` of the training part; it is said, and the report shows it.

    Raises UserError where a run or a trusted source is not there, or is of another kind.
    """
    asked = work.parts.recipe.provenance
    assert asked is not None
    if work.finished(DATA, "provenance"):
        return Done()
    with work.committing(DATA, "provenance") as out, work.computing(out):
        kind = work.parts.source.kind
        trusted, own = _trusted(asked, kind), _own(asked, kind)
        part = work.real.fields["split"].astype(str) == "train"
        train = work.real.take(_some(np.flatnonzero(part), asked.at_most))
        found = contamination(train, trusted, own, work.tools.embed, key=work.key("provenance"),
                              log_likelihood=_likelihood(asked))
        out.info.update(found.as_json())
        out.counts.update(looked_at=found.n, trusted=_count(trusted), own=_count(own))
    work.watch.note(f"provenance: {said(found)}")
    return Done()


def said(found: Contamination) -> str:
    """In one sentence, without a full stop."""
    if found.how == "nothing":
        return f"nothing can be said of how real the data is ({found.note})"
    if found.high < 1:
        return f"{found.low:.0%} to {found.high:.0%} of the data that claims to be real is synthetic"
    return f"at least {found.low:.0%} of the data that claims to be real is synthetic ({found.note})"


def _trusted(asked: Provenance, kind: Kind) -> Samples | None:
    if asked.trusted is None:
        return None
    source: Source = components.make("source", asked.trusted, "provenance.trusted")
    if source.kind != kind:
        raise UserError(f"the trusted source gives {source.kind}, the data {kind}", where="provenance.trusted")
    splits = source.load()
    every = concatenate([splits.train, splits.held_out])
    return every.take(_some(np.arange(len(every)), asked.at_most))


def _own(asked: Provenance, kind: Kind) -> Samples | None:
    """What earlier runs sampled, in their rounds and for their evaluations."""
    found = []
    for name in asked.runs:
        run = Run.open(Path(name))
        files = [path for unit in run.units() if unit.startswith("rounds/")
                 for path in sorted(run.unit(unit).glob("*.parquet"))
                 if path.name == parquet_tables.SAMPLES or path.name.startswith("evaluation")]
        parts = [parquet_tables.read_samples(path) for path in files]
        if not parts:
            raise UserError("this run has no samples", where=f"provenance.runs: {name}", fix="Name one that sampled.")
        if parts[0].kind != kind:
            raise UserError(f"this run made {parts[0].kind}, the data is {kind}", where=f"provenance.runs: {name}")
        found += parts
    if not found:
        return None
    every = concatenate(found)
    _, first = np.unique(every.ids.astype(str), return_index=True)
    return every.take(_some(np.sort(first), asked.at_most))


def _likelihood(asked: Provenance) -> Callable[[Samples], Array] | None:
    """(N,) nats a token (or a point) under the newest promoted policy of the earlier run that finds each likeliest.

    None where no run has one of exact log-likelihood whose weights are still there.
    """
    models: list[Any] = []
    for name in asked.runs:
        run = Run.open(Path(name))
        parts = assemble(recipe.parse(run.recipe_text, str(run.folder / "recipe.yaml")))
        there = Work(run, parts, Watch())
        rounds = parts.recipe.rounds
        unit = there.incumbent((rounds.count if rounds else 0) + 1)
        policy: Any = parts.model("policy")
        if policy.likelihood == "exact" and (run.unit(unit) / "model").is_dir():
            models.append(there.policy(unit))

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
