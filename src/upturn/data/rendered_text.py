"""Text in which a chat template is already written out: found by its special tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from upturn.types.conversations import Message, Messages

# <|…|>: ChatML, Llama 3, Phi, Zephyr, Cohere; <｜…｜>: DeepSeek; [INST]: Llama 2 and Mistral; turns of Gemma. <s> and
# </s> are tags of HTML, too, and count at the ends of a text alone.
_SPECIAL = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]*\|>|<｜[^｜<>\n]{1,30}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\A\s*<s>|</s>\s*\Z"
)


def special_token(text: str) -> str:
    """The first special token of a chat template that is written out in a text, "" where there is none."""
    if "<" not in text and "[" not in text:
        return ""
    found = _SPECIAL.search(text)
    return found[0].strip() if found else ""


def rendered_note(texts: Sequence[str], place: Callable[[int], str]) -> list[str]:
    """A note that counts the texts in which special tokens are written out, and says what to do."""
    found = [(row, token) for row, text in enumerate(texts) if (token := special_token(text))]
    if not found:
        return []
    row, token = found[0]
    return [
        f"{len(found):,} of {len(texts):,} rows look pre-rendered: special tokens are written out in their text, which "
        f"stays text and is never read as special tokens (the first: {token} at {place(row)}). Give the conversations "
        "as messages instead ('messages:', or 'prompt:' and 'completion:' that hold lists of {role, content}), or "
        "write 'rendered: true': the turns are then read from the text"
    ]


_ROLE = r"(system|user|assistant|tool)"
# how a template writes a turn: (its beginning, its end); the last turn may be open, or end with the text
_TURNS = (
    (re.compile(rf"<\|im_start\|>{_ROLE}\n"), re.compile(r"<\|im_end\|>\n?")),
    (re.compile(rf"<\|start_header_id\|>{_ROLE}<\|end_header_id\|>\n\n"), re.compile(r"<\|eot_id\|>")),
    (re.compile(rf"<\|{_ROLE}\|>\n"), re.compile(r"(?:<\|end\|>|</s>|<\|endoftext\|>)?\n?(?=<\||\Z)")),
    (re.compile(r"<start_of_turn>(user|model)\n"), re.compile(r"<end_of_turn>\n?")),
)
_INSTRUCTION = re.compile(r"(?:<s>)?\s*\[INST\]\s*(?:<<SYS>>\n(.*?)\n<</SYS>>\n\n)?(.*?)\s*\[/INST\]\s?", re.DOTALL)


def turns_of(text: str) -> Messages:
    """The messages of a text that a template wrote (ChatML, Llama 3, Zephyr and Phi, Gemma, Llama 2 and Mistral).

    A last message that was begun and has no text is left out. () where no template is recognized.
    """
    for begin, end in _TURNS:
        if begin.search(text):
            return _turns(text, begin, end)
    return _instructions(text) if "[INST]" in text else ()


def _turns(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> Messages:
    found: list[Message] = []
    starts = list(begin.finditer(text))
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        body = text[start.end() : following.start() if following else len(text)]
        stop = end.search(body)
        body = body[: stop.start()] if stop else body
        closed = stop is not None and bool(stop[0].strip())
        role = "assistant" if start[1] == "model" else start[1]
        if body or following is not None or closed:
            found.append(Message(role, body))
    return tuple(found)


def _instructions(text: str) -> Messages:
    found: list[Message] = []
    starts = list(_INSTRUCTION.finditer(text))
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        if start[1]:
            found.append(Message("system", start[1]))
        found.append(Message("user", start[2]))
        answer = text[start.end() : following.start() if following else len(text)]
        answer = answer.strip().removesuffix("</s>").rstrip()
        if answer:
            found.append(Message("assistant", answer))
    return tuple(found)
