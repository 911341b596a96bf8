"""Tests of the cache of latents and text encodings on the disk: hits, stale entries, damage and notes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_pipelines as tiny
from helpers.child_process import CONTEXT
from helpers.shard_processes import THREE, fills, killed, rows
from upturn import seeds
from upturn.adapters.textual_inversion import TextualInversion
from upturn.config import components
from upturn.config.recipe import parse
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop import loop
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.latents import Latents
from upturn.models.text_to_image import TextToImage
from upturn.store import shards
from upturn.store.checkpoints import tree_hash
from upturn.store.shards import Shards
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Prompt, Samples, Stacks, real_samples

pytestmark = pytest.mark.slow

SIZE = 16
TEXTS = ["a red cat", "a blue dog", "the ugly house"]


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved("sd15", tmp_path_factory.mktemp("sd15") / "sd15")


@pytest.fixture
def encoded_counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images went through the autoencoder, and how many captions through text encoders."""
    counts = {"pictures": 0, "captions": 0}
    moments = Latents._moments

    def counted(self: Latents, x: torch.Tensor) -> torch.Tensor:
        counts["pictures"] += len(x)
        return moments(self, x)

    monkeypatch.setattr(Latents, "_moments", counted)
    for cls in _families(Family):
        if "read" in vars(cls) and cls is not Family:
            monkeypatch.setattr(cls, "read", _counting(cls.read, counts))
    return counts


def _families(cls: type) -> Iterator[type[Any]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _families(below)


def _counting(read: Any, counts: dict[str, int]) -> Any:
    def counted(self: Family, name: str, encoder: torch.nn.Module, tokens: Any) -> Any:
        counts["captions"] += len(tokens["ids"])
        return read(self, name, encoder, tokens)

    return counted


def pictures(n: int = 6, size: int = SIZE, texts: Sequence[str] = TEXTS) -> Samples:
    raw = seeds.table_uniform(2, 0, n, (size, size, 3)).numpy()
    return real_samples("image", (raw * 255).astype(np.uint8), [Prompt(texts[i % len(texts)]) for i in range(n)], "toy")


def built(folder: Path, cache: bool | str | Path, size: int = SIZE, **fields: Any) -> TextToImage:
    model = TextToImage(
        folder=str(folder), size=size, cache=cache if isinstance(cache, bool) else str(cache), **fields
    )
    model.build(pictures(size=size), key=1)
    return model


def read(model: TextToImage, examples: Samples) -> dict[str, torch.Tensor]:
    """All that the denoiser is given of these examples."""
    batch = model.encode(examples)
    every = batch.take(torch.arange(len(batch)))
    return {"x": every["x"], **model.captions.rows(every["captions"][:, 0])[0]}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# What is there is read.


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3_with_t5", "flux", "pixart"])
def test_a_cached_output_is_read_bit_for_bit(kind: str, tmp_path: Path, encoded_counts: dict[str, int]) -> None:
    folder, cache = tiny.saved(kind, tmp_path / kind), tmp_path / "cache"
    plain = read(built(folder, True), pictures())
    first = built(folder, cache)
    assert same(read(first, pictures()), plain)
    assert not any("were in" in note for note in first.notes)
    encoders, before = len(first.captions.frozen), dict(encoded_counts)
    again = built(folder, cache)
    assert same(read(again, pictures()), plain) and encoded_counts == before
    assert any(note == f"6 of 6 latents were in {cache}" for note in again.notes)
    assert sum("of the text_encoder" in note for note in again.notes) == encoders
    assert isinstance(again.encode(pictures()).columns["x"], Stacks)
    # six new images and a caption are added: only these are encoded, one at a time
    more = read(again, pictures(12, texts=[*TEXTS, "a cat of blue"]))
    assert torch.equal(more["x"][:6], plain["x"])
    assert encoded_counts == {"pictures": before["pictures"] + 6, "captions": before["captions"] + encoders}
    assert any(note.startswith("6 of 12 latents") for note in again.notes)


RECIPE = """
name: cached
threads: 1
data: {{name: imagefolder, path: {data}, caption: text, size: 16}}
models: {{policy: {{name: text_to_image, folder: {folder}, size: 16, cache: {cache}}}}}
features: pixels
stages:
  - {{name: tune, steps: 4, batch_size: 4, ema: 0.9}}
  - {{name: adapt, steps: 3, batch_size: 4, adapter: {{name: lora, rank: 2, modules: [to_q]}}}}
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 1, settings: {{steps: 2, guidance: 2.0}}}}
  train: {{steps: 2, batch_size: 4, adapter: {{name: lora, rank: 2, modules: [to_q]}}}}
evaluate: {{prompts: 2, metrics: [held_out_loss], settings: {{steps: 2}}}}
grid: {{prompts: 1, per_prompt: 1}}
"""


@pytest.mark.long
def test_a_run_ends_with_the_same_bytes_with_a_cache_and_without(
    sd15: Path, tmp_path: Path, encoded_counts: dict[str, int]
) -> None:
    """Stages, rounds and a second run read what the first one cached: the weights are those of no cache on the disk."""
    import json

    data = tmp_path / "data"
    data.mkdir()
    lines = []
    for i, picture in enumerate(pictures(14).content):
        Image.fromarray(picture).save(data / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": TEXTS[i % 3]}))
    (data / "metadata.jsonl").write_text("\n".join(lines))
    cache, spent = tmp_path / "cache", []
    models = []
    for runs, kept in (("plain", "true"), ("first", str(cache)), ("second", str(cache))):
        before = dict(encoded_counts)
        run = loop.run(parse(RECIPE.format(data=data, folder=sd15, cache=kept), "cached.yaml"), tmp_path / runs)
        spent.append({name: encoded_counts[name] - before[name] for name in encoded_counts})
        models.append({unit: tree_hash(run.model_folder(f"rounds/{unit}"))
                       for unit in ("000/tune", "000/adapt", "001")})
    assert models[0] == models[1] == models[2] and len(set(models[0].values())) == 3
    assert spent[0]["pictures"] > spent[1]["pictures"] >= 14 and spent[2] == {"pictures": 0, "captions": 0}


def test_new_tokens_are_never_kept(sd15: Path, tmp_path: Path) -> None:
    """Textual inversion: the same bytes with a cache and without, and no caption with a new token in the folder."""
    texts = ["a <cat>", "a red dog", "the <cat> house"]
    hashes = []
    for kept in (True, tmp_path / "cache"):
        model = built(sd15, kept)
        feed = FixedFeed(model.encode(pictures(texts=texts)).with_given(weights=torch.ones(6)), 3, 3)
        trainer.train(model, TrainingSetup(
            spec=Training(steps=3, batch_size=3, learning_rate=1e-2),
            adapter=TextualInversion(tokens={"<cat>": "c"}, vectors=2), feed=feed, key=5, where="test",
            objective=components.make("objective", "likelihood"),
        ))
        model.save(tmp_path / f"saved-{len(hashes)}")
        hashes.append(tree_hash(tmp_path / f"saved-{len(hashes)}"))
    assert hashes[0] == hashes[1]
    # read again with the token known: captions without it are there, those with it are encoded again
    again = TextToImage(folder=str(sd15), size=SIZE, cache=str(tmp_path / "cache"))
    again.load(tmp_path / "saved-1")
    plain = TextToImage(folder=str(sd15), size=SIZE)
    plain.load(tmp_path / "saved-1")
    keys = again.captions.keys(texts)
    assert torch.equal(plain.captions.keys(texts), keys)
    for name, value in plain.captions.rows(keys)[0].items():
        assert torch.equal(value, again.captions.rows(keys)[0][name])
    held = [row for path in (tmp_path / "cache").rglob("*.safetensors") if path.parent.name.startswith("text_encoder")
            for row in shards._header(path)[0]]
    told = again.disk_cache.take_notes()
    assert len(set(held)) == 4  # before there was a token: no caption, and three whose "<cat>" was letters
    asked_of = f"3 of 3 readings of the text_encoder were in {tmp_path / 'cache'}"
    assert told == [asked_of], "no caption, before and after there is a token, and the dog's"


# What is not the same is never read.


def changed_weights(folder: Path, target: Path, part: str) -> Path:
    """The pipeline with one number of a component's weights moved."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    path = next((target / part).glob("*.safetensors"))
    weights = load_file(path)
    name = next(n for n in sorted(weights) if n.endswith(("encoder.conv_in.weight", "final_layer_norm.weight")))
    weights[name] = weights[name] + 0.25
    save_file(weights, path, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(("part", "what"), [
    ("vae", "6 latents in {cache} are of another autoencoder: computed again"),
    ("text_encoder", "4 readings of the text_encoder in {cache} are of another text encoder: computed again"),
])
def test_other_weights_are_noted_and_computed_again(part: str, what: str, sd15: Path, tmp_path: Path) -> None:
    cache, moved = tmp_path / "cache", changed_weights(sd15, tmp_path / "moved", part)
    old = read(built(sd15, cache), pictures())
    model = built(moved, cache)
    new = read(model, pictures())
    assert same(new, read(built(moved, True), pictures())) and not same(new, old)
    assert what.format(cache=cache) in model.notes, model.notes
    assert same(read(built(sd15, cache), pictures()), old), "what the first one said is still there"


def test_another_size_is_noted_and_computed_again(sd15: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    read(built(sd15, cache), pictures())
    large = built(sd15, cache, size=32)
    assert same(read(large, pictures(size=32)), read(built(sd15, True, size=32), pictures(size=32)))
    assert f"6 latents in {cache} are of another size (16x16): computed again" in large.notes
    large.encode(pictures(4, size=32))
    assert large.notes[-1] == f"4 of 4 latents were in {cache}" and not any("of another" in n for n in large.notes)


def test_other_settings_of_the_autoencoder_are_another_autoencoder(sd15: Path, tmp_path: Path) -> None:
    import json
    import shutil

    cache, moved = tmp_path / "cache", tmp_path / "moved"
    shutil.copytree(sd15, moved)
    config = moved / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.5}))
    read(built(sd15, cache), pictures())
    model = built(moved, cache)
    assert same(read(model, pictures()), read(built(moved, True), pictures()))
    assert f"6 latents in {cache} are of another autoencoder and scaling: computed again" in model.notes


def test_weights_that_change_in_the_process_are_seen(sd15: Path, tmp_path: Path) -> None:
    cached, plain = built(sd15, tmp_path / "cache"), built(sd15, True)
    before = read(cached, pictures())
    for model in (cached, plain):
        with torch.no_grad():
            model.pipeline.vae.encoder.conv_in.weight.mul_(1.5)
            next(iter(model.captions.frozen["text_encoder"].parameters())).mul_(1.5)
    after = read(cached, pictures())
    assert same(after, read(plain, pictures())) and not same(after, before)


# Files.


def never(places: Sequence[int]) -> Iterator[shards.Row]:
    raise AssertionError(f"asked for {places}")


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "foreign"])
def test_a_damaged_file_is_removed_and_never_read(damage: str, sd15: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = read(built(sd15, cache), pictures())
    path = next(cache.glob("latents-*/*.safetensors"))
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "flipped":
        raw[-5] ^= 1  # a number, plausible as before
    elif damage == "header":
        raw[3:9] = b"\xff" * 6
    else:
        raw = bytearray(b"no tensors at all")
    path.write_bytes(raw)
    model = built(sd15, cache)
    assert same(read(model, pictures()), whole)
    assert f"1 damaged file of latents in {cache} removed: the contents are computed again" in model.notes
    assert same(read(built(sd15, cache), pictures()), whole)


@pytest.mark.long
@pytest.mark.parametrize(("boundary", "there"), [("shard:written", False), ("shard:after-rename", True)])
def test_a_kill_while_writing_leaves_all_or_nothing(boundary: str, there: bool, tmp_path: Path) -> None:
    process = CONTEXT.Process(target=killed, args=(str(tmp_path), boundary))
    process.start()
    process.join()
    assert process.exitcode == -9
    after = Shards(tmp_path, "rows", {"by": "x"})
    left = list(after.folder.glob(".*.tmp"))
    assert len(left) == (not there) and after.missing(THREE) == ([] if there else [0, 1, 2]) and not after.damaged
    assert after.filled(THREE, never if there else rows)["x"][torch.tensor([2, 0])].tolist() == [[2.0] * 3, [0.0] * 3]
    for draft in left:  # its process is long dead
        os.utime(draft, (time.time() - 7200,) * 2)
    after.add(["d"], list(rows([3])))
    assert not list(after.folder.glob(".*.tmp"))


def test_several_processes_read_and_write_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = CONTEXT.Queue()
    several = [CONTEXT.Process(target=fills, args=(str(tmp_path), first, out)) for first in (0, 20, 0)]
    for process in several:
        process.start()
    found = [out.get(timeout=240) for _ in several]
    for process in several:
        process.join()
    wanted = [[float(i) for i in range(first, first + 40)] for first in (0, 20, 0)]
    assert sorted(found) == sorted(wanted)
    assert Shards(tmp_path, "rows", {"by": "x"}).missing([f"key-{i}" for i in range(60)]) == []


def test_rows_are_written_as_they_come_so_that_a_kill_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_BYTES", 3 * 3 * 4)

    def some(places: Sequence[int]) -> Iterator[shards.Row]:
        for place in places:
            if place == 7:
                raise KeyboardInterrupt
            yield from rows([place])

    keys = [f"key-{i}" for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, "rows", {"by": "x"}).filled(keys, some)
    after = Shards(tmp_path, "rows", {"by": "x"})
    assert after.missing([*keys, *keys]) == [6, 7, 8, 9]
    found = after.filled(keys, rows)["x"]
    assert len(found.parts) == 4 and found[torch.arange(10)][:, 0].tolist() == list(map(float, range(10)))


def test_cached_tensors_are_memory_mapped(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "rows", {"by": "x"})
    shards.add(["big"], [{"x": torch.ones(1, 1 << 22)}])
    part = Shards(tmp_path, "rows", {"by": "x"}).filled(["big"], never)["x"].parts[0]
    maps = Path("/proc/self/maps").read_text().splitlines() if Path("/proc/self/maps").exists() else None
    if maps is None:
        pytest.skip("this system does not say what is mapped")
    at = next(line for line in maps if str(shards.folder) in line)
    low, high = (int(side, 16) for side in re.match(r"(\w+)-(\w+)", at).groups())
    assert low <= part.data_ptr() < high


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, sd15: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache in (str(tmp_path / "file"), ""):
        with pytest.raises(UserError, match="true, false or a folder is expected"):
            components.make("model", {"name": "text_to_image", "folder": str(sd15), "cache": cache})


# Rows of several tensors.


def test_stacks_are_their_rows() -> None:
    a, b, c = torch.arange(6).reshape(3, 2), 10 + torch.arange(4).reshape(2, 2), torch.ones(2, 3)
    stacks = Stacks.joined([Stacks.of(a), Stacks.of(b)], torch.tensor([4, 0, 2, 3, 1]))
    assert stacks[torch.tensor([0, 1, 4])].tolist() == [[12, 13], [0, 1], [2, 3]]
    assert stacks.gathered(torch.tensor([3, 3]))[torch.tensor([0, 1])].tolist() == [[10, 11]] * 2
    mixed = Stacks.joined([stacks, Stacks.of(c)])
    assert mixed.shapes.tolist() == [0] * 5 + [2] * 2
    assert mixed[torch.tensor([6, 5])].shape == (2, 3)
    with pytest.raises(ValueError, match="several shapes"):
        mixed[torch.tensor([0, 6])]


@pytest.mark.long
def test_start_up_cost_with_and_without_a_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the seconds of processor time (docs/benchmarks.md has them); the test checks what was encoded."""
    folder = tiny.saved("sd15", tmp_path / "sd15")
    examples = pictures(64, 128)
    spent = {}
    for name, cache in (("without", True), ("made", tmp_path / "cache"), ("read", tmp_path / "cache")):
        model = built(folder, cache, size=128)
        began = time.process_time()
        batch = model.encode(examples)
        first = batch.take(torch.arange(8))["x"]
        spent[name] = time.process_time() - began, first
    assert all(torch.equal(first, spent["without"][1]) for _, first in spent.values())
    with capsys.disabled():
        for name, (seconds, _) in spent.items():
            print(f"\nFIGURE encoding 64 pictures of 128 pixels, cache {name}: {seconds:.2f} s", end="")
