"""Tests of the caption strategies, and of the counts that `upturn captions` prints."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upturn.config import components, recipe
from upturn.data.caption_fields import alike
from upturn.data.caption_statistics import CaptionReader, all_captions, statistics
from upturn.data.captioning import captioned
from upturn.data.mixer import Mixer
from upturn.data.mixing.replace import Replace
from upturn.errors import UserError
from upturn.store import parquet_tables
from upturn.types import Prompt, Samples, Splits, objects, real_samples, synthetic_samples

ROWS = [
    {"name": "red fox", "sort": "animal", "words": "fox, red, wild, fast", "score": "0.9"},
    {"name": "$5 note", "sort": "money", "words": "", "score": "0.2"},
    {"name": "blue car", "sort": "thing", "words": "car", "score": "0.5"},
]


def pictures(rows: list[dict[str, str]] = ROWS, label: bool = False) -> Samples:
    content = np.zeros((len(rows), 4, 4, 3), dtype=np.uint8)
    content[:] = np.arange(len(rows), dtype=np.uint8)[:, None, None, None]
    prompts = [Prompt(text="as the source says", label=i if label else None, fields=row) for i, row in enumerate(rows)]
    files = objects([f"p/{i}.png" for i in range(len(rows))])
    return real_samples("image", content, prompts, "test", {"file_name": files})


def texts(spec: Any, samples: Samples | None = None, **more: Any) -> list[str]:
    made, _ = run(spec, samples, **more)
    return [prompt.text for prompt in made.prompts]


def run(
    spec: Any, samples: Samples | None = None, classes: tuple[str, ...] = (), folder: Path | None = None, key: int = 1
) -> tuple[Samples, tuple[str, ...]]:
    strategy = components.make("caption", spec, "captions")
    return strategy.caption(pictures() if samples is None else samples, classes, folder, key)


# --- strategies ------------------------------------------------------------------------------------------------------


def test_ids_labels_and_fields_stay_and_only_the_text_changes() -> None:
    given = pictures(label=True)
    for spec in ("empty", {"name": "fixed", "text": "x"}, {"name": "template", "template": "a ${name}"},
                 {"name": "tags", "column": "words"}):
        made, _ = run(spec, given)
        assert made.ids.tolist() == given.ids.tolist() and (made.labels == given.labels).all()
        assert [p.fields for p in made.prompts] == ROWS
        assert made.fields["file_name"].tolist() == given.fields["file_name"].tolist()


def test_empty_and_fixed() -> None:
    assert texts("empty") == ["", "", ""]
    assert texts({"name": "fixed", "text": "a sks dog"}) == ["a sks dog"] * 3
    with pytest.raises(UserError, match="'empty' is for no caption"):
        run({"name": "fixed", "text": " "})


def test_a_template_is_filled_in_and_dollars_stay() -> None:
    spec = {"name": "template", "template": "for $$1: ${name}, $sort of ${class}"}
    made = texts(spec, pictures(label=True), classes=("a", "b", "c"))
    assert made == ["for $1: red fox, animal of a", "for $1: $5 note, money of b", "for $1: blue car, thing of c"]


def test_several_templates_are_several_captions() -> None:
    made, _ = run({"name": "template", "template": ["a ${name}", "${sort}"]})
    assert made.fields["captions"][0] == ("a red fox", "animal")
    assert made.prompts[0].text == "a red fox"


def test_a_missing_field_is_named_with_the_first_image_and_the_nearest_field() -> None:
    rows = [*ROWS[:1], {"name": "x", "sort": "y"}]
    with pytest.raises(UserError) as caught:
        run({"name": "template", "template": "${name} ${words}"}, pictures(rows))
    assert all(part in str(caught.value) for part in ("'words'", "p/1.png", "name, sort"))
    with pytest.raises(UserError, match="Did you mean 'name'"):
        run({"name": "template", "template": "${nam}"})


def test_empty_values_are_counted() -> None:
    _, notes = run({"name": "template", "template": "${words}"})
    assert notes == ("1 of 3 images have an empty 'words', the first is p/1.png",)


@pytest.mark.parametrize(("template", "complaint"), [("5 $ a ${name}", "not followed by a name"), ("plain", "'fixed'")])
def test_a_template_that_cannot_be_is_refused(template: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        run({"name": "template", "template": template})


def test_tags_are_the_written_ones_shuffled_by_image_alone() -> None:
    rows = [{"words": ",".join(f"t{i}" for i in range(9))}] * 1 + [{"words": ", ".join("abcdefgh")}]
    spec = {"name": "tags", "column": "words", "keep_first": 2, "variants": 50}
    made, _ = run(spec, pictures(rows))
    first, second = made.fields["captions"]
    assert first[0] == ", ".join(f"t{i}" for i in range(9)) and len(first) == 50
    for text in first:
        tags = text.split(", ")
        assert tags[:2] == ["t0", "t1"] and sorted(tags) == sorted(f"t{i}" for i in range(9))
    assert len(set(first)) > 40  # of 7! orders
    alone, _ = run(spec, pictures(rows).take([1]))
    assert alone.fields["captions"][0] == second
    other, _ = run(spec, pictures(rows), key=2)
    assert other.fields["captions"][0] != first


def test_tags_drop_out_at_the_configured_rate_and_never_all() -> None:
    rows = [{"words": ", ".join(f"t{i}" for i in range(10))}]
    spec = {"name": "tags", "column": "words", "dropout": 0.3, "variants": 501, "keep_first": 1}
    drawn = run(spec, pictures(rows))[0].fields["captions"][0][1:]
    left = [len(text.split(", ")) for text in drawn]
    # 9 of 10 can go: mean 1 + 9 * 0.7, standard error sqrt(9 * 0.21 / 500) = 0.061; four of them
    assert abs(np.mean(left) - 7.3) < 0.25
    lonely = run({**spec, "dropout": 0.99, "keep_first": 0}, pictures(rows))[0].fields["captions"][0]
    assert all(text for text in lonely)


def test_a_image_without_tags_has_one_empty_caption() -> None:
    made, _ = run({"name": "tags", "column": "words"})
    assert [len(own) for own in made.fields["captions"]] == [8, 1, 1]
    assert made.prompts[1].text == "" and made.fields["captions"][2] == ("car",)


def test_captions_in_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "0.txt").write_text("one\n\ntwo \n")
    (tmp_path / "p" / "2.txt").write_text("three")
    made, _ = run({"name": "file", "path": str(tmp_path)})
    assert [prompt.text for prompt in made.prompts] == ["one", "", "three"]
    assert made.fields["captions"][0] == ("one", "two")
    table = tmp_path / "c.jsonl"
    lines = [{"file_name": "p/0.png", "caption": ["a", "b"]}, {"file_name": "p/1.png", "caption": "c"},
             {"file_name": "p/1.png", "caption": "d"}, {"file_name": "p/9.png", "caption": "lost"}]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made, notes = run({"name": "file", "path": str(table)})
    assert made.fields["captions"].tolist() == [("a", "b"), ("c", "d"), ("",)]
    assert notes == ("captions of 1 images in c.jsonl belong to none of the data",)
    (tmp_path / "c.csv").write_text('file_name,text\np/2.png,"x, y"\n')
    assert texts({"name": "file", "path": str(tmp_path / "c.csv"), "column": "text"}) == ["", "", "x, y"]


@pytest.mark.parametrize(("line", "parts"), [
    ('{"file_name": "p/0.png", "text": "x"}', ["line 1", "'caption' is expected", "file_name, text"]),
    ('{"file_name": "p/0.png", "caption": 3}', ["line 1", "text or a list"]),
    ('{"file_name": "0.png", "caption": "x"}', ["none of 3 images", "'p/0.png'", "'0.png'"]),
])
def test_captions_in_files_that_cannot_be_used_are_refused(tmp_path: Path, line: str, parts: list[str]) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError) as caught:
        run({"name": "file", "path": str(path)})
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_quality_puts_words_behind_another_strategy() -> None:
    of = {"name": "template", "template": ["a ${name}", "${sort}"]}
    levels = {0.0: "bad", 0.5: "good", 0.8: "best"}
    made, _ = run({"name": "quality", "of": of, "by": "score", "levels": levels})
    assert made.fields["captions"].tolist() == [
        ("a red fox, best", "animal, best"), ("a $5 note, bad", "money, bad"), ("a blue car, good", "thing, good")]
    words = {"name": "quality", "of": "empty", "by": "sort", "words": {"animal": "alive"}}
    made, notes = run(words)
    assert [p.text for p in made.prompts] == ["alive", "", ""]
    assert notes == ("2 of 3 images get no words by 'sort', the first is p/1.png",)
    with pytest.raises(UserError, match="no number"):
        run({"name": "quality", "of": "empty", "by": "name", "levels": levels})


# --- both parts ------------------------------------------------------------------------------------------------------


def splits() -> Splits:
    samples = pictures()
    return Splits(samples.take([0, 1]), samples.take([2]), (), ("the source's",))


def test_empty_captions_are_counted_unless_they_were_requested() -> None:
    made = captioned(components.make("caption", {"name": "tags", "column": "words"}), splits(), None, 1)
    assert made.notes == ("the source's", "1 of 3 images have an empty caption, the first is p/1.png")
    assert made.held_out.ids.tolist() == splits().held_out.ids.tolist() and made.held_out.prompts[0].text == "car"
    assert captioned(components.make("caption", "empty"), splits(), None, 1).notes == ("the source's",)


def test_several_captions_survive_the_store_and_the_mixture(tmp_path: Path) -> None:
    made, _ = run({"name": "tags", "column": "words"})
    parquet_tables.write_samples(tmp_path / "s.parquet", made)
    back = parquet_tables.read_samples(tmp_path / "s.parquet")
    assert back.fields["captions"].tolist() == made.fields["captions"].tolist()
    assert all(isinstance(own, tuple) for own in back.fields["captions"])
    drawn = synthetic_samples("image", made.content[:2], made.prompts[:2], np.array([[5], [6]]), "m")
    mixture = Mixer(Replace(), lambda_=1.0).mix(made, [drawn], key=1, round=1)
    assert mixture.samples.fields["captions"].tolist() == [*made.fields["captions"], (made.prompts[0].text,), ("",)]
    assert alike([drawn]) == [drawn]


def test_statistics_agree_with_a_plain_count() -> None:
    made, _ = run({"name": "template", "template": ["${name}, ${name}", "${sort}"]})
    reader = CaptionReader("letters", 7, lambda found: [len(text) for text in found])
    found = statistics(made, [reader])
    every = [text for own in all_captions(made) for text in own]
    assert (found.pictures, found.captions, found.distinct, found.empty) == (3, 6, len(set(every)), 0)
    assert (found.words.least, found.words.most) == (1, 4)
    common = Counter(word for text in every for word in set(text.replace(",", "").replace("$", "").split()))
    assert dict(found.common) == dict(common)
    assert found.tokens[0].cut == sum(len(text) > 7 for text in every)
    assert found.tokens[0].span.median == float(np.median([len(text) for text in every]))


# --- a model that writes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder with a decoder, as small as can be, with the files that a published one has."""
    return tiny_captioner(tmp_path_factory.mktemp("writer"), seed=0)


def tiny_captioner(folder: Path, seed: int) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        PreTrainedTokenizerFast,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    torch.manual_seed(seed)
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrst"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    vision = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8,
                       patch_size=4, initializer_range=1.0)
    text = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1,
                      eos_token_id=2, pad_token_id=0, add_cross_attention=True, is_decoder=True, initializer_range=1.0)
    model = VisionEncoderDecoderModel(encoder=ViTModel(vision), decoder=GPT2LMHeadModel(text))
    model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = 1, 0, 2
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 1, 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def noise(n: int) -> Samples:
    content = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return real_samples("image", content, [Prompt()] * n, "noise")


@pytest.mark.slow
def test_a_model_captions_each_image_once_and_its_captions_are_read_from_the_store(
    writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer, ViTImageProcessor

    spec = {"name": "generated", "folder": str(writer), "max_tokens": 6, "batch": 2}
    made, notes = run(spec, noise(5), folder=tmp_path)
    assert notes == () and len({p.text for p in made.prompts}) > 1
    assert made.fields["captioned_by"][0].startswith(f"{writer.name}@")
    model = AutoModelForImageTextToText.from_pretrained(writer)  # the plain way, one image at a time
    pixels, tokenizer = ViTImageProcessor.from_pretrained(writer), AutoTokenizer.from_pretrained(writer)
    for row, prompt in zip(noise(5).content, made.prompts, strict=True):
        out = model.generate(**pixels(row, return_tensors="pt"), max_new_tokens=6, do_sample=False)
        assert prompt.text == tokenizer.decode(out[0], skip_special_tokens=True)
    from upturn.data.captions import _captioner

    def never(place: str, where: str) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr(_captioner, "load", never)
    again, notes = run(spec, noise(5), folder=tmp_path)
    assert [p.text for p in again.prompts] == [p.text for p in made.prompts]
    assert notes == ("5 captions of 5 were in the store, 0 are new",)


@pytest.mark.slow
def test_stale_captions_are_reported_and_generated_again(writer: Path, tmp_path: Path) -> None:
    spec = {"name": "generated", "folder": str(writer), "max_tokens": 3}
    run(spec, noise(3), folder=tmp_path)
    _, notes = run(spec, noise(4), folder=tmp_path)
    assert notes == ("3 captions of 4 were in the store, 1 are new",)
    _, notes = run({**spec, "max_tokens": 4}, noise(4), folder=tmp_path)
    assert len(notes) == 1 and "4 stored captions are stale (max_tokens was 3)" in notes[0]
    head = json.loads(sorted(tmp_path.glob("*.jsonl"))[0].read_text().splitlines()[0])
    assert {"model", "weights", "prompt", "max_tokens", "transformers"} == set(head)


@pytest.mark.slow
def test_a_caption_store_truncated_by_a_kill_is_resumed(writer: Path, tmp_path: Path) -> None:
    spec = {"name": "generated", "folder": str(writer), "max_tokens": 3}
    whole, _ = run(spec, noise(4), folder=tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    torn, notes = run(spec, noise(4), folder=tmp_path)
    assert notes == ("3 captions of 4 were in the store, 1 are new",)
    assert [p.text for p in torn.prompts] == [p.text for p in whole.prompts]
    assert run(spec, noise(4), folder=tmp_path)[1] == ("4 captions of 4 were in the store, 0 are new",)


@pytest.mark.slow
def test_a_folder_without_a_captioning_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        run({"name": "generated", "folder": str(tmp_path / "m")})
    (tmp_path / "m" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="image-to-text model"):
        run({"name": "generated", "folder": str(tmp_path / "m")})
    with pytest.raises(UserError, match="exactly one of"):
        run("generated")


# --- recipes ---------------------------------------------------------------------------------------------------------

RECIPE = """
name: captions
data: {name: digits}
models: {policy: {name: pixels, size: 8, channels: 1, classes: 10}}
stages: [{name: fit, steps: 1}]
evaluate: {prompts: 4, metrics: [coverage]}
"""


def test_captions_that_no_component_reads_are_refused() -> None:
    from upturn.loop.assemble import assemble

    with pytest.raises(UserError, match="'pixels' reads no text"):
        assemble(recipe.parse(RECIPE, "r", ["captions=empty"]))
    with pytest.raises(UserError, match=r"evaluate\.0\.captions.*reads no text"):
        assemble(recipe.parse(RECIPE, "r", ["evaluate.captions=empty"]))
    points = ["data.name=points", "models.policy={name: points}", "features=points", "captions=empty"]
    with pytest.raises(UserError, match="captions are for images"):
        assemble(recipe.parse(RECIPE, "r", points))
    with pytest.raises(UserError, match=r"there is no caption 'emty'.*'empty'"):
        policy = "models.policy={name: text_to_image, config: {}}"
        assemble(recipe.parse(RECIPE, "r", ["captions=emty", policy]))


def test_several_strategies_are_refused_by_a_run_and_survive_the_yaml() -> None:
    from upturn.loop.assemble import assemble
    from upturn.loop.checks.caption_strategy import caption_strategies

    policy = "models.policy={name: text_to_image, config: {}}"
    asked = recipe.parse(RECIPE, "r", ["captions=[empty, {name: fixed, text: x}]", policy])
    assert list(caption_strategies(asked)) == ["empty", "fixed"]
    assert recipe.parse(recipe.to_yaml(asked), "again") == asked
    with pytest.raises(UserError, match=r"2 strategies are a comparison \(empty, fixed\)"):
        assemble(asked)
    twice = recipe.parse(RECIPE, "r", ["captions=[empty, empty]", policy])
    with pytest.raises(UserError, match="two caption strategies are called 'empty'"):
        caption_strategies(twice)
