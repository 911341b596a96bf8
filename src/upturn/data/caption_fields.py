"""Helpers of caption strategies: samples with new captions, and how messages name an image."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from upturn.errors import UserError
from upturn.types import Prompt, Sample, Samples, objects

CAPTIONS = "captions"  # the field of samples that holds all captions of each, a tuple of texts
FILE = "file_name"


def with_captions(samples: Samples, captions: Sequence[Sequence[str]]) -> Samples:
    """Samples whose prompts' text is the first caption of each; ids, labels and fields stay.

    Where a sample has several, the field "captions" holds them all, (N,) tuples of text. ValueError for none at all.
    """
    made: dict[tuple[int, str], Prompt] = {}
    prompts = []
    for prompt, own in zip(samples.prompts, captions, strict=True):
        if not own:
            raise ValueError("a sample needs at least one caption, which may be empty")
        key = (id(prompt), own[0])
        if key not in made:
            made[key] = replace(prompt, text=own[0])
        prompts.append(made[key])
    fields = {name: column for name, column in samples.fields.items() if name != CAPTIONS}
    if any(len(own) > 1 for own in captions):
        fields[CAPTIONS] = objects([tuple(own) for own in captions])
    return replace(samples, prompts=tuple(prompts), fields=fields)


def alike(parts: Sequence[Samples]) -> list[Samples]:
    """All with the field "captions" where one has it: a synthetic sample has only its prompt's caption."""
    if not any(CAPTIONS in part.fields for part in parts):
        return list(parts)
    return [
        part if CAPTIONS in part.fields
        else part.with_fields(**{CAPTIONS: objects([(prompt.text,) for prompt in part.prompts])})
        for part in parts
    ]


def place(samples: Samples, row: int) -> str:
    """How a message names an image: its file, else its id."""
    return str(samples.fields[FILE][row]) if FILE in samples.fields else f"sample {samples.ids[row]}"


def lacks(samples: Samples, row: int, name: str, known: Iterable[str], where: str) -> UserError:
    """The error for a field that a strategy names and a prompt lacks: names the image, its fields and the nearest."""
    there = list(known)
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return UserError(
        f"'{name}' is requested, and {place(samples, row)} has no such field", where=where,
        fix=f"{hint}It has: {', '.join(there) or 'none; metadata.jsonl or metadata.csv gives images fields'}.",
    )


def known_fields(sample: Sample, classes: Sequence[str]) -> dict[str, str]:
    """The fields that a template may name: the prompt's fields, and "class" where the image has one."""
    label = sample.prompt.label
    own = {"class": classes[label]} if label is not None and label < len(classes) else {}
    return own | dict(sample.prompt.fields)


def count_note(samples: Samples, rows: Sequence[int], what: str) -> list[str]:
    """A note that counts ``rows`` and names the first; nothing where there are none."""
    if not len(rows):
        return []
    return [f"{len(rows):,} of {len(samples):,} images {what}, the first is {place(samples, int(rows[0]))}"]
