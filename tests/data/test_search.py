"""Tests of search against brute force and planted near-duplicates, of its stored index, and of its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.colour_folders import folder_of_colours
from helpers.dual_encoders import COLOURS, Colours, coloured, image_samples, tiny_clip
from upturn.cli import app
from upturn.data import search
from upturn.data.search import Index
from upturn.errors import UserError
from upturn.runs import image_search as searching
from upturn.types import Prompt

pytestmark = pytest.mark.slow


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_nearest_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    vectors, query = unit(rng.standard_normal((500, 16))), unit(rng.standard_normal((1, 16)))[0]
    hits, hidden = Index(vectors).find(query, 12, near=1.0)
    expected = np.argsort(-(vectors @ query), kind="stable")[:12]
    assert [hit.row for hit in hits] == expected.tolist() and hidden == 0
    np.testing.assert_allclose([hit.cosine for hit in hits], np.sort(vectors @ query)[::-1][:12], rtol=1e-5)


def test_near_duplicates_rank_after_the_best_of_them() -> None:
    """200 twins of the best three: six different images are found all the same."""
    rng = np.random.default_rng(1)
    base = unit(rng.standard_normal((40, 16)))
    query = base[0]
    order = np.argsort(-(base @ query))
    twins = unit(np.repeat(base[order[:3]], 200, axis=0) + 0.001 * rng.standard_normal((600, 16)))
    hits, hidden = Index(np.concatenate([base, twins])).find(query, 6, near=0.99)
    owner = [hit.row if hit.row < 40 else order[(hit.row - 40) // 200] for hit in hits]
    assert owner == order[:6].tolist() and hidden == 600
    assert [len(hit.hidden) for hit in hits] == [200, 200, 200, 0, 0, 0]


def test_an_inverted_file_finds_nearly_all(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(2)
    names = list(rng.choice(list(COLOURS), 600))
    samples = image_samples(coloured(names, rng, 4, 60), [Prompt()] * 600)
    encoder = Colours()
    index, _ = search.opened(tmp_path, samples, encoder, "colours", flat=100)
    again, note = search.opened(tmp_path, samples, encoder, "colours", flat=100)
    assert index.approximate and again.approximate and "read from disk" in note
    query = encoder.texts(["red"])[0]
    exact = {hit.row for hit in Index(index.vectors).find(query, 20, near=1.0)[0]}
    found = {hit.row for hit in again.find(query, 20, near=1.0)[0]}
    assert len(exact & found) >= 18


def test_a_stale_index_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = image_samples(coloured(list(COLOURS) * 3, rng), [Prompt()] * 12)
    encoder = Colours()
    assert search.opened(tmp_path, samples, encoder, "one")[1] == "index of 12 images, built now"
    assert search.opened(tmp_path, samples, encoder, "one")[1] == "index of 12 images, read from disk"
    fewer = samples.take(np.arange(10))
    note = search.opened(tmp_path, fewer, encoder, "one")[1]
    assert "stale" in note and "the images have changed (12 before)" in note
    encoder.id = "another"
    note = search.opened(tmp_path, fewer, encoder, "one")[1]
    assert "stale, the encoder is another one" in note and "images have changed" not in note
    (tmp_path / "vectors.safetensors").write_bytes(b"broken")
    assert "built now" in search.opened(tmp_path, fewer, encoder, "one")[1]


def test_the_command_by_words_and_by_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small encoder is trained once; then words and an image find their colour, and the page escapes text."""
    monkeypatch.chdir(tmp_path)
    folder, run = folder_of_colours(tmp_path / "pictures"), CliRunner().invoke
    base = ["search", str(folder), "--size", "16", "--k", "5", "--near", "1"]
    first = run(app, [*base, "red", "--html", "page.html"])
    assert first.exit_code == 0, first.output
    assert "training a small one on these 48 images" in first.output and "built now" in first.output
    again = run(app, [*base, "red", "--json"])
    found = json.loads(again.stdout)
    assert "read from disk" in " ".join(found["notes"]) and len(found["hits"]) == 5
    assert sum("red" in hit["said"] for hit in found["hits"]) >= 4
    page = (tmp_path / "page.html").read_text()
    assert "<b>" not in page.split("<main>")[1] and "&lt;b&gt;" in page and page.count("data:image") >= 5
    like = json.loads(run(app, [*base, "--image", str(folder / "02.png"), "--json"]).stdout)
    assert like["hits"][0]["picture"] == "02.png" and sum("blue" in hit["said"] for hit in like["hits"]) >= 4


def test_the_command_with_a_librarys_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, clip = folder_of_colours(tmp_path / "pictures"), tiny_clip(tmp_path / "clip")
    found = CliRunner().invoke(app, ["search", str(folder), "cat", "--encoder", str(clip), "--k", "3"])
    assert found.exit_code == 0, found.output
    assert "index of 48 images, built now" in found.output


def test_questions_that_cannot_be_answered(tmp_path: Path) -> None:
    folder = folder_of_colours(tmp_path / "pictures")
    where = searching.scope(str(folder), 16)
    with pytest.raises(UserError, match="give a text or an image"):
        searching.find(where, tmp_path)
    with pytest.raises(UserError, match="the text is empty"):
        searching.find(where, tmp_path, text="  ")
    with pytest.raises(UserError, match="not a cosine of near-duplicates"):
        searching.find(where, tmp_path, text="red", near=2.0)
    with pytest.raises(UserError, match="not a recipe, a directory"):
        searching.scope(str(tmp_path / "nothing"), 16)
    with pytest.raises(UserError, match="cannot be read as a dual encoder"):
        searching.find(where, tmp_path, text="red", encoder=str(folder))
    with pytest.raises(UserError, match="its data is text"):
        recipe = tmp_path / "r.yaml"
        recipe.write_text((Path(__file__).parents[2] / "recipes" / "equations.yaml").read_text())
        searching.scope(str(recipe), 16)
