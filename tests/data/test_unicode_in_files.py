"""Text and names that files hold in unusual ways: half characters, Unicode's line separators, decomposed letters."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn.config import components
from upturn.data.caption_fields import FILE
from upturn.data.captioning import captioned
from upturn.data.captions._store import Store
from upturn.data.file_names import existing
from upturn.data.json_lines import records
from upturn.data.split import content_keys, normalised
from upturn.errors import UserError
from upturn.export.vote_files import plain_rows, read_votes
from upturn.types import Splits, Votes, concatenate, objects
from upturn.web.annotators_file import people_in

HALF = '"a \\ud83d b"'
SEPARATED = "one\u2028two\u2029three\x85four\x0bfive\x1csix"
COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "né à Zürich"), unicodedata.normalize("NFD", "né à Zürich")


def load(name: str, **fields: Any) -> Splits:
    found: Splits = components.make("source", {"name": name, **fields}).load()
    return found


# --- half characters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("jsonl", f'{{"text": {HALF}}}'),
        ("jsonl", f'{{"prompt": "x", "completion": {HALF}}}'),
        ("jsonl", f'{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": {HALF}}}]}}'),
        ("jsonl", f'{{"instruction": {HALF}, "output": "x"}}'),
        ("preferences", f'{{"prompt": "x", "chosen": "y", "rejected": {HALF}}}'),
        ("preferences", f'{{"prompt": [{{"role": "user", "content": {HALF}}}], "chosen": "y", "rejected": "z"}}'),
    ],
)  # fmt: skip
def test_half_a_character_is_refused_with_file_and_line(tmp_path: Path, source: str, row: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"\n{row}\n")
    with pytest.raises(UserError, match=r"holds half a character \(\\ud83d, a lone surrogate\) at char.* 3") as caught:
        load(source, path=str(tmp_path / "a.jsonl"))
    assert caught.value.where.endswith("a.jsonl, line 2")


def test_a_whole_pair_of_surrogates_and_their_name_in_text_are_no_halves(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude42", "name": "\\\\ud83d"}')
    assert [row for _, row in records(tmp_path / "a.jsonl")] == [{"text": "🙂", "name": "\\ud83d"}]


def test_votes_and_captions_refuse_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_text(f'{{"text": {HALF}}}\n')
    with pytest.raises(UserError, match="half a character") as caught:
        read_votes(tmp_path / "votes.jsonl")
    assert caught.value.where.endswith("votes.jsonl, line 1")
    folder = pictures(tmp_path / "data", ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "captions.jsonl").write_text(f'{{"file_name": "a.png", "caption": {HALF}}}\n')
    with pytest.raises(UserError, match="half a character") as caught:
        captions_of(folder, tmp_path / "captions.jsonl")
    assert caught.value.where.endswith("captions.jsonl, line 1")


# --- lines end at \n alone ------------------------------------------------------------------------------------


def test_votes_keep_the_line_separators_in_their_texts(tmp_path: Path) -> None:
    texts = objects([SEPARATED, "plain"])
    names = ("ids", "task", "person", "team", "mode", "action", "check", "right")
    votes = Votes(
        **{name: objects(["x", "y"]) for name in names}, text=texts, shown=objects([("a", "b")] * 2),
        ranks=objects([(1, 2)] * 2), scores=objects([(0.5, 1.0)] * 2), strength=np.ones(2), seconds=np.ones(2),
        moment=np.arange(2.0),
    )  # fmt: skip
    (tmp_path / "votes.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in plain_rows(votes)), encoding="utf-8"
    )
    assert read_votes(tmp_path / "votes.jsonl").text.tolist() == texts.tolist()


def test_sources_keep_the_line_separators_in_their_texts(tmp_path: Path) -> None:
    rows = [{"prompt": f"{SEPARATED} {i}", "completion": SEPARATED} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    found = load("jsonl", path=str(tmp_path / "a.jsonl"), held_out=0.3)
    samples = concatenate([found.train, found.held_out])
    assert set(samples.content) == {SEPARATED} and {p.text for p in samples.prompts} == {r["prompt"] for r in rows}


def test_people_keep_the_line_separators_in_their_names(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("name,team\nada\u2028b,a\r\neve,b\n", encoding="utf-8", newline="")
    assert [person["name"] for person in people_in(tmp_path / "people.csv")] == ["ada\u2028b", "eve"]


def test_captions_keep_the_line_separators(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "texts").mkdir()
    for name in "abcd":
        text = f"first\u2028still first\r\n{name}\n"
        (tmp_path / "texts" / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    assert captions_of(folder, tmp_path / "texts")["a.png"] == ("first\u2028still first", "a")
    store = Store(tmp_path / "store", {"model": "m"})
    store.add({"x": SEPARATED})
    assert Store(tmp_path / "store", {"model": "m"}).known == {"x": SEPARATED}


# --- composed and decomposed letters --------------------------------------------------------------------------


def pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(folder / name)
    return folder


def captions_of(folder: Path, path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each image of a folder, by the file's name."""
    found = load("imagefolder", path=str(folder), size=8, held_out=0.4)
    splits = captioned(components.make("caption", {"name": "file", "path": str(path)}), found, None, 0)
    both = concatenate([splits.train, splits.held_out])
    several = both.fields.get("captions")
    own = [(p.text,) for p in both.prompts] if several is None else list(several)
    return dict(zip(map(str, both.fields[FILE]), own, strict=True))


@pytest.mark.parametrize(("on_disk", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_captions_find_their_images_in_either_spelling(tmp_path: Path, on_disk: str, written: str) -> None:
    images = [f"{on_disk} {i}.png" for i in range(6)]
    folder = pictures(tmp_path / on_disk, images)
    rows = [{"file_name": f"{written} {i}.png", "caption": f"c{i}"} for i in range(6)]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    expected = {name: (f"c{i}",) for i, name in enumerate(images)}
    assert captions_of(folder, tmp_path / "c.jsonl") == expected
    (tmp_path / "texts").mkdir()
    for i in range(6):
        (tmp_path / "texts" / f"{written} {i}.txt").write_text(f"c{i}")
    assert captions_of(folder, tmp_path / "texts") == expected
    for i in range(6):  # beside the images
        (folder / f"{written} {i}.txt").write_text(f"c{i}")
    found = load("imagefolder", path=str(folder), size=8, held_out=0.4)
    both = concatenate([found.train, found.held_out])
    assert {prompt.text for prompt in both.prompts} == {f"c{i}" for i in range(6)}
    assert not any("have no .txt" in note for note in found.notes)
    assert existing(tmp_path / written / f"{written} 1.png") == folder / images[1]


@pytest.mark.parametrize(("on_disk", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_metadata_finds_its_images_in_either_spelling(tmp_path: Path, on_disk: str, written: str) -> None:
    folder = pictures(tmp_path / "data", [f"{on_disk} {i}.png" for i in range(6)])
    rows = [{"file_name": f"{written} {i}.png", "caption": f"c{i}"} for i in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = load("imagefolder", path=str(folder), size=8, held_out=0.4, caption="caption")
    both = concatenate([found.train, found.held_out])
    assert {prompt.text for prompt in both.prompts} == {f"c{i}" for i in range(6)}


def test_twins_of_one_text_are_on_one_side(tmp_path: Path) -> None:
    forms = (COMPOSED, DECOMPOSED)
    rows = [{"prompt": f"{form} {i}", "completion": f"{form} answer"} for i in range(40) for form in forms]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = load("jsonl", path=str(tmp_path / "a.jsonl"), held_out=0.3)
    sides = [
        {unicodedata.normalize("NFC", prompt.text) for prompt in part.prompts} for part in (found.train, found.held_out)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40
    assert len(found.train) + len(found.held_out) == 80


def test_the_keys_of_composed_texts_are_those_of_before() -> None:
    for text in ("Straße", "ÉCOLE  2", "naïve \t x", "日本語", "ΟΔΟΣ", "İzmir"):
        composed = unicodedata.normalize("NFC", text)
        before = " ".join(composed.casefold().split())
        assert normalised(composed) == unicodedata.normalize("NFC", before)
        assert content_keys("text", [text])[0] == content_keys("text", [unicodedata.normalize("NFD", text)])[0]
