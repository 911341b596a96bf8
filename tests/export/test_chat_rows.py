"""Exported preferences of conversations are messages, which the source of preferences and TRL read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from upturn.data.sources.preferences import Preferences
from upturn.export.preference_pairs import _pair
from upturn.types import Message, Prompt, concatenate, real_samples

TURNS = (Message("user", "q"), Message("assistant", "a"), Message("user", "r"))


def test_a_pair_of_a_conversation_is_read_back_as_it_was(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{i}", messages=(*TURNS, Message("user", f"n{i}"))) for i in range(8)]
    lines = []
    for prompt in prompts:
        samples = real_samples("text", ["good", "bad"], [prompt, prompt], "s")
        lines.append(json.dumps(_pair(samples, 0, 1, np.array([1.0, 0.0]))))
    path = tmp_path / "preferences.jsonl"
    path.write_text("\n".join(lines))
    first = json.loads(lines[0])
    assert first["prompt"][-1] == {"role": "user", "content": "n0"}
    assert first["chosen"] == [{"role": "assistant", "content": "good"}]
    splits = Preferences(path=str(path), held_out=0.4).load()
    whole = concatenate([splits.train, splits.held_out])
    assert {prompt.messages for prompt in whole.prompts} == {prompt.messages for prompt in prompts}
    assert set(zip(whole.content, whole.fields["rank"].tolist(), strict=True)) == {("good", 1), ("bad", 2)}


@pytest.mark.slow
def test_trl_takes_it_for_a_conversation() -> None:
    from trl.data_utils import is_conversational

    samples = real_samples("text", ["good", "bad"], [Prompt("p", messages=TURNS)] * 2, "s")
    assert is_conversational(_pair(samples, 0, 1, np.array([1.0, 0.0])))


def test_raw_text_stays_text() -> None:
    samples = real_samples("text", ["good", "bad"], [Prompt("p")] * 2, "s")
    row = _pair(samples, 0, 1, np.array([1.0, 0.0]))
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("p", "good", "bad")
