"""Tests of exported and imported votes and preferences: columns, counted omissions, formats of other tools."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.simulated_voters import votes_of as made_votes
from helpers.voting_server_cases import image_samples, sampled_run, text_samples
from upturn.annotation.statistics.aggregation import by_majority
from upturn.data.sources.preferences import Preferences
from upturn.data.voted import votes_of_groups
from upturn.errors import UserError
from upturn.export import run_export as exports
from upturn.export import vote_files
from upturn.export.preferences_voted import votes_so_far, write_voted
from upturn.export.vote_files import read_votes, write_votes
from upturn.store.run import Run
from upturn.types import Samples, Votes, concatenate

pytestmark = pytest.mark.slow


def same(first: Votes, second: Votes) -> None:
    for item in fields(Votes):
        for one, other in zip(getattr(first, item.name), getattr(second, item.name), strict=True):
            if isinstance(one, tuple):
                assert len(one) == len(other)
                np.testing.assert_array_equal(np.array(one), np.array(other))
            else:
                np.testing.assert_equal(one, other)


def voted(samples: Samples) -> Votes:
    """On five prompts: picked, tied, all bad, corrected, and candidates of another run."""
    ids = samples.ids.reshape(5, 4)
    rows: list[dict[str, Any]] = []
    for person in ("p1", "p2", "p3"):
        rows += [
            {"person": person, "task": "t0", "shown": tuple(ids[0]), "ranks": (0, 1, 0, 0)},
            {"person": person, "task": "t1", "shown": tuple(ids[1]), "ranks": (0,) * 4, "action": "tie"},
            {"person": person, "task": "t2", "shown": tuple(ids[2]), "ranks": (0,) * 4, "action": "bad"},
            {"person": person, "task": "t4", "shown": ("x", "y"), "ranks": (1, 0)},
        ]
    rows.append({"person": "p1", "task": "t3", "shown": (ids[3][0],), "ranks": (1,), "mode": "edit", "action": "edit",
                 "text": "A better sentence."})
    rows.append({"person": "p2", "task": "t0", "shown": tuple(ids[0]), "action": "skip", "moment": 9.0})
    return made_votes(rows)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return sampled_run(tmp_path / "run", text_samples(5))


def read(path: Path) -> Samples:
    """The source's data; it needs enough prompts to hold some out, so the file has some more."""
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    more = [json.dumps(row | {"prompt": f"further {i}"}) for i in range(30)]
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(more), encoding="utf-8")
    found = Preferences(path=str(path)).load()
    whole = concatenate([found.train, found.held_out])
    return whole.take(np.array(["further" not in prompt.text for prompt in whole.prompts]))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_preferences_come_from_votes_and_the_rest_is_counted(run: Run, tmp_path: Path) -> None:
    samples = text_samples(5)
    (tmp_path / "out").mkdir()
    done = write_voted(run, voted(samples), tmp_path / "out")
    pairs = lines(tmp_path / "out" / "preferences.jsonl")
    assert [row["how"] for row in pairs] == ["voted"] * 3 + ["corrected"]
    assert {row["chosen"] for row in pairs[:3]} == {samples.content[1]}
    assert {row["rejected"] for row in pairs[:3]} == set(samples.content[[0, 2, 3]])
    assert (pairs[3]["chosen"], pairs[3]["rejected"]) == ("A better sentence.", samples.content[12])
    assert {row["prompt"] for row in pairs[:3]} == {samples.prompts[0].text}
    labelled, ranked = lines(tmp_path / "out" / "completions.jsonl"), lines(tmp_path / "out" / "ranked.jsonl")
    assert len(labelled) == 8 and [row["id"] for row in labelled if row["label"]] == [samples.ids[1]]
    said = [dict(zip(row["ids"], row["ranks"], strict=True)) for row in ranked]
    assert {name: 1 if name == samples.ids[1] else 0 for name in samples.ids[:4]} in said
    assert dict.fromkeys(samples.ids[4:8], 1) in said
    assert done.counts == {"pairs": 4, "completions": 8, "ranked groups": 2}
    assert done.left_out == {
        "votes, skipped": 1, "groups whose candidates are none of this run's": 1,
        "groups that are all bad, from pairs and ranks: in completions alone": 1,
        "groups that tie, from pairs and completions: in ranks alone": 1,
    }
    assert "groups that tie" in (tmp_path / "out" / "README.md").read_text()


def test_exported_votes_open_elsewhere_and_train_here(run: Run, tmp_path: Path) -> None:
    """Hugging Face reads each file; the source 'preferences' too, and its groups are the votes' outcomes again."""
    from datasets import load_dataset

    out = tmp_path / "out"
    out.mkdir()
    write_voted(run, voted(text_samples(5)), out)
    file = str(out / "preferences.jsonl")
    pairs = load_dataset("json", data_files=file, cache_dir=str(tmp_path / "c"), split="train")
    assert {"prompt", "chosen", "rejected"} <= set(pairs.column_names) and len(pairs) == 4
    ranked = read(out / "ranked.jsonl")
    votes, notes = votes_of_groups(ranked, "a file")
    assert sorted(zip(votes.action, votes.mode, strict=True)) == [("said", "pick"), ("tie", "rank")]
    found = by_majority(votes)
    assert sorted(found.kind) == ["tie", "winner"] and any("ties" in note for note in notes)
    best = ranked.content[list(ranked.ids).index(next(name for name in found.winner if name))]
    assert best == text_samples(5).content[1]
    good = read(out / "completions.jsonl")
    alone, notes = votes_of_groups(good, "a file")
    assert len(alone) == 0 and "one candidate" in notes[-1]


def test_votes_survive_export_and_import(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = voted(text_samples(5))
    votes.scores[0] = (1.5, np.nan, 2.0, 3.0)
    votes.strength[1] = 2.0
    monkeypatch.setattr(vote_files, "votes_so_far", lambda _: votes)
    done = exports.export(run, "votes", tmp_path / "out")
    assert done.counts["votes"] == 14 and done.counts["people"] == 3
    for name in ("votes.parquet", "votes.jsonl"):
        same(read_votes(tmp_path / "out" / name), votes)
    row = lines(tmp_path / "out" / "votes.jsonl")[0]
    assert row["completions"] == text_samples(5).content[:4].tolist() and row["scores"][1] is None
    from datasets import load_dataset

    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "c"), split="train")
    assert len(loaded) == 14 and loaded[0]["ranks"] == [0, 1, 0, 0]


def test_argilla_and_label_studio_get_what_was_put_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vote_files, "votes_so_far", lambda _: voted(text_samples(5)))
    (tmp_path / "out").mkdir()
    done = write_votes(run, tmp_path / "out")
    records = lines(tmp_path / "out" / "argilla.jsonl")
    assert [row["best.response"] for row in records[:3]] == ["2", "tie", "bad"] and len(records) == 9
    assert records[0]["candidate_2"] == text_samples(5).content[1]
    tasks = json.loads((tmp_path / "out" / "label_studio.json").read_text())
    assert tasks[0]["annotations"][0]["result"][0]["value"] == {"choices": ["2"]}
    from xml.etree import ElementTree

    view = ElementTree.parse(tmp_path / "out" / "label_studio.xml").getroot()
    names = {node.get("name") for node in view}
    result = tasks[0]["annotations"][0]["result"][0]
    assert {result["from_name"], result["to_name"]} <= names
    assert {node.get("value", "").removeprefix("$") for node in view.iter("Text")} == set(tasks[0]["data"])
    choices = {node.get("value") for node in view.iter("Choice")}
    assert {row["best.response"] for row in records} <= choices
    assert done.left_out == {"votes that choose nothing, from Argilla and Label Studio": 2,
                             "votes on what is no text, from Argilla and Label Studio": 3}


def test_images_are_pairs_in_parquet(tmp_path: Path) -> None:
    from datasets import load_dataset

    samples = image_samples(5)
    run = sampled_run(tmp_path / "run", samples)
    (tmp_path / "out").mkdir()
    votes = voted(samples)
    write_voted(run, votes.take(votes.mode != "edit"), tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "c"), split="train")
    assert len(rows) == 3 and (np.asarray(rows[0]["chosen"]) == samples.content[1, :, :, 0]).all()


def test_a_run_without_votes_is_reported(run: Run, tmp_path: Path) -> None:
    assert votes_so_far(run) is None
    with pytest.raises(UserError, match="no votes on this run"):
        exports.export(run, "votes", tmp_path / "out")


def test_votes_are_read_from_the_runs_database(run: Run, tmp_path: Path) -> None:
    from upturn.annotation.db.ballots import open_box
    from upturn.annotation.db.validation import Answer, Task

    ids = tuple(text_samples(5).ids[:4].tolist())
    with open_box(run) as box:
        person, _ = box.add_person("Ann")
        box.open_poll("rounds/001", "pick", [Task({"text": "?"}, ids, ("rounds/001/samples.parquet",) * 4)])
        showing = box.assign(person.id).showing
        assert showing is not None
        box.record(Answer("a1", person.id, showing.id, "said", tuple(int(name == ids[2]) for name in showing.shown)))
    done = exports.export(run, "preferences", tmp_path / "out")
    assert done.counts["pairs"] == 3
    assert {row["chosen_id"] for row in lines(tmp_path / "out" / "preferences.jsonl")} == {ids[2]}


def test_a_file_without_votes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"ids": "1"}\n')
    with pytest.raises(UserError, match="a vote has no 'person'"):
        read_votes(tmp_path / "v.jsonl")
    (tmp_path / "v.jsonl").write_text("no\n")
    with pytest.raises(UserError, match="not valid JSON"):
        read_votes(tmp_path / "v.jsonl")
