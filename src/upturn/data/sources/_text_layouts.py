"""Rows of text in the layouts that people have: messages, instructions, prompts with completions, plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upturn.data import conversations
from upturn.data.rendered_text import rendered_note, turns_of
from upturn.errors import UserError
from upturn.types import COMPLETION_MESSAGES, Array, objects
from upturn.types.conversations import Message, Messages, flattened

Place = Callable[[int], str]  # row -> where it is, for messages
# what a row's columns mean when the recipe names none, the first that fits: (field -> the file's column)
RECOGNIZED: tuple[Mapping[str, str], ...] = (
    {"messages": "messages"},
    {"messages": "conversations"},
    {"messages": "conversation"},
    {"instruction": "instruction", "output": "output"},
    {"prompt": "prompt", "completion": "completion"},
    {"prompt": "prompt", "completion": "response"},
    {"text": "text"},
    {"prompt": "prompt"},
)
# further columns that a layout reads where the data has them
FURTHER = {"messages": ("tools", "system"), "instruction": ("input", "system", "history"), "completion": ("tools",)}
_EXPECTED = (
    "expected: messages (or conversations); instruction and output; prompt and completion (or response); text; or "
    "prompt alone"
)
_EXCERPT = 60  # characters of a text in the example of a note


def recognized(found: Sequence[str], where: str) -> dict[str, str]:
    """field -> column of the layout that these columns are. UserError naming those found and expected."""
    for layout in RECOGNIZED:
        if all(column in found for column in layout.values()):
            return dict(layout)
    raise UserError(
        f"no layout of text has these columns: {', '.join(found) or 'none'}; {_EXPECTED}", where=where,
        fix="Name the columns in the recipe: 'messages:', or 'prompt:' and 'completion:', or 'text:'.",
    )


@dataclass
class Texts:
    """N rows of text: ``prompts`` as text, ``chats`` as messages (() for raw text), the content, and its messages.

    ``faults`` say why a row is left out, "" where it is not.
    """

    prompts: list[str]
    chats: list[Messages]
    tools: list[str]
    contents: list[str]
    turns: list[str]
    faults: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def fields(self) -> dict[str, Array]:
        """The column of the completions' messages, where some completion needs it."""
        return {COMPLETION_MESSAGES: objects(self.turns)} if any(self.turns) else {}


def read(columns: Mapping[str, Sequence[Any]], named: Mapping[str, str], rendered: bool, place: Place) -> Texts:
    """The rows of the columns that ``named`` (field -> column) gives. UserError naming the row for a wrong value."""
    count = len(next(iter(columns.values()), ()))
    named = {
        key: column for key, column in named.items()
        if key not in ("tools", "system", "input", "history") or any(value is not None for value in columns[column])
    }
    out = Texts([""] * count, [()] * count, [""] * count, [""] * count, [""] * count, [""] * count)
    if "messages" in named or "instruction" in named:
        for row in range(count):
            _conversation(out, row, columns, named, place(row))
    elif "completion" in named or "text" in named:
        _prompts_and_completions(out, columns, named, rendered, place)
    else:
        _prompts_alone(out, columns, named, place)
    out.notes = [_described(out, named), *_pointed_out(out, place)]
    return out


def _conversation(
    out: Texts, row: int, columns: Mapping[str, Sequence[Any]], named: Mapping[str, str], where: str
) -> None:
    def cell(key: str) -> Any:
        return columns[named[key]][row] if key in named else None

    if "instruction" in named:
        messages = _instruction(cell, named, where)
    else:
        messages = conversations.messages_of(cell("messages"), named["messages"], where)
    system = cell("system")
    if system is not None and not isinstance(system, str):
        raise wrong(named["system"], "text", system, where)
    if system and system.strip() and messages and messages[0].role != "system":
        messages = (Message("system", system), *messages)
    out.tools[row] = conversations.tools_of(cell("tools"), named.get("tools", "tools"), where)
    given = conversations.first_answer(messages)
    _fill(out, row, messages[:given], messages[given:])


def _instruction(cell: Callable[[str], Any], named: Mapping[str, str], where: str) -> Messages:
    """A row of Alpaca (Taori et al. 2023): an instruction with its input, and the output; earlier turns as pairs."""
    parts = {key: cell(key) for key in ("instruction", "input", "output")}
    for key, value in parts.items():
        if not isinstance(value, str) and not (value is None and key == "input"):
            raise wrong(named[key], "text", value, where)
    turns: list[Message] = []
    for pair in cell("history") or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise wrong(named["history"], "pairs of texts (user, assistant)", pair, where)
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    question = "\n".join(part for part in (parts["instruction"], parts["input"]) if part)
    return (*turns, Message("user", question), Message("assistant", parts["output"]))


def _fill(out: Texts, row: int, prompt: Messages, completion: Messages) -> None:
    """One row that is a conversation."""
    found = conversations.example_of(prompt, completion) if completion else conversations.Example(prompt, "")
    out.prompts[row], out.chats[row] = flattened(prompt) if prompt else "", prompt
    out.contents[row], out.turns[row] = found.content, found.turns
    if not any(message.role == "assistant" for message in completion):
        out.faults[row] = "have no answer of the assistant"
    elif not prompt:
        out.faults[row] = "have no message before the assistant's"
    elif not any(message.content.strip() or message.extra for message in completion if message.role == "assistant"):
        out.faults[row] = "have no text"


def _prompts_and_completions(
    out: Texts, columns: Mapping[str, Sequence[Any]], named: Mapping[str, str], rendered: bool, place: Place
) -> None:
    """Columns of text, of messages, or of both: where either is messages, the row is a conversation."""
    content = named.get("completion") or named["text"]
    prompt = named.get("prompt")
    completions = columns[content]
    prompts: Sequence[Any] = columns[prompt] if prompt else [""] * len(completions)
    for row, (before, after) in enumerate(zip(prompts, completions, strict=True)):
        if isinstance(before, str) and isinstance(after, str):
            turns = turns_of(before + after) if rendered else ()
            if turns:
                given = conversations.first_answer(turns) if not before else len(turns_of(before))
                _fill(out, row, turns[:given], turns[given:])
            else:
                out.prompts[row], out.contents[row] = before, after
                out.faults[row] = "" if after.strip() else "have no text"
            continue
        where = place(row)
        first = _messages(before, "user", prompt or "prompt", where) if prompt else ()
        rest = conversations.without_prompt(first, _messages(after, "assistant", content, where))
        if not prompt:
            given = conversations.first_answer(rest)
            first, rest = rest[:given], rest[given:]
        if "tools" in named:
            out.tools[row] = conversations.tools_of(columns[named["tools"]][row], named["tools"], where)
        _fill(out, row, first, rest)


def _prompts_alone(
    out: Texts, columns: Mapping[str, Sequence[Any]], named: Mapping[str, str], place: Place
) -> None:
    """Prompts that a policy answers and scorers judge, as text or messages; there is nothing to learn from them."""
    for row, value in enumerate(columns[named["prompt"]]):
        if isinstance(value, str):
            out.prompts[row] = value
        else:
            out.chats[row] = _messages(value, "user", named["prompt"], place(row))
            out.prompts[row] = flattened(out.chats[row])
            if out.chats[row][-1].role == "assistant":
                out.faults[row] = "end with a message of the assistant"
        if not out.prompts[row].strip():
            out.faults[row] = "have no text"


def _messages(value: object, role: str, column: str, where: str) -> Messages:
    """A list of messages, or a text that is one message of ``role``."""
    if isinstance(value, str):
        return (Message(role, value),)
    if not isinstance(value, list) or (value and not conversations.is_conversation(value)):
        raise wrong(column, "text, or a list of {role, content}", value, where)
    return conversations.messages_of(value, column, where)


def wrong(column: str, expected: str, found: object, where: str) -> UserError:
    """The error for a value of another type than expected."""
    what = "nothing (null)" if found is None else f"a {type(found).__name__}"
    return UserError(
        f"column '{column}' must hold {expected}, here it holds {what}", where=where,
        fix=f"Name a column of {'text' if expected == 'text' else 'text or messages'}, or fix the row.",
    )


def _described(out: Texts, named: Mapping[str, str]) -> str:
    """Which layout was read, with counts and one example."""
    chats = [row for row, chat in enumerate(out.chats) if chat]
    which = ", ".join(f"{key} '{column}'" if key != column else f"'{key}'" for key, column in named.items())
    kept = next((row for row, fault in enumerate(out.faults) if not fault), 0)
    example = f"{out.prompts[kept][:_EXCERPT]!r} -> {out.contents[kept][:_EXCERPT]!r}"
    if list(named) == ["prompt"]:
        form = "conversations" if chats else "raw text"
        return f"{len(out.contents):,} rows were read as prompts alone, {form} (column '{named['prompt']}'): the " \
               f"policy answers them, and learns nothing from the rows; the first: {out.prompts[kept][:_EXCERPT]!r}"
    if not chats:
        kind = "prompts and completions of raw text" if "completion" in named and "prompt" in named else "raw text"
        if kind == "raw text":
            example = repr(out.contents[kept][:_EXCERPT])
        return f"{len(out.contents):,} rows were read as {kind} (columns: {which}), no chat template is applied; the " \
               f"first: {example}"
    counts = Counter[str]()
    for row in chats:
        counts["with a system message"] += any(message.role == "system" for message in out.chats[row])
        counts["with earlier turns in the prompt"] += any(message.role == "assistant" for message in out.chats[row])
        counts["with several turns to learn"] += out.turns[row].count('"role": "assistant"') > 1
        counts["with tools"] += bool(out.tools[row])
    more = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    raw = len(out.contents) - len(chats)
    others = f"; {raw:,} rows are raw text" if raw else ""
    return f"{len(chats):,} rows were read as conversations (columns: {which}){more}{others}; the first: {example}"


def _pointed_out(out: Texts, place: Place) -> list[str]:
    """Notes on raw text that looks as if a chat template had written it."""
    raw = [row for row, chat in enumerate(out.chats) if not chat and not out.faults[row]]
    texts = [out.prompts[row] + out.contents[row] for row in raw]
    return rendered_note(texts, lambda number: place(raw[number]))


def left_out(faults: Sequence[str], place: Place) -> tuple[Array, list[str]]:
    """(N,) the rows that stay, and a note for each reason. UserError where none stays."""
    kept = np.array([not fault for fault in faults], dtype=bool)
    reasons = Counter(fault for fault in faults if fault)
    if len(kept) and not kept.any():
        alone = "the text of every row is empty" if set(reasons) == {"have no text"} else (
            "no row can be learned: " + ", ".join(f"{count:,} {fault}" for fault, count in reasons.items())
        )
        raise UserError(alone, where=place(0), fix="Name another column, or other data.")
    return kept, [
        f"{count:,} of {len(kept):,} rows {fault}, left out, the first at {place(list(faults).index(fault))}"
        for fault, count in reasons.items()
    ]
