"""Captions filled in from the metadata of each image."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upturn.data.caption_fields import count_note, known_fields, lacks, with_captions
from upturn.protocols import Caption
from upturn.types import Samples


class _Template(string.Template):
    """Python's own, but braces may hold any name of a column: ``${file name}``."""

    braceidpattern = r"[^{}\n]+"


@dataclass(frozen=True)
class Template(Caption):
    """A text with ``${field}`` for each column of the metadata, and ``${class}``; ``$$`` is a dollar sign.

    template  "an emoji of ${name}, ${category}", or a list of such: then an image has as many captions
    """

    template: str | list[str]

    def __post_init__(self) -> None:
        for text in self._texts:
            made = _Template(text)
            if not made.is_valid():
                raise ValueError(f"template {text!r}: a '$' is not followed by a name; write ${{field}} or $$")
            if not made.get_identifiers():
                raise ValueError(f"template {text!r} names no ${{field}}; the strategy 'fixed' is for one text")
        if not self._texts:
            raise ValueError("template is an empty list")

    @property
    def _texts(self) -> list[str]:
        return [self.template] if isinstance(self.template, str) else self.template

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Filled in for every image; values that are empty are counted.

        Raises UserError naming the first image that has no such field, and those that it has.
        """
        templates = [_Template(text) for text in self._texts]
        names = list(dict.fromkeys(name for made in templates for name in made.get_identifiers()))
        empty: dict[str, list[int]] = {name: [] for name in names}
        captions = []
        for row, sample in enumerate(samples):
            known = known_fields(sample, classes)
            for name in names:
                if name not in known:
                    raise lacks(samples, row, name, known, "captions.template")
                if not known[name].strip():
                    empty[name].append(row)
            captions.append([made.substitute(known) for made in templates])
        notes = [note for name, rows in empty.items() for note in count_note(samples, rows, f"have an empty '{name}'")]
        return with_captions(samples, captions), tuple(notes)
