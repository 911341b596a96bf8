"""Groups of images that stay on one side of the split: equal images, variants of a name, concepts."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from upturn.data.sources._layouts import as_text, members
from upturn.data.sources._variants import group_names
from upturn.data.split import normalised
from upturn.errors import UserError
from upturn.types import Array, content_id, objects

_NAMED = 5  # concepts that a note names


def wanted_rows(columns: Mapping[str, Sequence[Any]], wanted: Mapping[str, Sequence[str]], key: str) -> list[str]:
    """Of each row the value of ``wanted`` that it has, "" where it has none; of a list each of its values counts.

    Case and white space make no difference. Raises UserError for a column or value that is not there, naming those
    that are; ``key`` is the field of the recipe that named them.
    """
    n = len(next(iter(columns.values()), ()))
    found = [""] * n
    for name, values in wanted.items():
        if name not in columns:
            raise UserError(
                f"column '{name}' is expected (field '{key}'); found: {', '.join(columns) or 'none'}", where=key,
                fix="Name one of the columns found; only metadata.jsonl and metadata.csv have columns.",
            )
        by_plain = {normalised(value): value for value in values}
        seen: set[str] = set()
        there: Counter[str] = Counter()
        for row, value in enumerate(columns[name]):
            inside = [normalised(part) for part in members(value)]
            there.update(inside)
            hit = next((part for part in inside if part in by_plain), None)
            if hit is not None:
                seen |= by_plain.keys() & set(inside)
                found[row] = found[row] or by_plain[hit] or f"no {name}"
        lost = [value for plain, value in by_plain.items() if plain not in seen]
        if lost:
            near = difflib.get_close_matches(normalised(lost[0]), list(there), n=3, cutoff=0.5)
            known = near or [value for value, _ in there.most_common(_NAMED)]
            raise UserError(
                f"no image has {name} = '{lost[0]}'", where=f"{key}.{name}",
                fix=f"{'Near it' if near else 'Values there'}: {', '.join(repr(value) for value in known)}.",
            )
    return found


def joined_keys(content: Array, names: Sequence[Any], patterns: Sequence[str] | None) -> tuple[Array, str]:
    """(N,) keys, equal for rows joined by equal content or by variants of one name, however long the chain; and a note.

    ``content`` (N,) are keys of the images, ``names`` values of the column, ``patterns`` as ``group_names`` takes.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    plain = group_names([as_text(name) for name in names], patterns)
    n = len(plain)
    # rows without a name are no variants of each other
    groups = [name or f"\x1f{row}" for row, name in enumerate(plain)]
    by_name, by_picture = (np.unique(objects(part).astype(str), return_inverse=True)[1] for part in (groups, content))
    rows = np.arange(n)
    # a row hangs on its name and on its image: what hangs together is one component
    ends = np.concatenate([n + by_name, n + n + by_picture])
    graph = coo_matrix((np.ones(2 * n, dtype=np.int8), (np.tile(rows, 2), ends)), shape=(3 * n, 3 * n))
    _, part = connected_components(graph, directed=False)
    first: dict[int, str] = {}
    for row in rows:
        first[part[row]] = min(first.get(part[row], groups[row]), groups[row])
    keys = objects([content_id("together", first[part[row]]) for row in rows])
    sizes = Counter(part[:n].tolist())
    largest, most = max(sizes.items(), key=lambda item: item[1])
    note = (
        f"{n:,} images are {len(sizes):,} groups that stay together, the largest '{first[largest]}' with {most:,}; "
        f"{sum(size > 1 for size in sizes.values()):,} have more than one image"
    )
    return keys, note


def spread(keys: Array, concepts: Sequence[str]) -> list[str]:
    """The concept of each row, with the rows of equal key: the variants of a held-out name are held out too."""
    known = {key: concept for key, concept in zip(keys, concepts, strict=True) if concept}
    return [concept or known.get(key, "") for key, concept in zip(keys, concepts, strict=True)]


def concept_note(concepts: Sequence[str]) -> str:
    """How many rows were held out on purpose, and for which concepts."""
    counts = Counter(concept for concept in concepts if concept)
    named = ", ".join(f"{concept} ({count})" for concept, count in counts.most_common(_NAMED))
    more = ", …" if len(counts) > _NAMED else ""
    return f"held out on purpose: {sum(counts.values()):,} images of {named}{more}"


def class_note(classes: Sequence[str], train: Array, held_out: Array) -> str:
    """How many images of each class are held out."""
    own, other = (np.bincount(part, minlength=len(classes)) for part in (train, held_out))
    counts = ", ".join(f"{name} {b:,} of {a + b:,}" for name, a, b in zip(classes, own, other, strict=True))
    return f"held out by class: {counts}"
