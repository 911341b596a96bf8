"""Conversations: messages with roles, as chat templates read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
COMPLETION_MESSAGES = "completion_messages"
"""The field of text samples that holds a completion's messages as JSON where its content alone does not say them (tool
calls, several turns); "" elsewhere."""


@dataclass(frozen=True)
class Message:
    """One message. ``extra`` holds its further keys as JSON ("tool_calls", "name", …), "" where there are none."""

    role: str
    content: str
    extra: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates and other tools read it."""
        return {"role": self.role, "content": self.content, **(json.loads(self.extra) if self.extra else {})}


Messages = tuple[Message, ...]


def message_of(given: Mapping[str, Any]) -> Message:
    """A mapping of "role", "content" and further keys; keys without a value are left out, as Arrow fills them in."""
    extra = {key: value for key, value in given.items() if key not in ("role", "content") and value is not None}
    body = given.get("content")
    if body is None and extra:
        extra["content"] = None  # templates tell a message without content from one with an empty text
    text = json.dumps(extra, ensure_ascii=False) if extra else ""
    return Message(str(given["role"]), "" if body is None else str(body), text)


def to_json(messages: Sequence[Message]) -> str:
    """The messages as one JSON list."""
    return json.dumps([message.as_dict() for message in messages], ensure_ascii=False)


def from_json(text: str) -> Messages:
    """What :func:`to_json` wrote."""
    return tuple(message_of(given) for given in json.loads(text))


def flattened(messages: Sequence[Message]) -> str:
    """The messages as plain text, for people and for scorers: one is its content, several are lines "role: content".

    Calls of tools follow the content, one a line, as their names with the arguments in brackets.
    """
    if len(messages) == 1:
        return _written(messages[0])
    return "\n".join(f"{message.role}: {_written(message)}" for message in messages)


def _written(message: Message) -> str:
    calls = json.loads(message.extra).get("tool_calls") if message.extra else None
    if not isinstance(calls, list):
        return message.content
    parts = [message.content] if message.content else []
    for call in calls:
        inner = call.get("function", call) if isinstance(call, Mapping) else {}
        given = inner.get("arguments", "") if isinstance(inner, Mapping) else ""
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        parts.append(f"{inner.get('name', '') if isinstance(inner, Mapping) else call}({text})")
    return "\n".join(parts)


def completion_of(content: str, turns: str = "") -> Messages:
    """The messages of a completion: those of its field ``COMPLETION_MESSAGES``, or one turn of the assistant."""
    return from_json(turns) if turns else (Message("assistant", content),)
