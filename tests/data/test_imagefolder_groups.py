"""Tests that a held-out split by group puts all variants of a name on one side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn.config import components
from upturn.data.sources._variants import group_names
from upturn.errors import UserError
from upturn.types import Splits

DATA = Path(__file__).parents[3] / "shared" / "data"
EMOJI = DATA / "emoji"
needs_data = pytest.mark.skipif(not EMOJI.is_dir(), reason="shared/data/emoji is not here")
KNOWN = {"category": ["", "regional", "modifier"]}


def load(**fields: Any) -> Splits:
    return components.make("source", {"name": "imagefolder", **fields}).load()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def emoji() -> Splits:
    if not EMOJI.is_dir():
        pytest.skip("shared/data/emoji is not here")
    return load(path=str(EMOJI), size=16, label="category", leave_out=KNOWN, together="name", held_out=0.15,
                hold_out={"name": ["unicorn face", "man dancing"], "keywords": ["space"]})


# Written by hand from the names in metadata.jsonl, not by the rule that is tested.
VARIANTS = [
    ["boy", "girl", "boy tone 3", "girl tone 5"], ["man", "woman", "man tone 1"], ["prince", "princess tone 2"],
    ["man dancing", "man dancing tone 4"], ["two men holding hands", "man and woman holding hands"],
    ["family", "family (man,woman,girl,boy)", "family (woman,woman,boy)"], ["kiss", "kiss (man,man)"],
    ["person with pouting face", "person with pouting face tone3"], ["older man tone 2", "older woman"],
    ["father christmas", "mother christmas tone 1"], ["thumbs up sign", "thumbs up sign tone 5"],
]


@pytest.mark.slow
def test_no_variant_is_in_both_parts(emoji: Splits) -> None:
    side = {s.prompt.fields["name"]: held for held, part in ((0, emoji.train), (1, emoji.held_out)) for s in part}
    for group in VARIANTS:
        assert len({side[name] for name in group}) == 1, group
    toneless: dict[str, set[int]] = {}
    for name, held in side.items():
        toneless.setdefault(name.split(" tone")[0], set()).add(held)
    assert all(len(sides) == 1 for sides in toneless.values()) and len(toneless) < len(side) - 300


def test_no_image_is_in_both_parts_even_under_another_name(emoji: Splits) -> None:
    train = {row.tobytes() for row in emoji.train.content}
    assert not any(row.tobytes() in train for row in emoji.held_out.content)


def test_all_eight_categories_are_held_out_at_equal_rates(emoji: Splits) -> None:
    assert emoji.classes == ("activity", "flags", "food", "nature", "objects", "people", "symbols", "travel")
    rows = [json.loads(line) for line in (EMOJI / "metadata.jsonl").open(encoding="utf-8")]
    known = {row["file_name"]: row["category"] for row in rows if row["category"] not in KNOWN["category"]}
    assert len(emoji.train) + len(emoji.held_out) == sum(r["category"] not in KNOWN["category"] for r in rows) == 1809
    for sample in (*emoji.train, *emoji.held_out):
        assert emoji.classes[sample.prompt.label] == known[sample.fields["file_name"]]
    held = np.bincount(emoji.held_out.labels[emoji.held_out.fields["concept"] == ""], minlength=8)
    every = held + np.bincount(emoji.train.labels, minlength=8)
    # groups are drawn with probability 0.15: each share is binomial over at least 80 groups, four standard errors
    assert (np.abs(held / every - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 60)).all()
    assert (held >= 5).all()
    assert any(note.startswith("held out by class: activity ") and "food" in note for note in emoji.notes)
    assert any("199 of 2,008 images are left out by category" in note for note in emoji.notes)


def test_concepts_that_were_named_are_held_out_with_their_variants(emoji: Splits) -> None:
    names = {sample.prompt.fields["name"]: str(sample.fields["concept"]) for sample in emoji.held_out}
    assert names["unicorn face"] == "unicorn face"
    assert names["man dancing"] == names["man dancing tone 4"] == "man dancing"
    rows = [json.loads(line) for line in (EMOJI / "metadata.jsonl").open(encoding="utf-8")]
    space = {r["name"] for r in rows if "space" in r["keywords"] and r["category"] not in KNOWN["category"]}
    assert space and all(names[name] == "space" for name in space)
    assert not any(emoji.train.fields["concept"])
    assert any(note.startswith("held out on purpose:") for note in emoji.notes)


def test_all_columns_are_fields(emoji: Splits) -> None:
    sample = next(s for s in (*emoji.train, *emoji.held_out) if s.prompt.fields["name"] == "grinning face")
    assert dict(sample.prompt.fields) == {
        "name": "grinning face", "category": "people", "keywords": "happy, smiley, emotion"}
    assert sample.fields["file_name"] == "images/1f600.png" and sample.fields["category"] == "people"


def test_names_that_unicode_gives_are_grouped() -> None:
    same = [
        ["waving hand", "waving hand: medium-light skin tone", "Waving  hand: dark skin tone"],
        ["kiss", "kiss: woman, man", "kiss: man, man"], ["policeman", "policewoman: light skin tone"],
        ["female deer", "deer"],
    ]
    for names in same:
        assert len(set(group_names(names))) == 1, group_names(names)
    other = ["snowman", "snow", "human", "women's hat", "hat", "light bulb", "dark moon", "tone", "mailbox"]
    assert len(set(group_names(other))) == len(other)
    assert group_names(["cat 1", "Cat 2", "dog 1"], [r"\d+"]) == ["cat", "cat", "dog"]


def planted(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for number, row in enumerate(rows):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        row["file_name"] = f"{number}.png"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_configured_patterns_replace_the_rule(tmp_path: Path) -> None:
    rows = [{"shot": f"scene {i // 5} take {i % 5}", "n": i, "tags": None} for i in range(60)]
    found = load(path=str(planted(tmp_path, rows)), size=8, together="shot", variants=[r"take \d+"], held_out=0.3)
    sides = [{s.prompt.fields["shot"].split(" take")[0] for s in part} for part in (found.train, found.held_out)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 12
    assert found.train[0].prompt.fields["tags"] == "" and found.train[0].prompt.fields["n"].isdigit()


def test_a_chain_of_equal_images_and_names_stays_together(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"name": name} for name in ["a", "b", "b tone 1", "c", *(f"x{i}" for i in range(40))]]
    planted(tmp_path, rows)
    for copy, of in ((1, 0), (3, 2)):  # a = b by image, b ~ b tone 1 by name, b tone 1 = c by image
        (tmp_path / f"{copy}.png").write_bytes((tmp_path / f"{of}.png").read_bytes())
    for share in (0.2, 0.5, 0.8):
        found = load(path=str(tmp_path), size=8, together="name", held_out=share)
        held = {s.prompt.fields["name"] for s in found.held_out}
        assert len({"a", "b", "b tone 1", "c"} & held) in (0, 4)
    found = load(path=str(tmp_path), size=8, together="name", hold_out={"name": ["C"]})
    assert {"a", "b", "b tone 1", "c"} <= {s.prompt.fields["name"] for s in found.held_out}


@pytest.mark.parametrize(("fields", "parts"), [
    ({"hold_out": {"name": ["fo"]}}, ["hold_out.name", "no image has name = 'fo'", "'fox'"]),
    ({"leave_out": {"nam": ["fox"]}}, ["leave_out", "'nam' is expected", "name"]),
    ({"together": "nam"}, ["'nam' is expected", "together"]),
    ({"variants": ["x"]}, ["'together' names"]),
    ({"together": "name", "variants": ["("]}, ["no regular expression"]),
    ({"leave_out": {"name": ["fox", "hen"]}}, ["leaves no image"]),
])
def test_an_impossible_hold_out_is_an_error(tmp_path: Path, fields: dict[str, Any], parts: list[str]) -> None:
    planted(tmp_path, [{"name": "fox"}, {"name": "hen"}])
    with pytest.raises(UserError) as caught:
        load(path=str(tmp_path), size=8, **fields)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
