"""Prompts and completions as other tools read them: text, or messages where the prompt is a conversation."""

from __future__ import annotations

from typing import Any

from upturn.types import Prompt
from upturn.types.conversations import Message


def prompt_value(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A text, or the list of messages that TRL and others call conversational."""
    return [message.as_dict() for message in prompt.messages] if prompt.messages else prompt.text


def completion_value(prompt: Prompt, text: str) -> str | list[dict[str, Any]]:
    """A completion of that prompt in the same form."""
    return [Message("assistant", text).as_dict()] if prompt.messages else text
