"""Rows of data as tokens where a tokenizer, or the text itself, gets in the way; beside transformers' own tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from upturn.config import components
from upturn.data.chat_template import ChatTemplate, added_tokens, named_template
from upturn.data.tokenizers import settle, train
from upturn.models._language.prompt_template import Format
from upturn.types import Samples, concatenate

CHATML = named_template("chatml", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ?!\n:<|>_0123456789+="


def read(path: Path, rows: Sequence[dict[str, Any]], name: str = "jsonl") -> Samples:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = components.make("source", {"name": name, "path": str(path), "held_out": 0.3}).load()
    return concatenate([found.train, found.held_out])


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = train({"kind": "bpe", "size": 300}, [LETTERS, "user assistant system"])
    tokenizer.chat_template = CHATML
    tokenizer.add_special_tokens({"additional_special_tokens": added_tokens(CHATML)})
    return tokenizer


def formatted(tokenizer: PreTrainedTokenizerFast) -> Format:
    codec, _ = settle(tokenizer, "test")
    chat = ChatTemplate(codec, tokenizer.chat_template) if tokenizer.chat_template else None
    return Format(codec, chat, "assistant", "refuse", 10_000, 0.0)


def rows_of(form: Format, samples: Samples) -> list[tuple[list[int], list[int]]]:
    """(tokens, mask) of each row."""
    batch, _ = form.encode(samples)
    tokens, mask = batch.columns["tokens"], batch.columns["mask"]
    ends = tokens.offsets.tolist()
    return [
        (tokens.values[a:b].tolist(), mask.values[a:b].int().tolist()) for a, b in pairwise(ends)
    ]


def test_prompts_of_one_and_of_several_turns_go_through_the_template_alike(tmp_path: Path) -> None:
    starts = [[], [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]]
    rows = [{"prompt": [*starts[i % 2], {"role": "user", "content": f"C{i}"}],
             "chosen": [{"role": "assistant", "content": "D"}], "rejected": [{"role": "assistant", "content": "E"}]}
            for i in range(20)]
    samples = read(tmp_path / "a.jsonl", rows, "preferences")
    tokenizer = chat_tokenizer()
    got = rows_of(formatted(tokenizer), samples)
    tokenizer.backend_tokenizer.encode_special_tokens = False
    for (tokens, mask), prompt, content in zip(got, samples.prompts, samples.content, strict=True):
        messages = [message.as_dict() for message in prompt.messages]
        before = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        whole = [*messages, {"role": "assistant", "content": content}]
        full = tokenizer.apply_chat_template(whole, return_dict=False)
        assert tokens == full and full[: len(before)] == before
        learned = tokenizer.decode(np.array(full)[np.array(mask) == 1])
        assert not any(mask[: len(before)]) and learned.startswith(content)


def test_text_that_spells_special_tokens_reads_as_messages_once_it_says_so(tmp_path: Path) -> None:
    """A prompt that ChatML wrote: with 'rendered: true' the ids are those of the template, and the answer ends."""
    row = "<|im_start|>user\nHi {}<|im_end|>\n<|im_start|>assistant\n"
    rows = [{"prompt": row.format(i), "completion": "Hello"} for i in range(20)]
    tokenizer = chat_tokenizer()
    plain = rows_of(formatted(tokenizer), read(tmp_path / "a.jsonl", rows))
    found = components.make(
        "source", {"name": "jsonl", "path": str(tmp_path / "a.jsonl"), "held_out": 0.3, "rendered": True}
    ).load()
    samples = concatenate([found.train, found.held_out])
    got = rows_of(formatted(tokenizer), samples)
    tokenizer.backend_tokenizer.encode_special_tokens = False
    for (tokens, _), prompt in zip(got, samples.prompts, strict=True):
        chat = [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": "Hello"}]
        assert tokens == tokenizer.apply_chat_template(chat, return_dict=False)
    assert min(len(tokens) for tokens, _ in plain) > max(len(tokens) for tokens, _ in got)
    markers = set(tokenizer.convert_tokens_to_ids(added_tokens(CHATML)))
    assert not any(markers & set(tokens) for tokens, _ in plain) and all(markers & set(tokens) for tokens, _ in got)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("scheme", ["always", "first"])
def test_no_space_is_learned_before_a_completion(tmp_path: Path, scheme: str, apart: bool) -> None:
    """Llama 2, Mistral and Gemma write a space before each text: the ids are those of the joint text."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    pieces = [pre_tokenizers.Digits(individual_digits=True)] if apart else []  # as Llama: no token reaches over "="
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False), *pieces]
    )
    raw.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    raw.train_from_iterator(["2+2=4", "3+4=7", "0123456789+="], trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    rows = [{"prompt": f"{i}+{i}=", "completion": f"{2 * i}"} for i in range(20)]
    samples = read(tmp_path / "a.jsonl", rows)
    for (tokens, mask), prompt, content in zip(
        rows_of(formatted(tokenizer), samples), samples.prompts, samples.content, strict=True
    ):
        joint = tokenizer(prompt.text + content)["input_ids"]
        if apart:
            assert tokens == [*joint, tokenizer.eos_token_id]
        learned = [token for token, learn in zip(tokens, mask, strict=True) if learn]
        assert "▁" not in "".join(tokenizer.convert_ids_to_tokens(learned))


def test_truncation_and_padding_saved_with_a_tokenizer_change_nothing(tmp_path: Path) -> None:
    tokenizer = train({"kind": "bpe", "size": 300}, [LETTERS])
    rows = [{"prompt": f"a long question of many words {i}", "completion": "hi"} for i in range(20)]
    samples = read(tmp_path / "a.jsonl", rows)
    expected = rows_of(formatted(tokenizer), samples)
    tokenizer.backend_tokenizer.enable_truncation(max_length=8)
    tokenizer.backend_tokenizer.enable_padding(length=12)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert saved["truncation"]["max_length"] == 8 and saved["padding"]
    assert rows_of(formatted(AutoTokenizer.from_pretrained(tmp_path / "saved")), samples) == expected
    assert max(len(tokens) for tokens, _ in expected) > 12
