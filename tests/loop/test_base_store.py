"""Tests that a base from files is stored once for all runs, stages and rounds, and that a run stays whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from helpers.small_recipes import small
from helpers.text_recipes import TEXT
from helpers.tiny_language_models import LLAMA, built, worked
from upturn.adapters.lora import Lora
from upturn.config.recipe import Recipe
from upturn.errors import UserError
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_text import RewardText
from upturn.store import bases
from upturn.store.files import tree_hash
from upturn.store.new_run import IDENTITY
from upturn.store.run import Run
from upturn.store.weights import link_equal

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
ADAPTED = "adapter: {name: lora, rank: 2}, steps: 3"
WIDE = {**LLAMA, "hidden_size": 64, "head_dim": 16, "intermediate_size": 512, "tie_word_embeddings": True}


def recipe(folder: Path, name: str) -> Recipe:
    given = TEXT.replace("name: text\n", f"name: {name}\n")
    config = given[given.index("    config:"):given.index("    max_length")]
    given = given.replace(config, f"    folder: {folder}\n").replace("steps: 30", ADAPTED)
    return small(given.replace("train: {steps: 5", "train: {" + ADAPTED))


def bytes_of(folder: Path) -> int:
    """Every file once, whatever its number of names."""
    found = {(s.st_dev, s.st_ino): s.st_size for s in (p.stat() for p in folder.rglob("*") if p.is_file())}
    return sum(found.values())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a folder, larger than the adapters of a run."""
    folder = tmp_path_factory.mktemp("base") / "model"
    built(WIDE).save(folder)
    return folder


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that start from one folder."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        loop.run(recipe(base, name), folder)
    return folder


@pytest.mark.long
def test_two_runs_store_their_base_once(runs: Path, base: Path) -> None:
    held = sorted((runs / bases.FOLDER).iterdir())
    assert len(held) == 1 and held[0].stat().st_size == (base / WEIGHTS).stat().st_size
    models = [path for path in runs.glob(f"*/rounds/**/{WEIGHTS}") if path.parent.name == "model"]
    assert len(models) == 8 and all(path.samefile(held[0]) for path in models)
    assert not held[0].samefile(base / WEIGHTS)  # the user may write into that
    assert bytes_of(runs) < 2 * held[0].stat().st_size
    for name in ("first", "second"):
        assert Run.open(runs / name).verify().intact


@pytest.mark.long
def test_a_run_without_the_store_or_the_folder_is_whole(runs: Path, base: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / "first"
    shutil.copytree(runs / "first", copied)
    run = Run.open(copied)
    assert run.verify().intact and not (copied.parent / bases.FOLDER).exists()
    model = CausalLm(folder="gone")
    model.load(run.model_folder("rounds/001"))
    theirs = CausalLm(folder=str(base))
    theirs.load(runs / "first" / "rounds" / "001" / "model")
    batch = model.encode(worked(4))
    batch = batch.take(torch.arange(len(batch)))
    with torch.no_grad():
        torch.testing.assert_close(model.forward(batch, None).log_probs, theirs.forward(batch, None).log_probs)


def test_a_missing_or_changed_base_is_one_message(runs: Path, tmp_path: Path) -> None:
    copied = tmp_path / "first"
    shutil.copytree(runs / "first", copied)
    path = copied / "rounds" / "001" / "model" / WEIGHTS
    path.unlink()
    assert [damage.unit for damage in Run.open(copied).verify().damage] == ["rounds/001"]
    with pytest.raises(UserError, match="cannot be read"):
        CausalLm(folder="gone").load(path.parent)


def test_a_base_that_no_run_links_is_removed(runs: Path, base: Path, tmp_path: Path) -> None:
    loop.run(recipe(base, "only"), tmp_path)
    (stored,) = (tmp_path / bases.FOLDER).iterdir()
    own = tmp_path / bases.FOLDER / "model.safetensors"
    own.write_bytes(b"the user's")
    left = stored.with_name(f".{stored.name}.12345")  # of a process that was killed while it stored one
    left.write_bytes(b"a draft")
    assert bases.sweep(tmp_path) == [left]
    shutil.rmtree(tmp_path / "only")
    assert bases.sweep(tmp_path) == [stored] and not stored.exists() and own.exists()


def test_a_damaged_entry_of_the_store_is_replaced(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / IDENTITY).write_text("{}")
    model = CausalLm(folder=str(base))
    model.build(worked(), 1)
    model.save(tmp_path / "a" / "model")
    (stored,) = (tmp_path / bases.FOLDER).iterdir()
    stored.write_bytes(stored.read_bytes()[:-8] + b"\x01" * 8)  # and with it the first model's
    model.save(tmp_path / "a" / "next")
    assert tree_hash(tmp_path / "a" / "next") != tree_hash(tmp_path / "a" / "model")
    assert stored.samefile(tmp_path / "a" / "next" / WEIGHTS)
    model.save(tmp_path / "export")  # outside of a run: a file of its own
    assert (tmp_path / "export" / WEIGHTS).stat().st_nlink == 1
    assert tree_hash(tmp_path / "export") == tree_hash(tmp_path / "a" / "next")


def test_a_reward_model_with_an_adapter_has_its_base_apart_from_its_head(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / IDENTITY).write_text("{}")
    model = RewardText(folder=str(base))
    model.build(worked(), 1)
    Lora(rank=2).attach(model, 3, 5)
    model.save(tmp_path / "a" / "before")
    with torch.no_grad():
        model.module.score.weight.add_(1.0)
    model.save(tmp_path / "a" / "after")
    (stored,) = (tmp_path / bases.FOLDER).iterdir()
    first, second = (sorted((tmp_path / "a" / n).glob("*.safetensors")) for n in ("before", "after"))
    assert len(first) == len(second) == 2
    assert first[0].samefile(stored) and second[0].samefile(stored) and not first[1].samefile(second[1])
    again = RewardText(folder="gone")
    again.load(tmp_path / "a" / "after")
    again.save(tmp_path / "a" / "again")
    assert tree_hash(tmp_path / "a" / "again") == tree_hash(tmp_path / "a" / "after")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "a" / "after", dtype=torch.float32)
    assert torch.equal(theirs.score.weight, model.module.score.weight)


def test_a_folder_of_a_run_starts_with_its_adapters_on(runs: Path) -> None:
    folder = runs / "first" / "rounds" / "001" / "model"
    saved, started = CausalLm(folder="gone"), CausalLm(folder=str(folder))
    saved.load(folder)
    started.build(worked(), 1)
    batch = saved.encode(worked(4))
    batch = batch.take(torch.arange(len(batch)))
    with torch.no_grad():
        ours, theirs = (model.forward(batch, None).log_probs for model in (started, saved))
    torch.testing.assert_close(ours, theirs)


def test_equal_files_are_linked_and_others_left(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "equal").write_bytes(b"a" * 40_000)
        (tmp_path / name / "other").write_bytes(name.encode() * 20_000)
        (tmp_path / name / "small").write_bytes(b"b")
    link_equal(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new/inner/equal").samefile(tmp_path / "old/inner/equal")
    assert (tmp_path / "new/other").read_bytes() == b"new" * 20_000
    assert not (tmp_path / "new/small").samefile(tmp_path / "old/small")
