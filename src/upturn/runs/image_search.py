"""Search in the images of a recipe's data, or of a directory, by text or by an image."""

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
from upturn.embeddings.image_text_encoder import ImageTextEncoder
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.store import files
from upturn.types import Array, Prompt, Samples, concatenate, content_id

NEAR = 0.985  # cosine from which two images count as duplicates; not tuned
PLACE = ".search"  # directory among the runs: indexes, and encoders that were trained for them
_DUAL = "dual_encoder"
_CONFIG = {"channels": 16}
_SMALL = Training.model_validate({
    "objective": "contrastive", "epochs": 40, "batch_size": 256, "learning_rate": 2e-3, "weight_decay": 0.05,
})
Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """``hits`` are rows of ``samples``; ``hidden`` counts their near-duplicates, which are left out."""

    samples: Samples
    hits: list[Hit]
    hidden: int
    encoder: str
    notes: tuple[str, ...]

    def name(self, row: int) -> str:
        """The image's file name, or its id."""
        files_of = self.samples.fields.get("file_name")
        return str(self.samples.ids[row] if files_of is None else files_of[row])

    def text(self, row: int) -> str:
        """The image's text in the data."""
        return search.described(self.samples.take([row]))[0]


@dataclass(frozen=True)
class SearchScope:
    """The source that is searched, with the data part of its recipe."""

    name: str
    data: dict[str, Any]
    source: Source
    recipe: Recipe | None = None


def scope(given: str, size: int) -> SearchScope:
    """Of a recipe (.yaml), a directory of images, or a .parquet file. UserError if it is none, or has no images."""
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
        raise UserError("is not a recipe, a directory or a .parquet file", where=given,
                        fix="Give a recipe (.yaml), or a directory of images.")
    source: Source = components.make("source", data, f"{given}: data" if recipe else given)
    if source.kind != "image":
        raise UserError(f"its data is {source.kind}", where=given, fix="Search needs images.")
    if source.several_sizes:
        raise UserError("its images have several sizes (buckets), and a search needs images of one size", where=given,
                        fix="Search the directory itself: upturn search DIRECTORY.")
    return SearchScope(recipe.name if recipe else path.stem, data, source, recipe)


def find(
    where: SearchScope, runs: Path, *, text: str | None = None, image: Path | None = None, k: int = 20,
    near: float = NEAR, encoder: str | None = None, say: Say = lambda line: None,
) -> Found:
    """The ``k`` images nearest to a text, or to an image, nearest first.

    The encoder is ``encoder`` (a directory, or a name on the hub), or the recipe's dual_encoder (its own weights, or
    those of the recipe's run), or a small one that is trained on these images and their texts. Index and encoder are
    stored in ``runs``/.search. Raises UserError before any computation if the query is empty.
    """
    if (text is None) == (image is None):
        raise UserError("give a text or an image", where="search", fix="Such as \"french cat\", or --image.")
    if text is not None and not text.strip():
        raise UserError("the text is empty", where="search", fix="Describe what to look for.")
    if not 0 < near <= 1:
        raise UserError(f"{near} is not a cosine of near-duplicates", where="--near", fix="Give one in (0, 1].")
    splits = where.source.load()
    notes = list(splits.notes)
    samples = concatenate([part for part in (splits.train, splits.held_out) if len(part)])
    folder = runs / PLACE / f"{where.name}-{content_id(files.to_json(where.data))[:8]}"
    dual, named = _encoder(where, runs, folder, encoder, samples, say)
    index, note = search.opened(folder / content_id(named)[:8], samples, dual, named)
    notes.append(note)
    if index.approximate:
        notes.append("the index is approximate (inverted file): it may miss a few of the nearest images")
    query = dual.images(_query_image(image, samples))[0] if image is not None else dual.texts([text or ""])[0]
    hits, hidden = index.find(query, k, near)
    return Found(samples, hits, hidden, named, tuple(notes))


def _query_image(path: Path, samples: Samples) -> Array:
    """(1, H, W, C) in the size and channels of the data's images."""
    from upturn.data.images import ImageOptions

    if not path.expanduser().is_file():
        raise UserError("there is no such image", where=f"--image {path}", fix="Name an image file.")
    _, height, _, channels = samples.content.shape
    decoder = ImageOptions(size=height, channels=channels)
    return decoder.decode([path.expanduser()], [str(path)])[0]


def _encoder(
    where: SearchScope, runs: Path, folder: Path, given: str | None, samples: Samples, say: Say
) -> tuple[ImageTextEncoder, str]:
    """The encoder and its name for display."""
    if given is not None:
        local = Path(given).expanduser()
        dual = _loaded({"folder": str(local)} if local.is_dir() else {"hub": given})
        dual.open()
        return dual, given
    if where.recipe is not None:
        for name, model in where.recipe.models.items():
            found = components.installed("model", model.name)
            if found is not None and found.embeds_images_and_texts:
                return _of_recipe(where.recipe, name, runs)
    trained = folder / f"encoder-{search.source_hash(samples)}"
    if not (trained / "config.json").is_file():
        say(f"no encoder is given: training a small one on these {len(samples):,} images, once (a minute or two)")
        _train(_worded(where, samples), trained, say)
    dual = _loaded({"folder": str(trained)})
    dual.open()
    return dual, "a small encoder trained on these images"


def _loaded(fields: dict[str, Any]) -> Any:
    return components.make("model", {"name": _DUAL, **fields}, "--encoder")


def _of_recipe(recipe: Recipe, name: str, runs: Path) -> tuple[ImageTextEncoder, str]:
    model = recipe.models[name]
    weights = runs / recipe.name / "models" / name / "model"
    dual: Any = components.make("model", model.spec, f"models.{name}")
    if weights.is_dir():
        dual.load(weights)
    elif model.ready:
        dual.open()
    else:
        raise UserError(
            f"the model '{name}' of this recipe is not trained yet", where=str(weights),
            fix="Run the recipe first, or name another with --encoder (a directory, or a name on the hub).",
        )
    return dual, f"'{name}' of {recipe.name}"


def _worded(where: SearchScope, samples: Samples) -> Samples:
    """Images with their text in the data; with the captions of the recipe, if there are any, before it."""
    texts = list(search.described(samples))
    if where.recipe is not None and where.recipe.captions:
        from upturn.types import Splits

        strategy = components.make("caption", where.recipe.captions[0], "captions")
        key = seeds.key(where.recipe.seed, "captions")
        captions = captioned(strategy, Splits(samples, samples.take([])), None, key)
        texts = [", ".join(filter(None, (p.text, own))) for p, own in zip(captions.train.prompts, texts, strict=True)]
    prompts = tuple(Prompt(text) for text in texts)
    if not any(texts):
        raise UserError("the data has no text about its images, so no encoder can be trained on it", where=where.name,
                        fix="Name one with --encoder: the directory of a CLIP or SigLIP model, or its name on the hub.")
    return replace(samples, prompts=prompts)


def _train(samples: Samples, into: Path, say: Say) -> None:
    from upturn.loop.stages.train import encode_examples
    from upturn.training import trainer
    from upturn.training.feeds import FixedFeed
    from upturn.training.setup import TrainingSetup
    from upturn.types import Mixture

    key = seeds.key("search")
    dual = _loaded({"config": _CONFIG})
    dual.build(samples, key)
    objective = components.make("objective", _SMALL.objective, "search")
    examples, _ = encode_examples(dual, Mixture(samples, np.ones(len(samples))), objective)
    feed = FixedFeed(examples, _SMALL.batch_size, key)

    def report(step: int, total: int, loss: float) -> None:
        if step % max(1, total // 5) == 0:
            say(f"  {step} of {total} steps, loss {loss:.2f}")

    trainer.train(dual, TrainingSetup(
        spec=_SMALL, objective=objective, adapter=components.make("adapter", "full", "search"), feed=feed, key=key,
        where="search", on_step=report,
    ))
    partial = into.with_name(f".{into.name}.tmp")
    files.remove(partial)
    with files.disk_errors(into):
        dual.save(partial)
        partial.rename(into)
