"""Pictures of a recipe's data, or of a folder, by words or by a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from upturn import seeds
from upturn.config import components
from upturn.config import recipe as recipes
from upturn.config.recipe import Recipe
from upturn.config.schema import Training
from upturn.data import search
from upturn.data.captioning import captioned
from upturn.data.search import Hit
from upturn.embeddings.image_text_encoder import DualEncoder
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.store import files
from upturn.types import Array, Prompt, Samples, concatenate, content_id

NEAR = 0.985  # cosine from which two pictures count as one; not tuned
PLACE = ".search"  # beside the runs: indexes, and encoders that were trained for them
_DUAL = "dual_encoder"
_CONFIG = {"channels": 16}
_SMALL = Training.model_validate({
    "objective": "contrastive", "epochs": 40, "batch_size": 256, "learning_rate": 2e-3, "weight_decay": 0.05,
})
Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """``hits`` are rows of ``samples``; ``hidden`` counts the near-duplicates that stand behind them."""

    samples: Samples
    hits: list[Hit]
    hidden: int
    encoder: str
    notes: tuple[str, ...]

    def name(self, row: int) -> str:
        """The picture's file, or its id."""
        files_of = self.samples.fields.get("file_name")
        return str(self.samples.ids[row] if files_of is None else files_of[row])

    def said(self, row: int) -> str:
        return search.told(self.samples.take([row]))[0]


@dataclass(frozen=True)
class Place:
    """What is searched: a source, with what a recipe says of it."""

    name: str
    data: dict[str, Any]
    source: Source
    recipe: Recipe | None = None


def place(given: str, size: int) -> Place:
    """A recipe (.yaml), a folder of pictures, or a .parquet file. UserError where it is none, or has no pictures."""
    path = Path(given).expanduser()
    recipe = None
    if path.suffix in (".yaml", ".yml"):
        recipe = recipes.load(path)
        data = dict(recipe.data)
    elif path.is_dir():
        data = {"name": "imagefolder", "path": str(path), "size": size}
    elif path.suffix == ".parquet":
        data = {"name": "parquet", "path": str(path)}
    else:
        raise UserError("is no recipe, no folder and no .parquet file", where=given,
                        fix="Give a recipe (.yaml), or a folder of pictures.")
    source: Source = components.make("source", data, f"{given}: data" if recipe else given)
    if source.kind != "image":
        raise UserError(f"its data is {source.kind}", where=given, fix="Search looks for pictures.")
    if source.several_sizes:
        raise UserError("its pictures are of several sizes (buckets), and a search compares those of one", where=given,
                        fix="Search the folder itself: upturn search FOLDER.")
    return Place(recipe.name if recipe else path.stem, data, source, recipe)


def find(
    where: Place, runs: Path, *, text: str | None = None, image: Path | None = None, k: int = 20, near: float = NEAR,
    encoder: str | None = None, say: Say = lambda line: None,
) -> Found:
    """The ``k`` pictures nearest to a text, or to a picture, the best first.

    The encoder is ``encoder`` (a folder, or a name on the hub), or the recipe's dual_encoder (its own weights, or those
    of the recipe's run), or a small one that is trained on these pictures and what the data says of them. Index and
    encoder are kept in ``runs``/.search. Raises UserError before anything is computed where the question is empty.
    """
    if (text is None) == (image is None):
        raise UserError("give words or a picture", where="search", fix="Such as \"french cat\", or --image.")
    if text is not None and not text.strip():
        raise UserError("the words are empty", where="search", fix="Say what to look for.")
    if not 0 < near <= 1:
        raise UserError(f"{near} is no cosine of near-duplicates", where="--near", fix="Give one above 0, at most 1.")
    splits = where.source.load()
    notes = list(splits.notes)
    samples = concatenate([part for part in (splits.train, splits.held_out) if len(part)])
    folder = runs / PLACE / f"{where.name}-{content_id(files.to_json(where.data))[:8]}"
    dual, named = _encoder(where, runs, folder, encoder, samples, say)
    index, note = search.opened(folder / content_id(named)[:8], samples, dual, named)
    notes.append(note)
    if index.approximate:
        notes.append("an inverted file is searched: a few of the nearest may be missed")
    query = dual.pictures(_picture(image, samples))[0] if image is not None else dual.texts([text or ""])[0]
    hits, hidden = index.find(query, k, near)
    return Found(samples, hits, hidden, named, tuple(notes))


def _picture(path: Path, samples: Samples) -> Array:
    """(1, H, W, C) as the pictures of the data are."""
    from upturn.data.images import Pictures

    if not path.expanduser().is_file():
        raise UserError("there is no such picture", where=f"--image {path}", fix="Name an image file.")
    _, height, _, channels = samples.content.shape
    made = Pictures(size=height, channels=channels)
    return made.decode([path.expanduser()], [str(path)])[0]


def _encoder(
    where: Place, runs: Path, folder: Path, given: str | None, samples: Samples, say: Say
) -> tuple[DualEncoder, str]:
    """The encoder, and what it is called."""
    if given is not None:
        local = Path(given).expanduser()
        made = _made({"folder": str(local)} if local.is_dir() else {"hub": given})
        made.open()
        return made, given
    if where.recipe is not None:
        for name, model in where.recipe.models.items():
            found = components.installed("model", model.name)
            if found is not None and found.embeds_images_and_texts:
                return _of_recipe(where.recipe, name, runs)
    trained = folder / f"encoder-{search.source_hash(samples)}"
    if not (trained / "config.json").is_file():
        say(f"no encoder is named: a small one is trained on these {len(samples):,} pictures, once (a minute or two)")
        _train(_worded(where, samples), trained, say)
    made = _made({"folder": str(trained)})
    made.open()
    return made, "a small encoder trained on these pictures"


def _made(fields: dict[str, Any]) -> Any:
    return components.make("model", {"name": _DUAL, **fields}, "--encoder")


def _of_recipe(recipe: Recipe, name: str, runs: Path) -> tuple[DualEncoder, str]:
    model = recipe.models[name]
    weights = runs / recipe.name / "models" / name / "model"
    made: Any = components.make("model", model.spec, f"models.{name}")
    if weights.is_dir():
        made.load(weights)
    elif model.ready:
        made.open()
    else:
        raise UserError(
            f"the model '{name}' of this recipe is not trained yet", where=str(weights),
            fix="Run the recipe first, or name another with --encoder (a folder, or a name on the hub).",
        )
    return made, f"'{name}' of {recipe.name}"


def _worded(where: Place, samples: Samples) -> Samples:
    """Pictures with what the data says of them as text; of a recipe with captions those before it."""
    texts = list(search.told(samples))
    if where.recipe is not None and where.recipe.captions:
        from upturn.types import Splits

        strategy = components.make("caption", where.recipe.captions[0], "captions")
        made = captioned(strategy, Splits(samples, samples.take([])), None, seeds.key(where.recipe.seed, "captions"))
        texts = [", ".join(filter(None, (p.text, own))) for p, own in zip(made.train.prompts, texts, strict=True)]
    prompts = tuple(Prompt(text) for text in texts)
    if not any(texts):
        raise UserError("the data says nothing of its pictures, so no encoder can be trained on it", where=where.name,
                        fix="Name one with --encoder: a folder of CLIP's or SigLIP's kind, or its name on the hub.")
    return replace(samples, prompts=prompts)


def _train(samples: Samples, into: Path, say: Say) -> None:
    from upturn.loop.stages.train import encode_examples
    from upturn.training import trainer
    from upturn.training.feeds import FixedFeed
    from upturn.training.setup import TrainingSetup
    from upturn.types import Mixture

    key = seeds.key("search")
    made = _made({"config": _CONFIG})
    made.build(samples, key)
    objective = components.make("objective", _SMALL.objective, "search")
    examples, _ = encode_examples(made, Mixture(samples, np.ones(len(samples))), objective)
    feed = FixedFeed(examples, _SMALL.batch_size, key)

    def told(step: int, total: int, loss: float) -> None:
        if step % max(1, total // 5) == 0:
            say(f"  {step} of {total} steps, loss {loss:.2f}")

    trainer.train(made, TrainingSetup(
        spec=_SMALL, objective=objective, adapter=components.make("adapter", "full", "search"), feed=feed, key=key,
        where="search", on_step=told,
    ))
    partial = into.with_name(f".{into.name}.tmp")
    files.remove(partial)
    with files.disk_errors(into):
        made.save(partial)
        partial.rename(into)
