"""The prompt and the completions of one row of preferences: raw text, or conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from upturn.data import conversations
from upturn.data.conversations import is_conversation, is_transcript
from upturn.data.rendered_text import turns_of
from upturn.types.conversations import Message, Messages, flattened


@dataclass(frozen=True)
class Bodies:
    """The prompt of one row as text, and as ``messages`` (() for raw text); its K completions and their messages."""

    prompt: str
    messages: Messages
    contents: list[str]
    turns: list[str]


def read(prompt: Any, completions: Sequence[Any], columns: Sequence[str], where: str, rendered: bool = False) -> Bodies:
    """One row; ``columns`` name that of each completion. UserError for what is neither text nor messages.

    A prompt that the completions repeat is taken out of them. Without a prompt, the beginning that several completions
    share is it, or all before the last answer where there is one completion alone. Text that a chat template wrote is
    read as its messages where ``rendered``.
    """
    if rendered and isinstance(prompt, str | None) and all(isinstance(body, str) for body in completions):
        turns = [turns_of(f"{prompt or ''}{body}") for body in completions]
        if all(turns):
            return _conversation((), turns, False)
    completions = [[body] if isinstance(body, dict) else body for body in completions]  # ShareGPT's pairs
    transcripts = all(is_transcript(body) for body in completions) and (prompt is None or isinstance(prompt, str))
    if isinstance(prompt, str) and prompt.startswith("\n\nHuman:"):  # hh-rlhf with the prompt in a column of its own
        return _after_transcript(prompt, completions, columns, where)
    if not transcripts and not isinstance(prompt, list) and not any(is_conversation(body) for body in completions):
        contents = [_text(body, name, where) for body, name in zip(completions, columns, strict=True)]
        return Bodies(prompt or "", (), contents, [""] * len(contents))
    several = [
        conversations.transcript(body) if transcripts else _messages(body, name, where)
        for body, name in zip(completions, columns, strict=True)
    ]
    start: Messages = ()
    if isinstance(prompt, list) and prompt:
        start = conversations.messages_of(prompt, "prompt", where)
    elif isinstance(prompt, str) and prompt:
        start = (Message("user", prompt),)
    return _conversation(start, several, isinstance(prompt, str))


def _conversation(start: Messages, several: Sequence[Messages], loose: bool) -> Bodies:
    """A prompt and completions of messages; where ``loose``, completions that are whole conversations replace it."""
    bare = [conversations.without_prompt(start, messages) for messages in several]
    whole = all(messages and messages[0].role in ("system", "user") for messages in bare)
    if not start or (whole and loose):  # the completions hold all, the prompt is a part of it
        size = conversations.shared_beginning(bare) if len(bare) > 1 else _last_answer(bare[0])
        start, bare = bare[0][:size], [messages[size:] for messages in bare]
    found = [conversations.example_of(start, messages) for messages in bare]
    text = flattened(start) if start else ""
    return Bodies(text, start, [one.content for one in found], [one.turns for one in found])


def _after_transcript(prompt: str, completions: Sequence[Any], columns: Sequence[str], where: str) -> Bodies:
    start = conversations.transcript(prompt)
    if start[-1].role == "assistant" and not start[-1].content.strip():
        start = start[:-1]
    contents = [
        _text(body, name, where).removeprefix(prompt).removeprefix(" ")
        for body, name in zip(completions, columns, strict=True)
    ]
    return Bodies(flattened(start), start, contents, [""] * len(contents))


def _last_answer(messages: Messages) -> int:
    """The place of the last message of the assistant; 0 where there is none."""
    places = [place for place, message in enumerate(messages) if message.role == "assistant"]
    return places[-1] if places else 0


def _messages(value: Any, name: str, where: str) -> Messages:
    if isinstance(value, str):
        return (Message("assistant", value),)
    if not is_conversation(value):
        raise conversations.wrong(name, "text, or a list of {role, content}", value, where)
    return conversations.messages_of(value, name, where)


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise conversations.wrong(name, "text, or a list of {role, content}", value, where)
    return value


def without_repeated_prompts(rows: Sequence[Bodies]) -> tuple[list[Bodies], int]:
    """Raw text without the prompt at the beginning of its completions, where every row with a prompt repeats it; and
    how many rows that were.

    One completion may begin with the words of its prompt; all of a data set do not.
    """
    raw = [row for row in rows if row.prompt and not row.messages]
    repeated = len(raw) > 1 and all(
        body.startswith(row.prompt) and len(body) > len(row.prompt) for row in raw for body in row.contents
    )
    if not repeated:
        return list(rows), 0
    return [
        replace(row, contents=[body.removeprefix(row.prompt) for body in row.contents])
        if row.prompt and not row.messages else row for row in rows
    ], len(raw)
