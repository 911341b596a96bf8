"""Conversations: texts that are, or carry, messages with roles."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypedDict

ROLES = ("system", "user", "assistant", "human", "tool", "bot", "prompter")  # those that data sets name
_LINE = re.compile(rf"^({'|'.join(ROLES)})\s?:[ \t]?", re.IGNORECASE | re.MULTILINE)
_SIDES = {"user": "user", "human": "user", "prompter": "user", "system": "system", "tool": "system"}


class ConversationTurn(TypedDict):
    role: str
    content: str


def turns_of(text: str, messages: object = None) -> list[ConversationTurn] | None:
    """The turns of a conversation; None where it is a plain text.

    ``messages`` (a list of {role, content}, or its JSON) says so exactly. A text is one where it is that JSON, or where
    its first line begins "role:", the way that sources flatten messages. A content with such a line in it is then shown
    as two turns: what is stored stays as it is.
    """
    exact = _messages(messages) if messages is not None else None
    if exact is None and text.lstrip().startswith("["):
        exact = _messages(text)
    if exact is not None:
        return exact
    begin = _LINE.match(text)
    if begin is None:
        return None
    heads = list(_LINE.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        ConversationTurn(role=head[1].lower(), content=text[head.end() : end].strip("\n"))
        for head, end in zip(heads, ends, strict=True)
    ]


def _messages(value: object) -> list[ConversationTurn] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
               for m in value):
        return None
    return [ConversationTurn(role=m["role"].lower(), content=m["content"]) for m in value]


def after(prompt: Sequence[ConversationTurn], whole: Sequence[ConversationTurn]) -> list[ConversationTurn]:
    """What a whole conversation says beyond the prompt that it begins with; all of it where it begins otherwise."""
    shared = len(prompt) if list(whole[: len(prompt)]) == list(prompt) else 0
    return list(whole[shared:]) or list(whole)


def side(role: str) -> str:
    """user, assistant or system: on which side a turn is drawn."""
    return _SIDES.get(role, "assistant")
