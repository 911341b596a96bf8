"""The parts that a voting page is put together from: what a vote mode declares, and a template renders.

Each part names the macro of ``web/templates/parts.html.j2`` that renders it. Fields of a part reach
``VoteMode.from_form`` under the names that are given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

KeyHelp = tuple[tuple[str, ...], str]  # keys, and what they do


@dataclass(frozen=True)
class Mark:
    """A radio button on each card: ``field`` gets the position of the card. ``keys``: one for each position."""

    field: str
    label: str
    keys: str


@dataclass(frozen=True)
class Cards:
    """The candidates side by side.

    submit   a button on each card sends its position, from 1, in this field; ``label`` is what the button says
    letters  headings A, B, … instead of buttons
    marks    radio buttons on each card
    """

    macro: ClassVar[str] = "cards"
    submit: str = ""
    label: str = ""
    letters: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Options:
    """A row of buttons that answer: ``options`` are (value, key, text); the value is sent in ``field``."""

    macro: ClassVar[str] = "options"
    field: str
    label: str
    options: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class RankingControl:
    """An order that is changed by dragging, by keys and by buttons; ``field``0, ``field``1, … get the places."""

    macro: ClassVar[str] = "ranking"
    field: str


@dataclass(frozen=True)
class OneCandidate:
    """The first candidate alone."""

    macro: ClassVar[str] = "one_candidate"


@dataclass(frozen=True)
class ScaleControl:
    """Numbers from 1 to 10 for each attribute in ``field``0, ``field``1, …; one attribute alone is a row of buttons."""

    macro: ClassVar[str] = "scale"
    field: str
    low: str
    high: str


@dataclass(frozen=True)
class TextEditor:
    """The first candidate's text in a text area; it is sent as ``text``."""

    macro: ClassVar[str] = "text_editor"
    label: str


@dataclass(frozen=True)
class Button:
    """A button below the parts. ``action`` is what it sends, "" for the answer that the fields hold.

    key    its key, as the script names it;  shown_key as the page prints it, "" for the same in capitals
    main   whether it is the usual way to answer
    check  whether the browser checks first that the fields are filled in
    """

    text: str
    key: str
    help: str
    action: str = ""
    shown_key: str = ""
    main: bool = False
    check: bool = False

    @property
    def key_label(self) -> str:
        return self.shown_key or self.key.upper()


@dataclass(frozen=True)
class VoteForm:
    """The form of one mode: ``parts``, ``buttons`` in order, and ``keys``, the help on keys that the parts have."""

    parts: tuple[Cards | Options | RankingControl | OneCandidate | ScaleControl | TextEditor, ...]
    buttons: tuple[Button, ...] = ()
    keys: tuple[KeyHelp, ...] = ()


SKIP = Button("Skip", "s", "skip: you will not see it again", "skip")
