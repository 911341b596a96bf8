"""Reads conversations as people store them: OpenAI's messages, ShareGPT's turns, transcripts; as ``Messages``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upturn.errors import UserError
from upturn.types.conversations import ROLES, Message, Messages, flattened, message_of, to_json

# The names of roles in published data: OpenAI, ShareGPT (FastChat), Gemma, OpenAssistant, LLaMA-Factory, Llama 3.1
_ROLE_OF = {role: role for role in ROLES} | {
    "human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "function_call": "assistant", "observation": "tool", "function": "tool", "ipython": "tool",
    "function_response": "tool",
}  # fmt: skip
_CALL = "function_call"  # a role of ShareGPT: the assistant calls a function, the value is the call as JSON
_PARTS = frozenset({"text", "input_text", "output_text"})  # kinds of OpenAI's content parts that hold text
_SPEAKER = re.compile(r"\n\n(Human|Assistant):[ ]?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def is_conversation(value: object) -> bool:
    """Whether a value is a list of messages (with roles, or ShareGPT's from and value), not text."""
    return isinstance(value, list) and bool(value) and all(
        isinstance(item, Mapping) and ("role" in item or "from" in item) for item in value
    )


def messages_of(value: object, column: str, where: str) -> Messages:
    """The messages of one cell: a list of {role, content} or {from, value}, or such a list as JSON text.

    Content parts of text are joined; keys without a value are dropped, as Arrow fills them in. UserError naming the row
    for what is no list of messages, for an unknown role, and for images.
    """
    given = _list_in(value)
    if not isinstance(given, list):
        raise wrong(column, "a list of {role, content}", given, where)
    return tuple(_message(item, column, where) for item in given)


def _list_in(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _message(given: object, column: str, where: str) -> Message:
    if not isinstance(given, Mapping) or not ("role" in given or "from" in given):
        raise wrong(column, "a list of {role, content} or {from, value}", given, where)
    turn = dict(without_nulls(given))
    name = turn.pop("role", None) or turn.pop("from", None)
    turn.pop("from", None)
    role = _ROLE_OF.get(str(name).strip().lower())
    if role is None:
        raise UserError(
            f"column '{column}' has a message of the role {str(name)!r}; known are {', '.join(ROLES)}, and "
            f"{', '.join(sorted(set(_ROLE_OF) - set(ROLES)))}", where=where, fix="Rename the role in the data.",
        )
    body = turn.pop("content", None)
    value = turn.pop("value", None)
    body = value if body is None else body
    if str(name).strip().lower() == _CALL:
        return message_of({**turn, "role": role, "content": None, "tool_calls": _calls(body, column, where)})
    return message_of({**turn, "role": role, "content": None if body is None else _text(body, column, where)})


def _text(body: object, column: str, where: str) -> str:
    """The text of a message: itself, or its parts joined as templates write them, one after the other."""
    if isinstance(body, str):
        return body
    if not isinstance(body, list):
        raise wrong(column, "messages whose content is text", body, where)
    parts = []
    for part in body:
        kind = "text" if isinstance(part, str) else part.get("type", "text") if isinstance(part, Mapping) else "nothing"
        words = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if kind not in _PARTS or not isinstance(words, str):
            raise UserError(
                f"column '{column}' has a message with a part of the type {kind!r}: a language model reads text alone",
                where=where, fix="Leave such rows out of the data, or keep the parts of the type 'text' only.",
            )
        parts.append(words)
    return "".join(parts)


def _calls(value: object, column: str, where: str) -> list[dict[str, Any]]:
    """ShareGPT's call of functions, JSON of one {name, arguments} or a list of them, as OpenAI's tool calls."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        found = None
    calls = found if isinstance(found, list) else [found]
    named = [dict(call) for call in calls if isinstance(call, Mapping) and "name" in call]
    if len(named) < len(calls):
        raise wrong(column, "calls of functions as JSON {name, arguments}", value, where)
    return [{"type": "function", "function": {"arguments": {}, **call}} for call in named]


def without_nulls(value: Any) -> Any:
    """A value of JSON without the keys that hold null: Arrow gives every struct of a column the keys of all."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def tools_of(value: object, column: str, where: str) -> str:
    """Tools as JSON text, "" for none: a list of their descriptions, or that list as JSON text."""
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        return ""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise wrong(column, "a list of tools, or that list as JSON text", value, where) from error
    found = [found] if isinstance(found, Mapping) else found
    if found is None or found == []:
        return ""
    if not isinstance(found, list):
        raise wrong(column, "a list of tools", found, where)
    return json.dumps(without_nulls(found), ensure_ascii=False)


def is_transcript(value: object) -> bool:
    """Whether a text is a dialogue as in hh-rlhf: turns that begin "\\n\\nHuman:" and "\\n\\nAssistant:"."""
    return isinstance(value, str) and value.startswith(("\n\nHuman:", "\n\nAssistant:")) and "\n\nAssistant:" in value


def transcript(text: str) -> Messages:
    """The messages of a dialogue as in hh-rlhf (Bai et al. 2022), without the space after a speaker's colon."""
    parts = _SPEAKER.split(text)[1:]
    turns = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message(_SPEAKERS[speaker], words) for speaker, words in turns)


@dataclass(frozen=True)
class Example:
    """A prompt and its completion as a sample holds them: ``turns`` are the completion's messages as JSON where
    ``content`` alone does not say them, else ""."""

    prompt: Messages
    content: str
    turns: str = ""


def example_of(prompt: Messages, completion: Messages) -> Example:
    """A completion of one plain message of the assistant is its text; what else it holds is kept as messages."""
    if len(completion) == 1 and completion[0].role == "assistant" and not completion[0].extra:
        return Example(prompt, completion[0].content)
    return Example(prompt, flattened(completion), to_json(completion))


def first_answer(messages: Messages) -> int:
    """The place of the first message of the assistant: all before it are the prompt.

    Messages of the assistant that open the conversation belong to the prompt, since they answer nothing. The number of
    messages where there is no answer.
    """
    opening = next((place for place, message in enumerate(messages) if message.role != "assistant"), len(messages))
    return next((i for i in range(opening, len(messages)) if messages[i].role == "assistant"), len(messages))


def without_prompt(prompt: Messages, completion: Messages) -> Messages:
    """A completion without the prompt that some data sets repeat at its beginning."""
    size = len(prompt)
    repeated = 0 < size < len(completion) and completion[:size] == prompt
    return completion[size:] if repeated else completion


def shared_beginning(several: Sequence[Messages]) -> int:
    """How many messages several completions have in common at their beginning, each keeping one of its own."""
    least = min(len(messages) for messages in several) - 1
    place = 0
    while place < least and all(messages[place] == several[0][place] for messages in several):
        place += 1
    return place


def wrong(column: str, expected: str, found: object, where: str) -> UserError:
    """The error for a value that is none of those expected."""
    what = "nothing (null)" if found is None else repr(found)[:60]
    return UserError(f"column '{column}' must hold {expected}, here it holds {what}", where=where, fix="Fix the row.")
