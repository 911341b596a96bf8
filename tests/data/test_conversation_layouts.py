"""Tests of the layouts of conversations and text that jsonl, parquet and hub read, beside TRL's reading of them."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast
from trl import data_utils

from helpers.chat_rows import answer, loaded, user, whole
from upturn.config import components
from upturn.data import chat_template
from upturn.data.sources.jsonl import Jsonl
from upturn.data.tokenizers import train
from upturn.errors import UserError
from upturn.types import COMPLETION_MESSAGES, Samples
from upturn.types.conversations import completion_of

pytestmark = pytest.mark.slow


load = partial(loaded, "jsonl")


def conversations_of(samples: Samples) -> dict[str, list[dict[str, Any]]]:
    """The messages of each row, prompt and completion together, by the prompt's text."""
    turns = samples.fields.get(COMPLETION_MESSAGES, [""] * len(samples))
    return {
        prompt.text: [m.as_dict() for m in (*prompt.messages, *completion_of(str(content), turn))]
        for prompt, content, turn in zip(samples.prompts, samples.content, turns, strict=True)
    }


@pytest.fixture
def chatml() -> PreTrainedTokenizerFast:
    tokenizer = train({"kind": "characters"}, ["abc"])
    tokenizer.chat_template = chat_template.named_template("chatml", "test")
    return tokenizer


# --- messages and ShareGPT, as TRL reads them -----------------------------------------------------------------


def in_both_ways(count: int) -> list[list[dict[str, Any]]]:
    """Conversations of one turn, of several, with a system message, and unicode."""
    out = []
    for i in range(count):
        start = [{"role": "system", "content": f"be kind {i}"}] if i % 3 == 0 else []
        more = [user(f"näher {i}?"), answer("übrigens \u2028 ja 🙂")] if i % 2 else []
        out.append([*start, user(f"q{i}"), answer(f"a{i}"), *more])
    return out


@pytest.mark.parametrize("layout", ["messages", "conversations"])
def test_conversations_render_as_trl_renders_them(
    tmp_path: Path, chatml: PreTrainedTokenizerFast, layout: str
) -> None:
    chats = in_both_ways(40)
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    rows: list[dict[str, Any]] = [{"messages": chat} for chat in chats]
    if layout == "conversations":
        rows = [{"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in c]} for c in chats]
    truth = set()
    for row in copy.deepcopy(rows):
        read = data_utils.maybe_convert_to_chatml(row)
        known = {"human": "user", "gpt": "assistant"}  # TRL keeps ShareGPT's names of roles
        read["messages"] = [{**m, "role": known.get(m["role"], m["role"])} for m in read["messages"]]
        truth.add(data_utils.maybe_apply_chat_template(read, chatml)["text"])
    samples = whole(load(tmp_path / "a.jsonl", rows))
    ours = {chatml.apply_chat_template(chat, tokenize=False) for chat in conversations_of(samples).values()}
    assert ours == truth and len(ours) == 40


def test_the_prompt_ends_before_the_first_answer_and_one_plain_answer_is_text(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "system", "content": "s"}, user(f"q{i}"), answer(f"a{i}")]} for i in range(10)]
    rows += [{"messages": [user("first"), answer("one"), user("second"), answer("two")]}]
    rows += [{"messages": [answer("hello"), user("opened"), answer("yes")]}]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    own = {prompt.text: row for row, prompt in enumerate(samples.prompts)}
    plain = own["system: s\nuser: q1"]
    assert samples.content[plain] == "a1" and samples.fields[COMPLETION_MESSAGES][plain] == ""
    several = own["first"]
    assert samples.content[several] == "assistant: one\nuser: second\nassistant: two"
    turns = completion_of("", samples.fields[COMPLETION_MESSAGES][several])
    assert [(m.role, m.content) for m in turns] == [("assistant", "one"), ("user", "second"), ("assistant", "two")]
    opened = own["assistant: hello\nuser: opened"]  # a greeting answers nothing
    assert samples.content[opened] == "yes"
    assert COMPLETION_MESSAGES not in whole(load(tmp_path / "b.jsonl", rows[:10])).fields


def test_prompts_and_completions_of_messages_are_those_of_trl(
    tmp_path: Path, chatml: PreTrainedTokenizerFast
) -> None:
    history = [user("A"), answer("B")]
    rows: list[dict[str, Any]] = [
        {"prompt": [*history, user(f"C{i}")], "completion": [answer(f"D{i}")]} for i in range(30)
    ]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    assert {len(prompt.messages) for prompt in samples.prompts} == {3}  # the answer B is no part of the completion
    ours = set()
    for prompt, content in zip(samples.prompts, samples.content, strict=True):
        messages = [message.as_dict() for message in prompt.messages]
        before = chatml.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        full = chatml.apply_chat_template([*messages, answer(str(content))], tokenize=False)
        ours.add((before, full.removeprefix(before)))
    applied = [data_utils.maybe_apply_chat_template(row, chatml) for row in rows]
    assert ours == {(row["prompt"], row["completion"]) for row in applied}


def test_text_and_messages_may_stand_side_by_side(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"raw {i}", "completion": "x"} for i in range(10)]
    rows += [{"prompt": [user("chat")], "completion": "y"}, {"prompt": "text", "completion": [answer("z")]}]
    rows += [{"prompt": [user("again")], "completion": [user("again"), answer("w")]}]
    found = load(tmp_path / "a.jsonl", rows)
    samples = whole(found)
    own = {p.text: ([m.role for m in p.messages], c) for p, c in zip(samples.prompts, samples.content, strict=True)}
    assert own["raw 3"] == ([], "x")
    assert own["chat"] == (["user"], "y") and own["text"] == (["user"], "z") and own["again"] == (["user"], "w")
    assert "3 rows were read as conversations" in found.notes[0] and "10 rows are raw text" in found.notes[0]


# --- Alpaca ---------------------------------------------------------------------------------------------------


def test_instructions_become_a_turn_of_the_user_with_the_input_below(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": f"Add {i}", "input": "1 and 2" if i % 2 else "", "output": f"o{i}"} for i in range(10)
    ]
    rows += [{"instruction": "last", "input": None, "output": "o", "system": "be brief", "history": [["h", "i"]]}]
    found = load(tmp_path / "a.jsonl", rows)
    by_answer = {tuple(m["content"] for m in chat) for chat in conversations_of(whole(found)).values()}
    assert ("Add 4", "o4") in by_answer and ("Add 5\n1 and 2", "o5") in by_answer
    assert ("be brief", "h", "i", "last", "o") in by_answer
    assert "11 rows were read as conversations (columns: 'instruction', 'input', 'output', 'history'" in found.notes[0]


def test_columns_of_other_names_are_named_in_the_recipe(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "context": "c", "response": "r"} for i in range(10)]
    found = load(tmp_path / "a.jsonl", rows, instruction="instruction", input="context", output="response")
    assert "q3\nc" in conversations_of(whole(found))
    with pytest.raises(UserError, match="'funcs' is expected"):
        load(tmp_path / "a.jsonl", rows, instruction="instruction", output="response", history="funcs")
    talks = [{"talk": [user(f"q{i}"), answer("a")], "text": "rendered"} for i in range(10)]
    assert len(conversations_of(whole(load(tmp_path / "b.jsonl", talks, messages="talk")))) == 10
    for wrong in ({"messages": "talk", "text": "text"}, {"messages": "talk", "prompt": "p"}, {"instruction": "talk"}):
        with pytest.raises(UserError):
            load(tmp_path / "b.jsonl", talks, **wrong)


# --- tools ----------------------------------------------------------------------------------------------------

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def test_calls_and_results_of_tools_are_kept_in_both_spellings(tmp_path: Path) -> None:
    openai = [user("Rain?"), {"role": "assistant", "content": None, "tool_calls": [CALL]},
              {"role": "tool", "content": "no", "name": "weather"}, answer("No.")]
    sharegpt = [{"from": "human", "value": "Rain?"},
                {"from": "function_call", "value": json.dumps(CALL["function"])},
                {"from": "observation", "value": "no"}, {"from": "gpt", "value": "No."}]
    others = [{"messages": [user(f"q{i}"), answer("a")]} for i in range(10)]
    rows: list[dict[str, Any]] = [{"messages": openai, "tools": [TOOL]}, *others]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    assert conversations_of(samples)["Rain?"] == openai
    prompt = next(prompt for prompt in samples.prompts if prompt.text == "Rain?")
    assert json.loads(prompt.tools) == [TOOL]
    content = next(str(c) for p, c in zip(samples.prompts, samples.content, strict=True) if p.text == "Rain?")
    assert content.startswith('assistant: weather({"city": "Paris"})\ntool: no')
    turned = [
        {"conversations": [{"from": m["role"], "value": m["content"]} for m in row["messages"]]} for row in others
    ]
    rows = [{"conversations": sharegpt, "tools": json.dumps([TOOL])}, *turned]
    found = load(tmp_path / "b.jsonl", rows)
    samples = whole(found)
    got = conversations_of(samples)["Rain?"]
    assert got[1]["tool_calls"] == [CALL] and [m["role"] for m in got] == ["user", "assistant", "tool", "assistant"]
    assert "1 with tools" in found.notes[0]
    assert json.loads(next(p for p in samples.prompts if p.text == "Rain?").tools) == [TOOL]


def test_rows_that_differ_in_a_call_alone_are_both_kept(tmp_path: Path) -> None:
    def calling(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}

    rows = [{"messages": [user("q"), calling({"x": x})]} for x in (1, 2, 2)]
    rows += [{"messages": [user(f"q{i}"), answer("a")]} for i in range(10)]
    found = load(tmp_path / "a.jsonl", rows)
    assert len(whole(found)) == 12 and any("1 rows of the data repeat another exactly" in note for note in found.notes)


def test_parquet_and_the_hub_read_the_same_rows_without_the_keys_that_arrow_fills_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    other = {"type": "function", "function": {"name": "time", "arguments": {"zone": "UTC"}}}
    rows = [{"messages": [user(f"q{i}"), {"role": "assistant", "content": "", "tool_calls": [CALL if i % 2 else other]},
                          {"role": "tool", "content": "no", "name": "weather"}, answer("No.")], "tools": [TOOL]}
            for i in range(30)]
    lines = whole(load(tmp_path / "a.jsonl", rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = whole(load(tmp_path / "a.parquet", name="parquet"))
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    hub = whole(load(tmp_path / "saved", name="hub"))
    assert conversations_of(lines) == conversations_of(table) == conversations_of(hub)
    assert conversations_of(lines)["q1"] == rows[1]["messages"]
    tools = [{p.tools for p in samples.prompts} for samples in (lines, table, hub)]
    assert tools[0] == tools[1] == tools[2] and json.loads(tools[0].pop()) == [TOOL]


def test_content_in_parts_is_joined_and_images_are_refused(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    rows = [{"messages": [user(f"q{i}"), {"role": "assistant", "content": parts}]} for i in range(10)]
    assert set(whole(load(tmp_path / "a.jsonl", rows)).content) == {"one two"}
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    rows[3] = {"messages": [{"role": "user", "content": picture}, answer("a")]}
    with pytest.raises(UserError, match="a part of the type 'image_url': a language model reads text alone") as caught:
        load(tmp_path / "a.jsonl", rows)
    assert caught.value.where.endswith("line 4")


# --- rows that cannot be learned ------------------------------------------------------------------------------


def test_rows_without_an_answer_are_counted_with_their_reason(tmp_path: Path) -> None:
    rows = [{"messages": [user(f"q{i}"), answer("a")]} for i in range(10)]
    rows += [{"messages": [user("only")]}, {"messages": []}, {"messages": [answer("alone")]}]
    rows += [{"messages": [user("empty"), answer("  ")]}]
    found = load(tmp_path / "a.jsonl", rows)
    assert len(whole(found)) == 10
    assert any("3 of 14 rows have no answer of the assistant, left out" in n and "line 11" in n for n in found.notes)
    assert any("1 of 14 rows have no text, left out" in note and "line 14" in note for note in found.notes)
    with pytest.raises(UserError, match="no row can be learned: 1 have no answer"):
        load(tmp_path / "b.jsonl", rows[10:11])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": [{"role": "narrator", "content": "x"}]}, "a message of the role 'narrator'; known are system"),
        ({"messages": "hello"}, "'messages' must hold a list of {role, content}, here it holds 'hello'"),
        ({"messages": [{"text": "hello"}]}, "must hold a list of {role, content} or {from, value}"),
        ({"messages": [user("q"), answer("a")], "tools": "none"}, "'tools' must hold a list of tools"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages whose content is text, here it holds 3"),
        ({"conversations": [{"from": "function_call", "value": "f(3)"}]}, "calls of functions as JSON"),
        ({"instruction": "q", "output": 3}, "column 'output' must hold text, here it holds a int"),
        ({"prompt": "q", "completion": 3}, "'completion' must hold text, or a list of {role, content}"),
        ({"question": "q", "answer": "a"}, "no layout of text has these columns: question, answer; expected: messages"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path / "a.jsonl", [row])
    assert complaint in str(caught.value) and caught.value.where.endswith("a.jsonl, line 1")


# --- which layout, and text that a template wrote ------------------------------------------------------------


def test_the_layout_is_stated_with_counts_and_an_example(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": chat, "text": "rendered", "id": 7} for chat in in_both_ways(40)]
    note = load(tmp_path / "a.jsonl", rows).notes[0]
    assert note == (
        "40 rows were read as conversations (columns: 'messages'), 14 with a system message, 20 with several turns to "
        "learn; the first: 'system: be kind 0\\nuser: q0' -> 'a0'"
    )
    found = load(tmp_path / "b.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(10)])
    assert found.notes == (
        "10 rows were read as prompts and completions of raw text (columns: 'prompt', completion 'response'), no chat "
        "template is applied; the first: 'p0' -> 'r'",
    )


def rendered_rows(template: str) -> list[dict[str, str]]:
    forms = {
        "chatml": ("<|im_start|>user\nHi {}<|im_end|>\n<|im_start|>assistant\n", "Hello<|im_end|>"),
        "llama3": ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi {}<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\n", "Hello<|eot_id|>"),
        "llama2": ("<s>[INST] Hi {} [/INST]", " Hello </s>"),
        "zephyr": ("<|user|>\nHi {}</s>\n<|assistant|>\n", "Hello</s>"),
        "gemma": ("<bos><start_of_turn>user\nHi {}<end_of_turn>\n<start_of_turn>model\n", "Hello<end_of_turn>\n"),
    }
    prompt, completion = forms[template]
    return [{"prompt": prompt.format(i), "completion": completion} for i in range(10)]


@pytest.mark.parametrize("template", ["chatml", "llama3", "llama2", "zephyr", "gemma"])
def test_text_that_a_template_wrote_is_pointed_out_and_read_as_messages_on_request(
    tmp_path: Path, template: str
) -> None:
    rows = rendered_rows(template)
    found = load(tmp_path / "a.jsonl", rows)
    assert not whole(found).prompts[0].messages
    assert "10 of 10 rows look pre-rendered" in found.notes[1] and "'rendered: true'" in found.notes[1]
    assert "line 1" in found.notes[1]
    for name, given in (("b", rows), ("c", [{"text": row["prompt"] + row["completion"]} for row in rows])):
        found = load(tmp_path / f"{name}.jsonl", given, rendered=True)
        assert conversations_of(whole(found)) == {f"Hi {i}": [user(f"Hi {i}"), answer("Hello")] for i in range(10)}
        assert not any("pre-rendered" in note for note in found.notes)


def test_several_rendered_turns_are_read(tmp_path: Path) -> None:
    text = "<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nHi {} [/INST] Hello </s><s>[INST] More? [/INST] Yes </s>"
    found = load(tmp_path / "a.jsonl", [{"text": text.format(i)} for i in range(10)], rendered=True)
    chat = conversations_of(whole(found))["system: be kind\nuser: Hi 3"]
    assert [(m["role"], m["content"]) for m in chat] == [
        ("system", "be kind"), ("user", "Hi 3"), ("assistant", "Hello"), ("user", "More?"), ("assistant", "Yes"),
    ]


def test_prose_and_html_do_not_look_rendered(tmp_path: Path) -> None:
    texts = ["a <b> c", "<p>one</p>", "x <s>gone</s> y", "[1] and [INS]", "if a <| b", "4 < 5 |> 3"] * 2
    found = load(tmp_path / "a.jsonl", [{"text": f"{text} {i}"} for i, text in enumerate(texts)])
    assert not any("pre-rendered" in note for note in found.notes)


# --- the split ------------------------------------------------------------------------------------------------


def test_rows_of_one_prompt_are_on_one_side(tmp_path: Path) -> None:
    rows = [{"messages": [user(f"Q{i % 20}"), answer(f"a{i}")]} for i in range(100)]
    found = load(tmp_path / "a.jsonl", rows)
    sides = [{prompt.text for prompt in side.prompts} for side in (found.train, found.held_out)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 20 and len(whole(found)) == 100


TINY = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 128}


def test_prompts_alone_are_sampled_from_and_teach_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"q{i}"}], "answer": str(i)} for i in range(12)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = Jsonl(path=str(path), fields=["answer"], held_out=0.3).load()
    prompts = [*splits.train.prompts, *splits.held_out.prompts]
    assert sorted((p.messages[0].content, p.fields["answer"]) for p in prompts) == sorted(
        (f"q{i}", str(i)) for i in range(12)
    )
    assert splits.layout == "prompt" and "prompts alone" in splits.notes[0]
    model = components.make("model", {"name": "causal_lm", "config": TINY, "chat_template": "chatml"}, "test")
    model.build(splits.train, 0)
    assert float(model.encode(splits.train).columns["mask"].values.sum()) == 0.0
