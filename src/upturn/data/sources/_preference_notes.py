"""What preferences are read as, and what in them contradicts itself: counted, settled and stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from upturn.data.rendered_text import rendered_note
from upturn.data.sources._preference_layouts import Example, Layout
from upturn.data.sources._preference_texts import without_repeated_prompts

Believe = Literal["order", "scores", "neither"]
_NAMES: dict[Layout, str] = {
    "pair": "pairs (chosen and rejected)", "signed": "pairs with a signed strength",
    "list": "rankings (completions with ranks or scores)", "label": "single completions with a label",
    "attributes": "single completions with attributes",
}  # fmt: skip
_EXCERPT = 60  # characters of a text in an example


def without_repeated(examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Raw text whose completions all begin with their prompts, without them."""
    bodies, count = without_repeated_prompts([e.bodies for e in examples if e.bodies is not None])
    if not count:
        return list(examples), []
    changed = [replace(e, bodies=body) for e, body in zip(examples, bodies, strict=True)]
    return changed, [f"the prompt stood at the beginning of the completions of all {count:,} examples: taken out"]


def settled(examples: Sequence[Example], believe: Believe) -> tuple[list[Example], list[str]]:
    """Pairs whose scores contradict their order, settled as ``believe`` says; and a note that counts and names them."""
    against = [e for e in examples if e.contradicts]
    if not against:
        return list(examples), []
    done = {"order": "the order is believed, their scores are not used",
            "scores": "the scores are believed, the order is turned round", "neither": "they are left out"}[believe]
    others = ", ".join(name for name in get_args(Believe) if name != believe)
    first = against[0]
    note = (
        f"the scores of {len(against):,} of {len(examples):,} examples contradict their order (the first, "
        f"{first.where}: chosen {first.scores[0]:g}, rejected {first.scores[1]:g}): {done} ('believe: {believe}'; it "
        f"can be {others})"
    )
    kept = [e for e in examples if believe != "neither" or not e.contradicts]
    return [_settled(e, believe) if e.contradicts else e for e in kept], [note]


def _settled(example: Example, believe: Believe) -> Example:
    if believe == "scores":
        return replace(example, ranks=example.ranks[::-1])
    return replace(example, scores=[math.nan] * len(example.scores))


def described(examples: Sequence[Example], layout: Layout) -> list[str]:
    """Which layout was read, with counts and one example; and raw text that a template seems to have written."""
    first = examples[0]
    if first.bodies is None:
        return [f"{len(examples):,} examples were read as {_NAMES[layout]} of images"]
    chats = sum(bool(e.messages) for e in examples)
    form = "conversations" if chats == len(examples) else f"conversations ({chats:,}) and raw text" if chats else (
        "raw text, no chat template is applied"
    )
    candidates = " | ".join(repr(str(content)[:_EXCERPT]) for content in first.contents[:2])
    note = (
        f"{len(examples):,} examples were read as {_NAMES[layout]}: {form}; the first: {first.prompt[-_EXCERPT:]!r} -> "
        f"{candidates}"
    )
    raw = [e for e in examples if not e.messages]
    texts = [f"{e.prompt}{e.contents[0]}" for e in raw]
    return [note, *rendered_note(texts, lambda row: raw[row].where)]
