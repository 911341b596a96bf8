"""Tests of preferences written as conversations, beside TRL's reading of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from trl import data_utils

from helpers.chat_rows import answer, loaded, user, whole
from upturn.errors import UserError
from upturn.types import COMPLETION_MESSAGES, Samples
from upturn.types.conversations import completion_of

pytestmark = pytest.mark.slow

Chat = list[dict[str, Any]]


load = partial(loaded, "preferences")


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def triples(samples: Samples) -> list[tuple[Chat, Chat, Chat]]:
    """(prompt, better, worse) of each pair, as messages."""
    turns = samples.fields.get(COMPLETION_MESSAGES, [""] * len(samples))
    sides: dict[int, dict[int, Chat]] = {}
    prompts: dict[int, Chat] = {}
    for row, prompt in enumerate(samples.prompts):
        group = int(samples.group[row])
        prompts[group] = [m.as_dict() for m in prompt.messages]
        body = completion_of(str(samples.content[row]), turns[row])
        sides.setdefault(group, {})[int(samples.fields["rank"][row])] = [m.as_dict() for m in body]
    return [(prompts[group], side[1], side[2]) for group, side in sides.items()]


def sorted_triples(rows: Sequence[tuple[Chat, Chat, Chat]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def explicit(count: int) -> list[dict[str, Any]]:
    """Prompts of one turn, of several, with a system message."""
    starts: list[Chat] = [[], [system("be kind")], [user("A"), answer("B")]]
    return [
        {"prompt": [*starts[i % 3], user(f"q{i}")], "chosen": [answer(f"good {i}")], "rejected": [answer("bad")]}
        for i in range(count)
    ]


def implicit(count: int) -> list[dict[str, Any]]:
    return [
        {side: [*row["prompt"], *row[side]] for side in ("chosen", "rejected")} for row in explicit(count)
    ]


# --- pairs, beside TRL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["explicit", "implicit", "text prompt and whole conversations"])
def test_pairs_are_what_trl_extracts(tmp_path: Path, layout: str) -> None:
    rows = explicit(40) if layout == "explicit" else implicit(40)
    if layout.startswith("text prompt"):  # as in UltraFeedback: the prompt as text beside both conversations
        rows = [{"prompt": row["chosen"][-2]["content"], **row} for row in rows]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    read = [data_utils.maybe_extract_prompt(copy.deepcopy(row)) for row in rows]
    assert sorted_triples(triples(samples)) == sorted_triples([(r["prompt"], r["chosen"], r["rejected"]) for r in read])
    assert COMPLETION_MESSAGES not in samples.fields  # one plain answer each


def test_labels_are_those_of_unpaired_pairs(tmp_path: Path) -> None:
    """KTO's layout made from pairs by TRL."""
    rows = data_utils.unpair_preference_dataset(Dataset.from_list(explicit(30))).to_list()
    samples = whole(load(tmp_path / "a.jsonl", rows))
    got = sorted(
        (json.dumps([m.as_dict() for m in p.messages]), str(content), int(rank) == 1)
        for p, content, rank in zip(samples.prompts, samples.content, samples.fields["rank"], strict=True)
    )
    expected = sorted((json.dumps(r["prompt"]), r["completion"][0]["content"], bool(r["label"])) for r in rows)
    assert got == expected


def test_parquet_reads_the_same_conversations(tmp_path: Path) -> None:
    rows = explicit(30)
    lines = load(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = load(tmp_path / "a.parquet")
    for one, other in ((lines.train, table.train), (lines.held_out, table.held_out)):
        np.testing.assert_array_equal(one.ids, other.ids)
        assert one.prompts == other.prompts


# --- hh-rlhf, rankings, HelpSteer, ShareGPT ---------------------------------------------------------------------


def test_transcripts_are_messages_and_their_shared_part_is_the_prompt(tmp_path: Path) -> None:
    rows = []
    for i in range(20):
        start = f"\n\nHuman: first {i}\n\nAssistant: Well.\nTwo lines.\n\nHuman: second"
        rows.append({"chosen": f"{start}\n\nAssistant: yes {i}", "rejected": f"{start}\n\nAssistant: no"})
    expected = [
        ([user(f"first {i}"), answer("Well.\nTwo lines."), user("second")], [answer(f"yes {i}")], [answer("no")])
        for i in range(20)
    ]
    assert sorted_triples(triples(whole(load(tmp_path / "a.jsonl", rows)))) == sorted_triples(expected)
    apart = [
        {"prompt": row["chosen"].rpartition(" yes")[0], "chosen": f" yes {i}", "rejected": " no"}
        for i, row in enumerate(rows)
    ]
    assert sorted_triples(triples(whole(load(tmp_path / "b.jsonl", apart)))) == sorted_triples(expected)


def test_transcripts_that_part_early_keep_the_turns_after(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: more\n\nAssistant: b",
        "rejected": "\n\nHuman: q\n\nAssistant: x",
    }
    others = [{key: text.replace("q", f"q{i}") for key, text in row.items()} for i in range(20)]
    samples = whole(load(tmp_path / "a.jsonl", others))
    found = {prompt[0]["content"]: (good, bad) for prompt, good, bad in triples(samples)}
    assert found["q3"] == ([answer("a"), user("more"), answer("b")], [answer("x")])


def test_rankings_and_helpsteer_hold_messages(tmp_path: Path) -> None:
    ranked = [{"prompt": [user(f"q{i}")], "completions": [[answer("a")], [answer("b")], "c"], "ranks": [2, 1, 3]}
              for i in range(20)]
    samples = whole(load(tmp_path / "a.jsonl", ranked))
    assert {p.messages[0].content for p in samples.prompts} == {f"q{i}" for i in range(20)}
    assert samples.content[:3].tolist() == ["a", "b", "c"] and samples.fields["rank"][:3].tolist() == [2, 1, 3]
    two = [{"context": [user("A"), answer("B"), user(f"q{i}")], "response1": "x", "response2": f"y{i}",
            "overall_preference": 2} for i in range(20)]
    found = load(tmp_path / "b.jsonl", two, columns={"prompt": "context"}, strongest=3)
    assert {len(p.messages) for p in whole(found).prompts} == {3}
    assert [(good, bad) for p, good, bad in triples(whole(found)) if p[2]["content"] == "q3"] == [
        ([answer("y3")], [answer("x")])
    ]
    steered = [{"prompt": [user(f"q{i}")], "response": [answer("a")], "helpfulness": i} for i in range(20)]
    samples = whole(load(tmp_path / "c.jsonl", steered, attributes=["helpfulness"]))
    assert set(samples.content) == {"a"} and all(p.messages for p in samples.prompts)


def test_a_lone_conversation_with_a_label_is_judged_by_its_last_answer(tmp_path: Path) -> None:
    rows = [{"completion": [user(f"q{i}"), answer("a"), user("more"), answer("b")], "label": True} for i in range(20)]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    assert set(samples.content) == {"b"} and {len(p.messages) for p in samples.prompts} == {3}


def test_pairs_of_sharegpt_hold_one_message_each(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": f"q{i}"}], "chosen": {"from": "gpt", "value": "good"},
             "rejected": {"from": "gpt", "value": "bad"}} for i in range(20)]
    found = triples(whole(load(tmp_path / "a.jsonl", rows)))
    assert ([user("q3")], [answer("good")], [answer("bad")]) in found and len(found) == 20


def test_tools_and_calls_are_kept(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
    rows = [{"prompt": [user(f"q{i}")], "chosen": [call], "rejected": [answer("no")], "tools": [{"name": "f"}]}
            for i in range(20)]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    assert ([user("q3")], [call], [answer("no")]) in triples(samples)
    assert {p.tools for p in samples.prompts} == {'[{"name": "f"}]'}


# --- prompts that are repeated, scores that contradict, what is stated ---------------------------------------------


def test_a_prompt_repeated_in_the_completions_is_taken_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"Hi {i}?", "chosen": [user(f"Hi {i}?"), answer("Hello")],
             "rejected": [user(f"Hi {i}?"), answer("No")]} for i in range(20)]
    samples = whole(load(tmp_path / "a.jsonl", rows))
    assert set(samples.content) == {"Hello", "No"} and {p.text for p in samples.prompts} == {r["prompt"] for r in rows}
    text = [{"prompt": f"Hi {i}?", "chosen": f"Hi {i}? Hello", "rejected": f"Hi {i}? No"} for i in range(20)]
    found = load(tmp_path / "b.jsonl", text)
    assert set(whole(found).content) == {" Hello", " No"}
    assert any("at the beginning of the completions of all 20 examples" in note for note in found.notes)
    text[3]["rejected"] = "Not at all"  # so it is no habit of the data
    found = load(tmp_path / "c.jsonl", text)
    assert "Hi 4? Hello" in whole(found).content and len(found.notes) == 1


@pytest.mark.parametrize("believe", ["order", "scores", "neither"])
def test_scores_that_contradict_the_order_are_counted_and_settled(tmp_path: Path, believe: str) -> None:
    rows = [{"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}", "chosen_score": 2.0, "rejected_score": 1.0}
            for i in range(30)]
    rows[4]["rejected_score"] = rows[9]["rejected_score"] = 9.0
    found = load(tmp_path / "a.jsonl", rows, believe=believe)
    note = next(note for note in found.notes if "contradict" in note)
    assert "the scores of 2 of 30 examples contradict their order (the first, " in note and "line 5: chosen 2" in note
    assert f"'believe: {believe}'" in note
    samples = whole(found)
    own = {str(content): row for row, content in enumerate(samples.content)}
    assert samples.fields["rank"][own["a3"]] == 1 and samples.fields["score"][own["a3"]] == 2
    if believe == "neither":
        assert "a4" not in own and len(samples) == 56
    elif believe == "scores":
        assert [samples.fields["rank"][own[name]] for name in ("a4", "b4", "b9")] == [2, 1, 1]
        assert samples.fields["score"][own["b4"]] == 9
    else:
        assert [samples.fields["rank"][own[name]] for name in ("a4", "b4")] == [1, 2]
        assert np.isnan(samples.fields["score"][[own["a4"], own["b4"], own["a9"]]]).all()


def test_what_was_read_is_stated(tmp_path: Path) -> None:
    found = load(tmp_path / "a.jsonl", explicit(30))
    assert found.notes == (
        "30 examples were read as pairs (chosen and rejected): conversations; the first: 'q0' -> 'good 0' | 'bad'",
    )
    rows = [{"prompt": f"[INST] q{i} [/INST]", "chosen": "a", "rejected": "b"} for i in range(20)]
    found = load(tmp_path / "b.jsonl", rows)
    assert "raw text, no chat template is applied" in found.notes[0]
    assert "20 of 20 rows look pre-rendered" in found.notes[1]
    found = load(tmp_path / "b.jsonl", rendered=True)
    assert ([user("q3")], [answer("a")], [answer("b")]) in triples(whole(found)) and len(found.notes) == 1
    with pytest.raises(UserError, match="input should be 'order', 'scores' or 'neither'"):
        load(tmp_path / "b.jsonl", believe="both")
    with pytest.raises(UserError, match="a message of the role 'narrator'") as caught:
        load(tmp_path / "c.jsonl", [{"prompt": [{"role": "narrator", "content": "x"}], "chosen": "a", "rejected": "b"}])
    assert caught.value.where.endswith("line 1")


def test_rows_of_one_prompt_and_whole_groups_are_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": [user(f"Q{i % 20}")], "chosen": [answer(f"a{i}")], "rejected": [answer(f"b{i}")]}
            for i in range(100)]
    found = load(tmp_path / "a.jsonl", rows)
    sides = [{prompt.text for prompt in side.prompts} for side in (found.train, found.held_out)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 20
    for side in (found.train, found.held_out):
        assert (np.bincount(side.group)[np.unique(side.group)] == 2).all()
