"""The content of candidates, read from a run's tables in batches into one temporary file, which saves memory."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.annotation.conversations import ConversationTurn, turns_of
from upturn.errors import UserError
from upturn.store import png
from upturn.store.parquet_tables import iterate_samples
from upturn.store.run import Run
from upturn.types import Prompt, Sample, Samples, content_id

_ROWS = 64  # samples read at a time: 64 images of 512 pixels are 50 MB


@dataclass(frozen=True)
class Content:
    """A candidate as it is displayed: a PNG file encoded from its pixels, a text, or the turns of a conversation."""

    kind: str  # image | text | turns | points
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def turns(self) -> list[ConversationTurn]:
        found: list[ConversationTurn] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Entry:
    """Where a sample lies in the file, and what tasks are made of."""

    kind: str
    start: int
    size: int
    digest: str  # equal for equal contents
    prompt: dict[str, Any]
    group: int
    candidate: int


class ContentStore:
    """The samples of some tables of a run, by place (the table within the run) and id."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._file = tempfile.TemporaryFile(prefix="upturn-shown-")  # noqa: SIM115 (it lives as long as the contents)
        self._size = 0
        self._places: dict[str, dict[str, Entry]] = {}
        self._lock = threading.Lock()

    def place(self, place: str) -> dict[str, Entry]:
        """All samples of a table by id, in its order. UserError where it is missing or damaged."""
        with self._lock:
            if place not in self._places:
                self._places[place] = dict(self._read(place))
            return self._places[place]

    def holds(self, place: str) -> bool:
        """Whether the table was read already."""
        return place in self._places

    def content(self, place: str, sample: str) -> Content:
        """KeyError where the table has no such sample."""
        entry = self.place(place)[sample]
        return Content(entry.kind, os.pread(self._file.fileno(), entry.size, entry.start))

    def _read(self, place: str) -> Iterator[tuple[str, Entry]]:
        classes = self.classes
        for samples in iterate_samples(inside(self._run, place), _ROWS):
            for sample, (kind, body) in zip(samples, encoded_content(samples), strict=True):
                self._file.seek(self._size)
                self._file.write(body)
                start, self._size = self._size, self._size + len(body)
                prompt = prompt_words(sample.prompt, classes)
                yield sample.id, Entry(
                    kind, start, len(body), content_id(body), prompt, sample.group, sample.candidate
                )
        self._file.flush()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that the run's data has."""
        record = self._run.done("data", "load")
        return tuple(record.info.get("classes") or ()) if record is not None else ()

    def close(self) -> None:
        self._file.close()


def inside(run: Run, place: str) -> Path:
    """The file of a place; UserError for one that is not a table of the run."""
    folder = run.folder.resolve()
    path = (folder / place).resolve()
    if not path.is_relative_to(folder) or path.suffix != ".parquet":
        raise UserError(f"'{place}' is no table of this run")
    return path


def encoded_content(samples: Samples) -> list[tuple[str, bytes]]:
    """Kind and bytes of each sample as it is displayed; images are encoded as PNG."""
    if samples.kind == "image":
        return [("image", body) for body in png.encode(samples.content)]
    return [_encoded(samples.kind, sample) for sample in samples]


def _encoded(kind: str, sample: Sample) -> tuple[str, bytes]:
    if kind == "points":
        return "points", json.dumps([round(float(value), 6) for value in sample.content]).encode()
    text = str(sample.content)
    turns = turns_of(text, sample.fields.get("messages"))
    if turns is not None and len(turns) > 1:
        return "turns", json.dumps(turns, ensure_ascii=False).encode("utf-8", "replace")
    return "text", text.encode("utf-8", "replace")


def prompt_words(prompt: Prompt, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is displayed of a prompt: its text or turns, and the name of its class."""
    fields: dict[str, Any] = {}
    turns = turns_of(prompt.text, prompt.fields.get("messages"))
    if turns is not None:
        fields["turns"] = turns
    elif prompt.text:
        fields["text"] = prompt.text
    if prompt.label is not None:
        name = classes[prompt.label] if 0 <= prompt.label < len(classes) else str(prompt.label)
        if name != prompt.text:
            fields["label"] = name
    return fields
