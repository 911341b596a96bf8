"""Tests of textual inversion: only new tokens are trained, and plain diffusers gives the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny_pipelines as tiny
from helpers.textual_inversion_cases import (
    SIZE,
    TEXTS,
    Stop,
    assert_same,
    built,
    drawn,
    fresh,
    pictures,
    theirs,
    trained,
)
from upturn.adapters.full import Full
from upturn.adapters.lora import Lora
from upturn.adapters.textual_inversion import TextualInversion
from upturn.config import components
from upturn.errors import UserError
from upturn.models.text_to_image import TextToImage
from upturn.store.checkpoints import tree_hash

pytestmark = pytest.mark.slow

ADAPTER = TextualInversion(tokens={"<cat>": "c"}, vectors=2)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sd15", "sdxl", "flux"])
def test_only_new_rows_are_learned_and_diffusers_draws_the_same_with_them(kind: str, tmp_path: Path) -> None:
    folder = tiny.saved(kind, tmp_path / kind)
    model = built(folder)
    parts = {"denoiser": model.pipeline.denoiser, **model.pipeline.encoders, "vae": model.pipeline.vae}
    before = {(part, name): value.clone() for part, held in parts.items() for name, value in held.named_parameters()}
    first = drawn(model, ["a c", "a dog"])
    began = model.initial_rows("c", 2)
    trained(model, ADAPTER)
    after = {
        (part, name.replace(".base.", ".")): value for part, module in parts.items()
        for name, value in module.named_parameters() if "rows" not in name and "words" not in name
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    for name, row in model.token_rows(model.words[0]).items():
        moved = (row - began[name]).abs().amax(dim=1)
        assert (moved > 1e-4).all(), f"{name}: each vector learns"
    now = drawn(model, ["a <cat>", "a dog"])
    assert torch.equal(now[1], first[1]) and not torch.allclose(now[0], first[0], atol=1e-4)

    model.save(tmp_path / "saved")
    kept = tmp_path / "saved" / "tokens" / "cat"
    assert load_file(kept / "learned_embeds.safetensors")["<cat>"].shape[0] == 2
    pipeline = tiny.opened(tmp_path / "saved")
    pipeline.load_textual_inversion(str(kept), token="<cat>")
    if kind == "sdxl":
        pipeline.load_textual_inversion(
            str(kept), weight_name="learned_embeds_2.safetensors", text_encoder=pipeline.text_encoder_2,
            tokenizer=pipeline.tokenizer_2,
        )
    assert_same(drawn(model, TEXTS), theirs(kind, pipeline, TEXTS, model.frame.shape))
    again = fresh(folder)
    again.load(tmp_path / "saved")
    assert_same(drawn(model, TEXTS), drawn(again, TEXTS))
    again.save(tmp_path / "again")
    assert tree_hash(tmp_path / "saved") == tree_hash(tmp_path / "again")

    again.merge_tokens()  # built into the pipeline, which then needs no other file
    again.save(tmp_path / "merged")
    assert not (tmp_path / "merged" / "tokens").exists()
    assert_same(drawn(model, TEXTS), drawn(again, TEXTS))
    assert_same(drawn(model, TEXTS), theirs(kind, tiny.opened(tmp_path / "merged"), TEXTS, model.frame.shape))


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_stopped_and_resumed_it_ends_with_the_same_bytes(config: bool, cache: bool, tmp_path: Path) -> None:
    folder = None if config else tiny.saved("sd15", tmp_path / "sd15")
    built(folder).save(tmp_path / "entry")

    def run(name: str, stop: int = 0) -> str:
        model = fresh(folder)
        model.cache = cache
        model.load(tmp_path / "entry")
        trained(model, ADAPTER, 4, tmp_path / name, stop, save_every=1, ema=0.5)
        model.save(tmp_path / name / "model")
        return tree_hash(tmp_path / name / "model")

    whole = run("whole")
    with pytest.raises(Stop):
        run("stopped", stop=3)
    assert run("stopped") == whole


def test_the_reference_reads_captions_as_they_were_read(tmp_path: Path) -> None:
    model = built(tiny.saved("sd15", tmp_path / "sd15"))
    batch = model.encode(pictures())
    draw = model.draw(batch, 4, 0)
    ADAPTER.attach(model, 2, 1)
    reference = ADAPTER.reference(model)
    with torch.no_grad():
        before = model.forward(batch, draw).log_probs
        for row in ADAPTER.parameters(model):
            row.add_(1.0)
        now = model.forward(batch, draw).log_probs
        assert torch.equal(reference.forward(batch, draw).log_probs, before)
        assert torch.equal(model.forward(batch, draw).log_probs, now) and not torch.equal(now, before)


def test_the_stages_after_it_keep_the_tokens(tmp_path: Path) -> None:
    """A LoRA, then full training: both keep the rows unchanged and sample with them."""
    folder = tiny.saved("sd15", tmp_path / "sd15")
    model = trained(built(folder), ADAPTER)
    rows = {name: row.detach().clone() for name, row in model.token_rows(model.words[0]).items()}
    trained(model, Lora(rank=2, modules=["to_q", "to_v"]))
    trained(model, Full())
    assert all(torch.equal(row, rows[name]) for name, row in model.token_rows(model.words[0]).items())
    ours = drawn(model, TEXTS)
    model.save(tmp_path / "saved")
    again = fresh(folder)
    again.load(tmp_path / "saved")
    assert_same(ours, drawn(again, TEXTS))
    with pytest.raises(UserError, match="has 2 vectors, and this stage requests 3"):
        TextualInversion(tokens={"<cat>": "c"}, vectors=3).attach(again, 1, 1)


def test_what_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    for kind, name in (("sd3", "StableDiffusion3Pipeline"), ("pixart", "PixArtAlphaPipeline")):
        model = TextToImage(folder=str(tiny.saved(kind, tmp_path / kind)), size=SIZE)
        assert ADAPTER.refuses(model) == f"{name} has no text encoder that learns new tokens"  # when a recipe is read
    model = built(tiny.saved("sd15", tmp_path / "sd15"))
    model.encode(pictures())
    for tokens, said in (
        ({"<dog>": "d"}, "no caption contains <dog>"), ({"<cat>": "cat"}, "3 tokens to the text_encoder"),
        ({"a": "c"}, "is a word of the text_encoder already"),
    ):
        with pytest.raises(UserError, match=said):
            TextualInversion(tokens=tokens, vectors=2).attach(model, 1, 1)
    for tokens, said in (
        ({"a b": "c"}, "no space"), ({"<c": "c", "<c>": "c"}, "taken for each other"), ({}, "one token"),
    ):
        with pytest.raises(UserError, match=said):
            components.make("adapter", {"name": "textual_inversion", "tokens": tokens})
