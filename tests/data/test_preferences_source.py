"""Tests of the preference source, its groups, and the batches built from them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from upturn.config import components
from upturn.data.groups import by_reward, encode_groups, from_fields, pairs
from upturn.errors import UserError
from upturn.types import Batch, Groups, Prompt, Ragged, Samples, Splits, concatenate, real_samples

NAN = float("nan")


def load(path: Path, rows: Sequence[dict[str, Any]] | None = None, **fields: Any) -> Splits:
    if rows is not None:
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found: Splits = components.make("source", {"name": "preferences", "path": str(path), **fields}).load()
    return found


def whole(splits: Splits) -> Samples:
    return concatenate([splits.train, splits.held_out])


def groups_of(samples: Samples) -> list[list[tuple[str, int]]]:
    """Each group as (content, rank), in order of candidate."""
    out = []
    for number in dict.fromkeys(samples.group.tolist()):
        rows = np.flatnonzero(samples.group == number)
        rows = rows[np.argsort(samples.candidate[rows])]
        out.append([(str(samples.content[i]), int(samples.fields["rank"][i])) for i in rows])
    return out


def many(count: int = 60, **extra: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}", **extra} for i in range(count)]


# --- layouts ------------------------------------------------------------------------------------------------------


def test_pairs_keep_their_group_rank_strength_and_scores(tmp_path: Path) -> None:
    rows = many()
    rows[3] |= {"margin": 2.0, "tie": True, "score_chosen": 7, "score_rejected": 7.0}
    found = load(tmp_path / "a.jsonl", rows, strongest=4.0)
    samples = whole(found)
    assert len(samples) == 120 and samples.kind == "text" and len(found.notes) == 1
    assert len(set(samples.ids)) == 120 and set(samples.origin) == {"real"}
    expected = {(f"good {i}", f"bad {i}") for i in range(60)}
    got = {tuple(content for content, _ in group) for group in groups_of(samples)}
    assert got == expected
    own = {str(content): row for row, content in enumerate(samples.content)}
    assert [samples.fields["rank"][own[f"{side} 3"]] for side in ("good", "bad")] == [1, 1]
    assert [samples.fields["rank"][own[f"{side} 4"]] for side in ("good", "bad")] == [1, 2]
    assert samples.fields["strength"][own["bad 3"]] == 0.5 and samples.fields["strength"][own["bad 4"]] == 0.25
    assert samples.fields["score"][own["good 3"]] == 7 and np.isnan(samples.fields["score"][own["good 4"]])


def test_rankings_and_scores(tmp_path: Path) -> None:
    base = [{"prompt": f"q{i}", "completions": ["a", "b", "c"], "ranks": [2, 1, 0]} for i in range(30)]
    samples = whole(load(tmp_path / "a.jsonl", base))
    assert all(group == [("a", 2), ("b", 1), ("c", 0)] for group in groups_of(samples))
    asked = {"completions": ["a", "b", "c", "d"], "scores": [1, 3.5, None, 3.5]}
    scored = [{"prompt": f"q{i}", **asked} for i in range(30)]
    samples = whole(load(tmp_path / "b.jsonl", scored))
    assert all(group == [("a", 2), ("b", 1), ("c", 0), ("d", 1)] for group in groups_of(samples))
    np.testing.assert_array_equal(samples.fields["score"][:4], [1, 3.5, NAN, 3.5])


def test_the_sign_of_a_strength_is_the_better_of_two(tmp_path: Path) -> None:
    """HelpSteer2: from -3, response_1 much better, to 3, response_2 much better. HelpSteer3 has other names."""
    said = {-3: ([1, 2], 1.0), -1: ([1, 2], 1 / 3), 0: ([1, 1], 1 / 3), 2: ([2, 1], 2 / 3), None: ([0, 0], 1 / 3)}
    expected = list(said.items()) * 6
    two = [{"prompt": f"q{i}", "response_1": f"a{i}", "response_2": f"b{i}", "preference_strength": by}
           for i, (by, _) in enumerate(expected)]
    three = [{"context": [{"role": "user", "content": row["prompt"]}], "response1": row["response_1"],
              "response2": row["response_2"], "overall_preference": row["preference_strength"]} for row in two]
    for name, rows, columns in (("2", two, {}), ("3", three, {"prompt": "context"})):
        samples = whole(load(tmp_path / f"{name}.jsonl", rows, strongest=3.0, columns=columns))
        own = {str(content): row for row, content in enumerate(samples.content)}
        for i, (by, (ranks, strength)) in enumerate(expected):
            if by is None:
                assert f"a{i}" not in own or samples.fields["rank"][own[f"a{i}"]] == 0
                continue
            rows_of = [own[f"a{i}"], own[f"b{i}"]]
            assert samples.fields["rank"][rows_of].tolist() == ranks, by
            np.testing.assert_allclose(samples.fields["strength"][rows_of], strength)
            assert {samples.prompts[row].text for row in rows_of} == {f"q{i}"}
            assert samples.group[rows_of[0]] == samples.group[rows_of[1]]


def test_unpaired_labels_and_attributes(tmp_path: Path) -> None:
    labelled = [{"prompt": f"q{i}", "completion": f"c{i}", "label": i % 2 == 0} for i in range(30)]
    samples = whole(load(tmp_path / "a.jsonl", labelled))
    good = np.array([int(str(content)[1:]) % 2 == 0 for content in samples.content])
    np.testing.assert_array_equal(samples.fields["rank"], np.where(good, 1, 2))
    steered = [{"prompt": f"q{i}", "response": f"c{i}", "helpfulness": i % 5, "verbosity": None} for i in range(30)]
    samples = whole(load(tmp_path / "b.jsonl", steered, attributes=["helpfulness", "verbosity"]))
    assert [samples.fields["helpfulness"][r] for r in range(30)] == [int(str(c)[1:]) % 5 for c in samples.content]
    assert np.isnan(samples.fields["verbosity"]).all() and (samples.fields["rank"] == 0).all()


def test_columns_can_be_renamed_and_parquet_reads_equally(tmp_path: Path) -> None:
    rows = [{"question": r["prompt"], "better": r["chosen"], "worse": r["rejected"]} for r in many()]
    names = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    lines = load(tmp_path / "a.jsonl", rows, columns=names)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = load(tmp_path / "a.parquet", columns=names)
    for a, b in ((lines.train, table.train), (lines.held_out, table.held_out)):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.content, b.content)


def test_pairs_of_images(tmp_path: Path) -> None:
    def png(level: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", (8, 8), level).save(buffer, "png")
        return buffer.getvalue()

    rows = [{"chosen": {"bytes": png(100 + i), "path": None}, "rejected": png(i), "label": i % 3} for i in range(40)]
    rows = [{**row, "rejected": {"bytes": row["rejected"], "path": None}} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    samples = whole(load(tmp_path / "a.parquet", content="image", size=8, channels=1))
    assert samples.kind == "image" and samples.content.shape == (80, 8, 8, 1)
    ink = samples.content.mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(samples.fields["rank"] == 1, ink >= 100)
    np.testing.assert_array_equal(samples.labels, ink.astype(int) % 100 % 3)


# --- the split ----------------------------------------------------------------------------------------------------


def test_held_out_by_prompt_with_groups_whole(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q {i % 50}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(200)]
    found = load(tmp_path / "a.jsonl", rows, held_out=0.3)
    sides = [{prompt.text for prompt in side.prompts} for side in (found.train, found.held_out)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 50
    for side in (found.train, found.held_out):
        assert (np.bincount(side.group)[np.unique(side.group)] == 2).all()


def test_without_prompts_rows_that_share_a_completion_are_in_one_part(tmp_path: Path) -> None:
    rows = [{"chosen": f"a{i}-{k}", "rejected": f"A{i}-{k + 1}"} for i in range(40) for k in range(3)]
    found = load(tmp_path / "a.jsonl", rows, held_out=0.4)
    stems = [{str(text).lower().split("-")[0] for text in side.content} for side in (found.train, found.held_out)]
    assert not stems[0] & stems[1] and len(stems[0] | stems[1]) == 40


def test_repeated_votes_are_kept_with_distinct_ids(tmp_path: Path) -> None:
    rows = many(20) * 3
    found = load(tmp_path / "a.jsonl", rows, held_out=0.3)
    samples = whole(found)
    assert len(samples) == 120 and len(set(samples.ids)) == 120
    turned = whole(load(tmp_path / "b.jsonl", rows[::-1], held_out=0.3))
    assert set(turned.ids) != set(samples.ids)  # another source
    (tmp_path / "c").mkdir()
    again = whole(load(tmp_path / "c" / "a.jsonl", rows[::-1], held_out=0.3))
    assert set(again.ids) == set(samples.ids)  # whatever the order of the file


def test_a_separate_test_file(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(json.dumps(r) for r in [*many(10), {"prompt": "new", "chosen": "x", "rejected": "y"}]))
    found = load(tmp_path / "a.jsonl", many(), test=str(test))
    assert groups_of(found.held_out) == [[("x", 1), ("y", 2)]]
    assert len(found.train) == 120 and "10 of 11 test examples have a prompt that is in train" in found.notes[-1]


def test_pain_18_rows_without_a_preference_are_counted_and_ties_are_kept(tmp_path: Path) -> None:
    rows = [*many(40), {"prompt": "same", "chosen": "x", "rejected": "x"}]
    rows += [{"prompt": "e", "chosen": " ", "rejected": "y"}]
    rows += [{"prompt": "t", "chosen": "x", "rejected": "y", "tie": True}]
    found = load(tmp_path / "a.jsonl", rows)
    assert any("1 of 43 examples compare equal completions" in n and "line 41" in n for n in found.notes)
    assert any("1 of 43 examples have an empty completion" in n and "line 42" in n for n in found.notes)
    assert [("x", 1), ("y", 1)] in groups_of(whole(found))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "x", "answer": "y"}, "no layout of preferences has these columns: question, answer; expected"),
        ({"prompt": "x", "chosen": "y", "rejected": 3}, "'rejected' must hold text, or a list of .* holds 3"),
        ({"response_1": "y", "response_2": "z", "preference_strength": "2"}, "'preference_strength' must hold"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "margin": -1}, "'strength' must hold a number of at least 0"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "tie": "no"}, "'tie' must hold true or false"),
        ({"prompt": "x", "completions": ["a", "b"], "ranks": [1]}, "'ranks' must hold a list of 2"),
        ({"prompt": "x", "completions": ["a", "b"], "ranks": [1, 1.5]}, "'ranks' must hold whole numbers"),
        ({"prompt": "x", "completion": "a", "label": 3}, "'label' must hold true or 1"),
        ({"prompt": [{"text": "a"}], "chosen": "y", "rejected": "z"}, "'prompt' must hold text, or a list of"),
    ],
)  # fmt: skip
def test_pain_15_a_wrong_layout_is_an_error_with_line_found_and_expected(
    tmp_path: Path, row: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load(tmp_path / "a.jsonl", [row])
    assert caught.value.where.endswith("a.jsonl, line 1")


def test_rows_of_another_layout_and_wrong_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="column 'rejected' is expected; found: prompt, chosen") as caught:
        load(tmp_path / "a.jsonl", [*many(3), {"prompt": "x", "chosen": "y"}])
    assert caught.value.where.endswith("line 4")
    with pytest.raises(UserError, match="columns has no 'better'"):
        load(tmp_path / "a.jsonl", many(3), columns={"better": "chosen"})
    with pytest.raises(UserError, match="cut short or damaged"):
        (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
        load(tmp_path / "b.parquet")


# --- groups -------------------------------------------------------------------------------------------------------


def ranked_samples(ranks: Sequence[Sequence[int]], **fields: Any) -> Samples:
    """Groups of these ranks, their rows shuffled; content "g-k"."""
    flat = [(g, k, rank) for g, row in enumerate(ranks) for k, rank in enumerate(row)]
    order = np.random.default_rng(0).permutation(len(flat))
    flat = [flat[i] for i in order]
    samples = real_samples("text", [f"{g}-{k}" for g, k, _ in flat], [Prompt(f"p{g}") for g, _, _ in flat], "said")
    columns = {"rank": np.array([rank for _, _, rank in flat])}
    columns |= {name: np.array([values[g] for g, _, _ in flat]) for name, values in fields.items()}
    changed = {"group": np.array([10 * g for g, _, _ in flat]), "candidate": np.array([k for _, k, _ in flat])}
    return Samples(**{**samples.__dict__, **changed, "fields": columns})


def ranks_by_name(groups: Groups) -> dict[str, list[int]]:
    """"g-k g-k" -> ranks."""
    names = [" ".join(str(groups.samples.content[r]) for r in row if r >= 0) for row in groups.rows]
    return {name: row.tolist() for name, row in zip(names, groups.ranks, strict=True)}


def test_groups_from_fields() -> None:
    samples = ranked_samples([[1, 2, 0], [2, 1], [1, 1], [0, 0], [3, 1, 2]], strength=[0.5, NAN, 1, 1, 0.25])
    groups, notes = from_fields(samples)
    assert ranks_by_name(groups) == {
        "0-0 0-1 0-2": [1, 2, 0], "1-0 1-1": [2, 1, 0], "2-0 2-1": [1, 1, 0], "4-0 4-1 4-2": [3, 1, 2],
    }
    by_name = {str(samples.content[row[0]]): s for row, s in zip(groups.rows, groups.strength, strict=True)}
    assert by_name == {"0-0": 0.5, "1-0": 1.0, "2-0": 1.0, "4-0": 0.25}
    assert np.isnan(groups.rewards).all()
    assert notes[0].startswith("1 of 5 groups have neither a rank nor a score")
    assert notes[1].startswith("1 of 4 groups are ties")
    with pytest.raises(UserError, match="a field 'rank' or 'score' is expected; found: quality"):
        from_fields(Samples(**{**samples.__dict__, "fields": {"quality": samples.fields["rank"]}}))


def test_pairs_are_best_against_worst() -> None:
    groups = from_fields(ranked_samples([[2, 3, 1, 3], [1, 0, 0], [1, 1, 2], [2, 2], [0, 2, 1]]))[0]
    assert ranks_by_name(pairs(groups)) == {
        "0-2 0-3": [1, 3], "1-0 1-1": [1, 0], "2-0 2-2": [1, 2], "3-0 3-1": [2, 2], "4-2 4-1": [1, 2],
    }
    with pytest.raises(UserError, match="no group has two candidates"):
        pairs(from_fields(ranked_samples([[1], [2]]))[0])


def test_groups_by_reward_agree_with_a_plain_loop() -> None:
    draw = np.random.default_rng(1)
    samples = ranked_samples([[0] * k for k in draw.integers(1, 6, 40)])
    rewards = draw.integers(0, 4, len(samples)).astype(float)
    rewards[draw.random(len(samples)) < 0.2] = NAN
    groups = by_reward(samples, rewards)
    assert len(groups) == 40
    for row, ranks, own in zip(groups.rows, groups.ranks, groups.rewards, strict=True):
        there = [int(r) for r in row if r >= 0]
        assert len({samples.group[r] for r in there}) == 1
        assert (samples.group == samples.group[there[0]]).sum() == len(there)
        values = sorted({rewards[r] for r in there if rewards[r] == rewards[r]}, reverse=True)
        expected = [values.index(rewards[r]) + 1 if rewards[r] == rewards[r] else 0 for r in there]
        assert ranks.tolist() == expected + [0] * (len(row) - len(there))
        np.testing.assert_array_equal(own[: len(there)], rewards[there])


def test_pairs_by_reward_hold_the_best_and_the_worst() -> None:
    draw = np.random.default_rng(2)
    samples = ranked_samples([[0] * 4] * 50)
    rewards = draw.integers(0, 5, len(samples)).astype(float)
    ends = [(int(group), rewards[samples.group == group]) for group in np.unique(samples.group)]
    silent = sum(values.max() == values.min() for _, values in ends)
    found = by_reward(samples, rewards, 2)
    spread = found.ranks[:, 0] < found.ranks[:, 1]
    assert int((~spread).sum()) == silent
    best = {(group, values.max(), values.min()) for group, values in ends if values.max() > values.min()}
    assert {(int(samples.group[a]), rewards[a], rewards[b]) for a, b in found.rows[spread]} == best


class Letters:
    """A model that encodes a text as its bytes, and counts what it was requested."""

    kind, likelihood, id = "text", "reward", ""
    asked = 0

    def encode(self, samples: Samples) -> Batch:
        self.asked += len(samples)
        rows = [torch.tensor(list(str(text).encode())) for text in samples.content]
        offsets = torch.tensor([0, *np.cumsum([len(row) for row in rows])])
        size = torch.tensor([len(row) for row in rows])
        return Batch({"tokens": Ragged(torch.cat(rows), offsets), "size": size})


def texts(batch: Batch) -> list[list[str]]:
    padded = batch.take(torch.arange(len(batch)))["tokens"]
    flat = [bytes(row[row > 0].tolist()).decode() for row in padded]
    return [flat[i : i + batch.candidates] for i in range(0, len(flat), batch.candidates)]


def test_encoded_groups_pad_by_repetition_with_a_mask() -> None:
    groups = from_fields(ranked_samples([[1, 2, 3], [2, 1]], strength=[0.5, 1.0]))[0]
    batch = encode_groups(Letters(), groups, None, np.array([2.0, 3.0]))  # type: ignore[arg-type]
    assert batch.candidates == 3 and len(batch) == 2
    order = [row[0] for row in texts(batch)]
    assert texts(batch) == [["0-0", "0-1", "0-2"] if o == "0-0" else ["1-0", "1-1", "1-0"] for o in order]
    small = order.index("1-0")
    assert batch.given["present"][small].tolist() == [True, True, False]
    assert batch.given["ranks"][small].tolist() == [2, 1, 0] and batch.given["ranks"].dtype == torch.int64
    assert batch.given["rewards"].isnan().all() and batch.given["rewards"].dtype == torch.float32
    assert batch.given["strength"].tolist() == [1.0, 0.5] if small == 0 else [0.5, 1.0]
    assert batch.given["weights"].tolist() == [2.0, 3.0]


def test_encoded_pairs_and_labels() -> None:
    groups = from_fields(ranked_samples([[3, 1, 2], [1, 2], [1]]))[0]
    weights = groups.rows[:, 0].astype(float)
    batch = encode_groups(Letters(), groups, 2, weights)  # type: ignore[arg-type]
    assert sorted(texts(batch)) == [["0-1", "0-0"], ["1-0", "1-1"]]
    assert batch.given["present"].all() and len(batch.given["weights"]) == 2
    single = encode_groups(Letters(), from_fields(ranked_samples([[1], [2], [1]]))[0], None)  # type: ignore[arg-type]
    assert single.candidates == 1 and single.given["ranks"].shape == (3, 1)
    with pytest.raises(ValueError, match="pairs"):
        encode_groups(Letters(), groups, 3)  # type: ignore[arg-type]


def test_a_row_in_many_groups_is_encoded_once() -> None:
    samples = real_samples("text", ["long text", "b", "cc"], [Prompt("p")] * 3, "votes")
    rows = np.tile([[0, 1, 2], [0, 2, -1]], (100, 1))
    groups = Groups(samples, rows, np.where(rows == 0, 1, 0), np.full(rows.shape, NAN), np.ones(200))
    model = Letters()
    batch = encode_groups(model, groups, None)  # type: ignore[arg-type]
    assert model.asked == 3
    assert texts(batch) == [["long text", "b", "cc"], ["long text", "cc", "long text"]] * 100
    assert batch["size"].tolist() == [9, 1, 2, 9, 2, 9] * 100


def test_votes_of_simulated_annotators_become_batches() -> None:
    judge = components.make("scorer", {"name": "simulated_people", "taste": "length", "noise": 0.0, "people": 2})
    samples = real_samples("text", ["a", "bbb", "cc", "x", "yy"], [Prompt("p")] * 3 + [Prompt("q")] * 2, "s")
    changed = {"group": np.array([0, 0, 0, 1, 1]), "candidate": np.array([0, 1, 2, 0, 1])}
    samples = Samples(**{**samples.__dict__, **changed})
    batch = encode_groups(Letters(), judge.votes(samples, SimpleNamespace()), None)  # type: ignore[arg-type]
    assert batch.given["ranks"].tolist() == [[0, 1, 0]] * 2 + [[0, 1, 0]] * 2
