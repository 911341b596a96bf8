"""Tests that bad input gives one error message that names file, line or key and the fix."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn.config import components
from upturn.errors import UserError

pytestmark = pytest.mark.slow

Case = Callable[[Path], tuple[dict[str, Any], list[str]]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    """One test: ``make`` lays out the bad input and returns the recipe's source and what the message must say."""
    CASES[make.__name__] = make
    return make


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_message(name: str, tmp_path: Path) -> None:
    source, expected = CASES[name](tmp_path)
    with pytest.raises(UserError) as caught:
        components.make("source", source, "data.source").load()
    message = str(caught.value)
    for part in expected:
        assert part in message, message
    assert caught.value.where and caught.value.exit_code == 2 and "\n" not in message
    assert caught.value.fix or caught.value.where.startswith("data.source"), message


def lines(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def pictures(folder: Path, count: int = 6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(folder / f"{number}.png")


# --- fields ----------------------------------------------------------------------------------------------------


@case
def held_out_is_not_a_share(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "digits", "held_out": 1.5}, ["data.source", "held_out must lie between 0 and 1", "1.5"]


@case
def a_field_that_does_not_exist(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "digits", "degrade": 0.5}, ["data.source.degrade", "Did you mean 'degraded'?"]


@case
def a_size_that_is_not_offered(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "digits", "size": 12}, ["data.source.size", "12", "8, 16, 32"]


@case
def a_mixture_without_means(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "points", "shape": "mixture"}, ["needs 'means'"]


@case
def weights_and_means_do_not_match(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "points", "shape": "mixture", "means": [[0], [1]], "weights": [1]}, ["1 weights for 2 means"]


@case
def too_few_points_to_hold_any_out(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "points", "n": 2, "held_out": 0.001}, ["held-out part would be empty", "held_out", "0.001"]


@case
def an_operator_that_is_none(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "equations", "operators": "+^"}, ["operators must be some of + - * /", "+^"]


@case
def more_equations_than_there_are(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    source = {"name": "equations", "count": 500, "operations": [1, 1], "operators": "+", "largest": 5}
    return source, ["equations.count", "only 25 different expressions", "500", "Lower 'count'"]


@case
def a_test_file_without_a_train_file(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "equations", "test": "x.jsonl"}, ["test needs train"]


@case
def a_background_that_is_no_colour(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "imagefolder", "path": "x", "background": "whit"}, ["background must be a colour", "'whit'"]


@case
def two_kinds_of_content(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    source = {"name": "parquet", "path": "x", "text": "a", "image": "b"}
    return source, ["only one of messages, instruction, text, completion, points, image", "['text', 'image']"]


@case
def a_prompt_without_completion(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": "x", "prompt": "q", "text": "t"}, ["text has no prompt"]


@case
def trained_on_and_held_out_are_one_split(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "hub", "path": "x", "split": "all", "test": "all"}, ["test and split are both 'all'"]


# --- paths -----------------------------------------------------------------------------------------------------


@case
def a_file_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": str(tmp / "no.jsonl")}, [str(tmp / "no.jsonl"), "no such file", "'path'"]


@case
def a_folder_instead_of_a_file(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "parquet", "path": str(tmp)}, [str(tmp), "this is a folder, a file is expected"]


@case
def a_file_instead_of_a_folder(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.txt", "text")
    return {"name": "imagefolder", "path": path}, [path, "this is a file, a folder is expected"]


@case
def a_folder_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "imagefolder", "path": str(tmp / "no")}, [str(tmp / "no"), "no such folder"]


@case
def a_pattern_that_nothing_fits(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": str(tmp / "*.jsonl")}, ["*.jsonl", "no file fits this pattern", "'path'"]


@case
def a_corpus_pattern_that_nothing_fits(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "corpus", "paths": [str(tmp / "*.txt")]}, ["*.txt", "no file fits this pattern", "'paths'"]


@case
def a_test_file_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"text": "x"})
    return {"name": "jsonl", "path": path, "test": "no.jsonl"}, ["no.jsonl", "'test'"]


# --- text ------------------------------------------------------------------------------------------------------


@case
def a_folder_without_text_files(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    (tmp / "a.pdf").write_bytes(b"x")
    return {"name": "corpus", "paths": [str(tmp)]}, [str(tmp), ".txt, .md", "Set 'suffixes'"]


@case
def a_text_that_is_not_utf8(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    (tmp / "a.txt").write_bytes(b"plain \xe9t\xe9")
    return {"name": "corpus", "paths": [str(tmp)]}, ["a.txt", "byte 0xe9 at offset 6", "UTF-8"]


@case
def files_that_are_all_empty(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "corpus", "paths": [lines(tmp / "a.txt", " ")]}, ["a.txt", "there is no text"]


@case
def one_short_document(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "corpus", "paths": [lines(tmp / "a.txt", "words")]}, ["would be empty", "1 different contents"]


@case
def a_line_that_is_cut_short(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"text": "x"}, "", '{"text": "y')
    return {"name": "jsonl", "path": path}, [f"{path}, line 3", "not valid JSON", "column"]


@case
def a_line_that_is_no_object(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": lines(tmp / "a.jsonl", [1, 2])}, ["line 1", "object is expected", "list"]


@case
def a_byte_that_is_not_utf8(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    (tmp / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    return {"name": "jsonl", "path": str(tmp / "a.jsonl")}, ["line 2", "byte 11 of the line is not UTF-8"]


@case
def a_file_without_lines(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": lines(tmp / "a.jsonl", "")}, ["a.jsonl", "no lines"]


@case
def a_column_that_one_line_lacks(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"q": "x", "a": "y"}, {"q": "x", "answer": "y"})
    source = {"name": "jsonl", "path": path, "prompt": "q", "completion": "a"}
    return source, [f"{path}, line 2", "column 'a' is expected (field 'completion')", "found: q, answer"]


@case
def a_column_of_the_wrong_type(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"text": "x"}, {"text": ["y"]})
    found = "column 'text' must hold text, or a list of {role, content}, here it holds a list"
    return {"name": "jsonl", "path": path}, [f"{path}, line 2", found]


@case
def a_null_where_text_is_needed(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": lines(tmp / "a.jsonl", {"text": None})}, ["line 1", "nothing (null)"]


@case
def texts_that_are_all_empty(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "jsonl", "path": lines(tmp / "a.jsonl", {"text": ""})}, ["line 1", "the text of every row is empty"]


@case
def points_of_uneven_length(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"x": [1, 2]}, {"x": [1, 2, 3]})
    return {"name": "jsonl", "path": path, "points": "x"}, ["line 2", "lists of 2 finite numbers", "3 values"]


@case
def points_that_are_not_finite(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", '{"x": [1, NaN]}')
    return {"name": "jsonl", "path": path, "points": "x"}, ["line 1", "finite numbers"]


@case
def a_class_that_is_a_list(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"text": "x", "c": []})
    return {"name": "jsonl", "path": path, "label": "c"}, ["line 1", "column 'c'", "a name or a whole number"]


@case
def a_test_file_that_is_the_train_file(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"text": "x"}, {"text": "y"})
    source = {"name": "jsonl", "path": path, "test": path}
    return source, ["nothing is left to hold out: 2 of 2 test rows are in train"]


@case
def an_equation_that_is_not_closed(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"question": "?", "answer": "<<1+1=2\n#### 2"})
    return {"name": "equations", "train": path}, [f"{path}, line 1", "'<<' and '>>' do not pair up"]


@case
def a_problem_without_its_answer(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"question": "?", "reply": "x"})
    return {"name": "equations", "train": path}, [f"{path}, line 1", "column 'answer'", "found: question, reply"]


@case
def a_problem_without_a_final_answer(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"question": "?", "answer": "<<1+1=2>>2"})
    return {"name": "equations", "train": path}, [f"{path}, line 1", "no final answer", "####"]


@case
def problems_without_equations(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = lines(tmp / "a.jsonl", {"question": "?", "answer": "two\n#### 2"})
    return {"name": "equations", "train": path}, [path, "no equation was found"]


# --- images --------------------------------------------------------------------------------------------------


@case
def a_folder_without_pictures(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    lines(tmp / "notes.doc", "x")
    source = {"name": "imagefolder", "path": str(tmp)}
    return source, ["no image was found (1 files (notes.doc))", "expected: images"]


@case
def an_empty_folder(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    return {"name": "imagefolder", "path": str(tmp)}, [str(tmp), "the folder is empty"]


@case
def a_picture_that_is_cut_short(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp / "cut.png")
    (tmp / "cut.png").write_bytes((tmp / "cut.png").read_bytes()[:3000])
    return {"name": "imagefolder", "path": str(tmp)}, [str(tmp / "cut.png"), "1 of 7 images", "broken_at_most"]


@case
def a_picture_that_is_none(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "a.jpg", "<html>404</html>")
    return {"name": "imagefolder", "path": str(tmp)}, [str(tmp / "a.jpg"), "this is not an image"]


@case
def more_broken_pictures_than_allowed(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    for name in "ab":
        (tmp / f"{name}.png").write_bytes(b"")
    source = {"name": "imagefolder", "path": str(tmp), "broken_at_most": 0.2}
    return source, ["2 of 8 images", "a.png", "also", "b.png"]


@case
def a_caption_column_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.jsonl", *({"file_name": f"{i}.png", "title": "t", "kind": "k"} for i in range(6)))
    source = {"name": "imagefolder", "path": str(tmp), "caption": "text"}
    return source, ["metadata.jsonl, line 1", "column 'text' is expected (field 'caption')", "found: title, kind"]


@case
def metadata_without_file_names(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.csv", "image,text", "0.png,a")
    source = {"name": "imagefolder", "path": str(tmp)}
    return source, ["metadata.csv, line 2", "column 'file_name' is expected; found: image, text"]


@case
def metadata_of_a_picture_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.jsonl", {"file_name": "0.png"}, {"file_name": "gone.png"})
    return {"name": "imagefolder", "path": str(tmp)}, ["metadata.jsonl, line 2", "1 of 2 images", "'gone.png'"]


@case
def a_csv_row_with_too_many_values(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.csv", "file_name,text", "0.png,red, and blue")
    return {"name": "imagefolder", "path": str(tmp)}, ["metadata.csv, line 2", "file_name, text", "quotes"]


@case
def two_files_of_metadata(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.csv", "file_name", "0.png")
    lines(tmp / "metadata.jsonl", {"file_name": "0.png"})
    return {"name": "imagefolder", "path": str(tmp)}, ["both metadata.jsonl and metadata.csv", "Remove one"]


@case
def a_caption_that_is_a_table(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    lines(tmp / "metadata.jsonl", {"file_name": "0.png", "t": {"en": "x"}})
    return {"name": "imagefolder", "path": str(tmp), "caption": "t"}, ["line 1", "column 't' must hold text", "dict"]


@case
def a_label_column_without_metadata(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    return {"name": "imagefolder", "path": str(tmp), "label": "kind"}, ["'label: kind'", "there is none", "6 images"]


@case
def folders_that_are_parts_not_classes(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp / "train")
    pictures(tmp / "test")
    return {"name": "imagefolder", "path": str(tmp)}, ["test, train", "are parts of the data", f"path: {tmp / 'train'}"]


@case
def pictures_beside_class_folders(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp)
    pictures(tmp / "cat")
    return {"name": "imagefolder", "path": str(tmp)}, ["6 images lie beside the folders cat", "expected: images"]


@case
def classes_in_train_only(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    pictures(tmp / "train" / "cat")
    pictures(tmp / "test")
    source = {"name": "imagefolder", "path": str(tmp / "train"), "test": str(tmp / "test")}
    return source, ["one of the two folders has classes, the other has none"]


# --- parquet and hub -------------------------------------------------------------------------------------------


def table(path: Path, **columns: Any) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return str(path)


@case
def a_parquet_file_that_is_cut_short(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", text=["x"] * 5000)
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    return {"name": "parquet", "path": path}, [path, "cut short or damaged", "again"]


@case
def a_parquet_file_with_damaged_pages(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", text=[f"row {i}" for i in range(5000)])
    raw = bytearray(Path(path).read_bytes())
    raw[40:4000] = b"\xff" * 3960
    Path(path).write_bytes(bytes(raw))
    return {"name": "parquet", "path": path}, [path, "cut short or damaged"]


@case
def a_parquet_column_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", body=["x"], label=[1])
    return {"name": "parquet", "path": path}, [path, "no layout of text has these columns: body, label"]


@case
def a_parquet_column_of_the_wrong_type(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", text=[1, 2])
    return {"name": "parquet", "path": path}, [f"{path}, row 0", "or a list of {role, content}, here it holds a int"]


@case
def a_parquet_file_without_rows(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    import pyarrow as pa

    path = table(tmp / "a.parquet", text=pa.array([], pa.string()))
    return {"name": "parquet", "path": path}, ["parquet:a", "no rows"]


@case
def a_broken_picture_in_a_table(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", image=[b"not an image"])
    return {"name": "parquet", "path": path, "image": "image"}, [f"{path}, row 0", "this is not an image"]


@case
def pictures_that_are_only_named(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    path = table(tmp / "a.parquet", image=[{"bytes": None, "path": "x.png"}])
    source = {"name": "parquet", "path": path, "image": "image"}
    return source, [f"{path}, row 0", "a path only ('x.png')", "imagefolder"]


@case
def a_split_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    import datasets

    datasets.DatasetDict({"all": datasets.Dataset.from_dict({"text": ["x"]})}).save_to_disk(str(tmp / "d"))
    return {"name": "hub", "path": str(tmp / "d")}, ["split 'train' is expected (field 'split')", "found: all"]


@case
def a_hub_column_that_is_absent(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    import datasets

    datasets.Dataset.from_dict({"body": ["x"]}).save_to_disk(str(tmp / "d"))
    return {"name": "hub", "path": str(tmp / "d")}, ["split train", "no layout of text has these columns: body"]


@case
def a_class_without_a_name(tmp: Path) -> tuple[dict[str, Any], list[str]]:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "y": datasets.ClassLabel(names=["a", "b"])})
    data = datasets.Dataset.from_dict({"text": ["x", "z"], "y": [0, -1]}, features=features)
    data.save_to_disk(str(tmp / "d"))
    return {"name": "hub", "path": str(tmp / "d"), "label": "y"}, ["row 1", "class -1 has no name, there are 2"]


# --- what needs the world to be changed ------------------------------------------------------------------------


def test_a_hub_name_without_a_network_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    source = components.make("source", {"name": "hub", "path": "nobody-at-all/nothing"})
    with pytest.raises(UserError, match=r"nobody-at-all/nothing: .*cannot be loaded.*Check the name and the network"):
        source.load()


@pytest.mark.parametrize("source", [{"name": "jsonl"}, {"name": "corpus"}, {"name": "imagefolder"}])
def test_missing_permission_is_an_error_before_anything_is_read(
    source: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path if source["name"] == "imagefolder" else Path(lines(tmp_path / "a.jsonl", {"text": "x"}))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs many test machines, may read everything
    given = {"paths": [str(path)]} if source["name"] == "corpus" else {"path": str(path)}
    with pytest.raises(UserError, match="no permission to read it") as caught:
        components.make("source", source | given).load()
    assert caught.value.where == str(path) and "permissions" in caught.value.fix


def test_pains_15_a_layout_that_does_not_fit_names_what_was_found_and_what_was_expected(tmp_path: Path) -> None:
    pictures(tmp_path)
    with pytest.raises(UserError) as caught:
        components.make("source", {"name": "imagefolder", "path": str(tmp_path), "caption": "text"}).load()
    assert "found: 6 images" in str(caught.value) and "expected: metadata.jsonl or metadata.csv" in str(caught.value)
