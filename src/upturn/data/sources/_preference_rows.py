"""Examples of preferences -> Splits that keep every group whole and on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from upturn.data.images import ImageOptions
from upturn.data.sources._preference_layouts import Example
from upturn.data.split import check_leakage, content_keys, normalised, split_by_content
from upturn.errors import UserError
from upturn.types import COMPLETION_MESSAGES, REAL, Array, Prompt, Samples, Splits, content_id, objects


def divided(
    train: Sequence[Example], test: Sequence[Example] | None, fraction: float, source: str,
    attributes: Sequence[str], images: ImageOptions | None,
) -> Splits:
    """Splits of examples; those of ``test`` are held out where there are any, else ``fraction`` of the prompts.

    Raises UserError where a side stays empty.
    """
    every, notes = _usable([*train, *(test or ())], source)
    own = {example.where for example in train}
    body: Array | None = None
    if images is not None:
        every, body, more = _decoded(every, images)
        notes += more
    samples = _samples(every, body, source, attributes)
    keys = _keys(every)
    tested = np.array([example.where not in own for example in every], dtype=bool)
    if test is None:
        side = split_by_content(keys, fraction)
    else:
        known = set(keys[~tested])
        leaked = tested & np.array([key in known for key in keys], dtype=bool)
        if leaked.any():
            notes.append(f"{int(leaked.sum()):,} of {int(tested.sum()):,} test examples have a prompt that is in "
                         "train: taken out of the held-out part")
        side, kept = tested[~leaked], ~leaked
        samples, keys = samples.take(kept[samples.group]), keys[kept]
        samples = replace(samples, group=(np.cumsum(kept) - 1)[samples.group])
    if not side.any() or side.all():
        raise UserError(
            f"the {'train' if side.all() else 'held-out'} part would be empty: there are {len(set(keys))} different "
            f"prompts in {len(keys)} examples", where=source,
            fix=f"Give more data, or change 'held_out' (it is {fraction}).",
        )
    check_leakage(keys[~side], keys[side], where=source)
    held = side[samples.group]
    return Splits(samples.take(~held), samples.take(held), (), tuple(notes))


def _usable(examples: Sequence[Example], source: str) -> tuple[list[Example], list[str]]:
    """Without examples that order nothing, each reason counted."""
    reasons: Counter[str] = Counter()
    first: dict[str, str] = {}
    kept = []
    for example in examples:
        reason = _unusable(example)
        if reason:
            reasons[reason] += 1
            first.setdefault(reason, example.where)
        else:
            kept.append(example)
    if not kept:
        name = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise UserError(f"nothing is left of {len(examples):,} examples: {name}", where=source, fix="Give other data.")
    total = len(examples)
    return kept, [
        f"{count:,} of {total:,} examples {reason}, left out, the first at {first[reason]}"
        for reason, count in reasons.items()
    ]


def _unusable(example: Example) -> str:
    contents = example.contents
    if any(isinstance(body, str) and not body.strip() for body in contents):
        return "have an empty completion"
    if len(contents) > 1 and all(body == contents[0] for body in contents):
        return "compare equal completions"
    turns = example.bodies.turns if example.bodies is not None else []
    if any(turn and '"role": "assistant"' not in turn for turn in turns):
        return "have a completion without an answer of the assistant"
    return ""


def _decoded(examples: Sequence[Example], images: ImageOptions) -> tuple[list[Example], Array, list[str]]:
    """Examples all of whose images can be read, and the images (N, size, size, channels)."""
    raw = [body for example in examples for body in example.contents]
    names = [example.where for example in examples for _ in example.contents]
    owner = np.repeat(np.arange(len(examples)), [len(example.contents) for example in examples])
    body, readable, notes = images.decode(raw, names)
    whole = np.ones(len(examples), dtype=bool)
    np.logical_and.at(whole, owner, readable)
    return [example for example, good in zip(examples, whole, strict=True) if good], body[whole[owner[readable]]], notes


def _samples(examples: Sequence[Example], images: Array | None, source: str, attributes: Sequence[str]) -> Samples:
    """One row per candidate; ``group`` is the example. Ids tell apart one text in several examples."""
    sizes = [len(example.contents) for example in examples]
    owner = np.repeat(np.arange(len(examples)), sizes)
    flat = [body for example in examples for body in example.contents]
    candidate = np.concatenate([np.arange(size) for size in sizes])
    names = _names(examples, source)
    ids = [content_id(names[example], number) for example, number in zip(owner, candidate, strict=True)]
    known: dict[Prompt, Prompt] = {}
    prompts = [known.setdefault(prompt, prompt) for prompt in map(_prompt, examples)]
    fields = {
        "rank": np.array([rank for e in examples for rank in e.ranks], dtype=np.int64),
        "score": np.array([score for e in examples for score in e.scores], dtype=np.float64),
        "strength": np.array([e.strength for e in examples], dtype=np.float64)[owner],
    }
    fields |= {name: np.array([e.attributes[name] for e in examples], dtype=np.float64)[owner] for name in attributes}
    turns = [turn for e in examples if e.bodies is not None for turn in e.bodies.turns]
    if any(turns):
        fields[COMPLETION_MESSAGES] = objects(turns)
    n = len(flat)
    return Samples(
        "text" if images is None else "image", objects(ids), tuple(prompts[i] for i in owner),
        objects(flat) if images is None else images, objects([REAL] * n), objects([source] * n), owner, candidate,
        fields,
    )


def _prompt(example: Example) -> Prompt:
    tools = example.tools if example.messages else ""
    return Prompt(example.prompt, example.label, messages=example.messages, tools=tools)


def _names(examples: Sequence[Example], source: str) -> list[str]:
    """A name for each example by its content, numbered among equal ones: the same in any order of the file."""
    seen: Counter[str] = Counter()
    out = []
    for e in examples:
        name = content_id(source, e.prompt, e.label, *e.contents, e.ranks, e.scores, e.strength, e.attributes)
        out.append(content_id(name, seen[name]))
        seen[name] += 1
    return out


def _keys(examples: Sequence[Example]) -> Array:
    """(E,) what is split as one: the prompt; without one, all examples that share a completion."""
    keys = content_keys("text", [example.prompt for example in examples])
    bare = [i for i, example in enumerate(examples) if not normalised(example.prompt)]
    if bare:
        keys[bare] = _joined([examples[i] for i in bare])
    return keys


def _joined(examples: Sequence[Example]) -> Array:
    """(E,) the least content key of each connected part of the graph of examples and their contents."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    owner = np.repeat(np.arange(len(examples)), [len(e.contents) for e in examples])
    bodies = [body for e in examples for body in e.contents]
    each = [content_id(normalised(body)) if isinstance(body, str) else content_id(body) for body in bodies]
    names, which = np.unique(np.array(each), return_inverse=True)
    size = len(examples) + len(names)
    links = coo_array((np.ones(len(owner)), (owner, len(examples) + which)), shape=(size, size))
    part = connected_components(links, directed=False)[1]
    _, first = np.unique(part[len(examples) :], return_index=True)  # names are sorted: the first is the least
    return objects([str(names[first[p]]) for p in part[: len(examples)]])
