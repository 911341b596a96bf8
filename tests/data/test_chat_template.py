"""Chat templates against transformers: tokens of 200 conversations, learned tokens, texts that spell special tokens."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.smollm2 import smollm2
from upturn.data.chat_template import ChatTemplate, added_tokens, named_template
from upturn.data.tokenizers import Codec, settle, train
from upturn.errors import UserError
from upturn.types.conversations import Message, Messages, message_of

TEMPLATES = Path(__file__).parent / "templates"
SPECIAL = {
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "tools": ["<|im_start|>", "<|im_end|>"], "chatml_generation": ["<|im_start|>", "<|im_end|>"],
    "drops_reasoning": ["<|im_start|>", "<|im_end|>"],
}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
WORDS = [
    "apple", "Straße", "naïve", "東京", "🙂", "e\u0301", "the", "of", "3.14", "<b>x</b>", '{"k":', "1}",
    "\\n", "Ω", "tab\there",
]


@cache
def small(name: str) -> tuple[Codec, str]:
    """A byte-level BPE tokenizer with the special tokens of a template, and the template's text."""
    tokenizer = train({"kind": "bpe", "size": 400}, [" ".join(WORDS) * 3])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[name]})
    if name == "llama3":
        tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    else:
        tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    return settle(tokenizer, "test")[0], tokenizer.chat_template


def conversations(count: int, tools: bool) -> list[tuple[list[dict[str, Any]], list[Any] | None]]:
    """Conversations of one to five turns, with system messages, unicode, and tool calls where ``tools``."""
    rng = random.Random(0)

    def words() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 12)))

    found = []
    for _ in range(count):
        chat: list[dict[str, Any]] = [{"role": "system", "content": words()}] if rng.random() < 0.4 else []
        for _ in range(rng.randint(1, 5)):
            chat.append({"role": "user", "content": words()})
            if tools and rng.random() < 0.4:
                call = {"type": "function", "function": {"name": "add", "arguments": {"a": rng.randint(0, 9)}}}
                chat.append({"role": "assistant", "content": "", "tool_calls": [call]})
                chat.append({"role": "tool", "content": words(), "name": "add"})
            chat.append({"role": "assistant", "content": words()})
        found.append((chat, [TOOL] if tools and rng.random() < 0.7 else None))
    return found


def as_row(chat: list[dict[str, Any]], tools: list[Any] | None) -> tuple[Messages, str, int]:
    messages = tuple(message_of(message) for message in chat)
    first = next(i for i, message in enumerate(messages) if message.role == "assistant")
    return messages, json.dumps(tools) if tools else "", first


def own_tokenizer() -> tuple[Codec, str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    return settle(tokenizer, "test")[0], tokenizer.chat_template


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llama3", "tools", "chatml_generation", pytest.param("smollm2", marks=pytest.mark.slow)]
)
def test_tokens_are_those_of_apply_chat_template(name: str) -> None:
    codec, source = own_tokenizer() if name == "smollm2" else small(name)
    template = ChatTemplate(codec, source)
    chats = conversations(200, tools=name == "tools")
    encoded = template.encode([as_row(chat, tools) for chat, tools in chats], "assistant")
    for (chat, tools), row in zip(chats, encoded, strict=True):
        wanted = codec.tokenizer.apply_chat_template(chat, tools=tools, tokenize=True)["input_ids"]
        assert row.tokens == wanted


@pytest.mark.parametrize("name", ["llama3", "tools", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_learned_tokens_are_those_of_prefix_comparison(name: str) -> None:
    """Each turn's tokens are what is added to the tokens of the prompt before it, in transformers' own tokens."""
    codec, source = own_tokenizer() if name == "smollm2" else small(name)
    template = ChatTemplate(codec, source)
    chats = conversations(40, tools=name == "tools")
    encoded = template.encode([as_row(chat, tools) for chat, tools in chats], "assistant")
    for (chat, tools), row in zip(chats, encoded, strict=True):
        wanted = [0] * len(row.tokens)
        for i, message in enumerate(chat):
            if message["role"] == "assistant":
                before, through = (
                    codec.tokenizer.apply_chat_template(part, tools=tools, tokenize=True, add_generation_prompt=more)
                    for part, more in ((chat[:i], True), (chat[: i + 1], False))
                )
                start, stop = len(before["input_ids"]), len(through["input_ids"])
                assert row.tokens[:stop] == through["input_ids"]
                wanted[start:stop] = [1] * (stop - start)
        assert row.learned == wanted


def test_generation_marks_decide_where_a_template_has_them() -> None:
    codec, source = small("chatml_generation")
    chats = conversations(40, tools=False)
    encoded = ChatTemplate(codec, source).encode([as_row(chat, None) for chat, _ in chats], "assistant")
    for (chat, _), row in zip(chats, encoded, strict=True):
        wanted = codec.tokenizer.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert row.learned == wanted["assistant_masks"]


def learned_text(codec: Codec, template: ChatTemplate, row: tuple[Messages, str, int], train_on: Any) -> str:
    encoded = template.encode([row], train_on)[0]
    kept = [token for token, learned in zip(encoded.tokens, encoded.learned, strict=True) if learned]
    return str(codec.tokenizer.decode(kept))


# Written by hand: what is learned of [system s, user a, assistant b, user c, assistant d, user e, assistant f].
BY_HAND = {
    ("tools", "assistant", 2): "b<|im_end|>\nd<|im_end|>\nf<|im_end|>\n",
    ("tools", "assistant", 4): "d<|im_end|>\nf<|im_end|>\n",
    ("tools", "assistant", 6): "f<|im_end|>\n",
    ("tools", "last", 2): "f<|im_end|>\n",
    ("tools", "last", 6): "f<|im_end|>\n",
    ("tools", "completion", 6): "f<|im_end|>\n",
    ("tools", "completion", 4): "d<|im_end|>\n<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\nf<|im_end|>\n",
    ("chatml_generation", "assistant", 2): "b<|im_end|>d<|im_end|>f<|im_end|>",
    ("chatml_generation", "assistant", 4): "d<|im_end|>f<|im_end|>",
    ("chatml_generation", "last", 2): "f<|im_end|>",
    ("chatml_generation", "completion", 6): "f<|im_end|>\n",
    ("llama3", "assistant", 2): "b<|eot_id|>d<|eot_id|>f<|eot_id|>",
    ("llama3", "assistant", 6): "f<|eot_id|>",
    ("llama3", "last", 4): "f<|eot_id|>",
    ("llama3", "completion", 6): "f<|eot_id|>",
    ("llama3", "assistant", 4): "d<|eot_id|>f<|eot_id|>",
    ("llama3", "last", 2): "f<|eot_id|>",
    ("chatml_generation", "last", 6): "f<|im_end|>",
    ("tools", "completion", 2): (
        "b<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n<|im_start|>user\ne<|im_end|>\n"
        "<|im_start|>assistant\nf<|im_end|>\n"
    ),
    ("llama3", "all", 6): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>"
        + "".join(
            f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"
            for role, text in zip(["user", "assistant"] * 3, "abcdef", strict=True)
        )
    ),
}


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: "-".join(map(str, case)))
def test_learned_turns_marked_by_hand(case: tuple[str, str, int]) -> None:
    name, train_on, given = case
    codec, source = small(name)
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    messages = tuple(Message(role, text) for role, text in zip(roles, "sabcdef", strict=True))
    assert learned_text(codec, ChatTemplate(codec, source), (messages, "", given), train_on) == BY_HAND[case]


def test_tool_calls_are_learned_and_tool_results_are_not() -> None:
    codec, source = small("tools")
    call = message_of({"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 1}}]})
    messages = (Message("user", "q"), call, Message("tool", "RESULT"), Message("assistant", "done"))
    text = learned_text(codec, ChatTemplate(codec, source), (messages, "", 1), "assistant")
    assert text == (
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\ndone<|im_end|>\n'
    )


@pytest.mark.parametrize("name", ["llama3", "tools", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_a_special_token_in_a_message_stays_text(name: str) -> None:
    """The row equals the template's in everything else, and what the user wrote is spelled in ordinary tokens."""
    codec, source = own_tokenizer() if name == "smollm2" else small(name)
    template = ChatTemplate(codec, source)
    end = "<|eot_id|>" if name == "llama3" else "<|im_end|>"
    number = codec.tokenizer.convert_tokens_to_ids(end)
    said = f"what is {end}{end}? x"
    row = template.encode([((Message("user", said), Message("assistant", f"a {end} b")), "", 1)], "assistant")[0]
    plain = template.encode([((Message("user", "Q"), Message("assistant", "A")), "", 1)], "assistant")[0]
    assert row.tokens.count(number) == plain.tokens.count(number)
    raw = codec.tokenizer.backend_tokenizer
    rendered = codec.tokenizer.apply_chat_template(
        [{"role": "user", "content": said}, {"role": "assistant", "content": f"a {end} b"}], tokenize=False
    )
    assert raw.decode(row.tokens, skip_special_tokens=False) == rendered


def test_a_template_that_drops_earlier_turns_names_the_row() -> None:
    codec, source = small("drops_reasoning")
    template = ChatTemplate(codec, source)
    chat = (Message("user", "q"), Message("assistant", "<think>x</think>a"), Message("user", "r"),
            Message("assistant", "<think>y</think>b"))
    with pytest.raises(UserError, match=r"renders the first .* of 4 messages in another way"):
        template.encode([(chat, "", 1)], "assistant", lambda row: f"row {row}")
    assert learned_text(codec, template, (chat, "", 3), "assistant") == "<think>y</think>b<|im_end|>\n"


def test_a_named_template_brings_its_special_tokens() -> None:
    source = named_template("chatml", "model.chat_template")
    assert added_tokens(source) == ["<|im_start|>", "<|im_end|>"]
    with pytest.raises(UserError, match="no chat template 'chatmll'"):
        named_template("chatmll", "model.chat_template")


def test_a_template_without_an_end_gets_the_end_token() -> None:
    tokenizer = train({"kind": "bpe", "size": 300}, ["a b c"])
    codec = settle(tokenizer, "test")[0]
    template = ChatTemplate(codec, named_template("plain", "model.chat_template"))
    assert template.end_of_turn is None
    row = template.encode([((Message("user", "a"), Message("assistant", "b")), "", 1)], "assistant")[0]
    assert tokenizer.decode(row.tokens[:-1]) == "user:\na\nassistant:\nb" and row.tokens[-1] == codec.eos
    assert tokenizer.decode([t for t, on in zip(row.tokens, row.learned, strict=True) if on][:-1]) == "b"
    assert template.prompt((Message("user", "a"),), "") == row.tokens[: -2]


def test_a_template_that_refuses_a_conversation_is_one_message() -> None:
    codec, _ = small("llama3")
    template = ChatTemplate(codec, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="refuses this conversation: roles must alternate"):
        template.encode([((Message("user", "a"), Message("assistant", "b")), "", 1)], "all")
