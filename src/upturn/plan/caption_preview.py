"""A preview of captions as a run will have them: pairs of image and caption, and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn import seeds
from upturn.config.recipe import Recipe
from upturn.data.caption_fields import place
from upturn.data.caption_statistics import CaptionReader, Statistics, all_captions, statistics
from upturn.data.captioning import captioned
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.loop.checks.caption_strategy import caption_strategies, refuse_captions
from upturn.loop.stages.load import SHARED, caption_key
from upturn.protocols import FromFiles
from upturn.types import Array, Splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from upturn.protocols import Policy

PLAIN = "the data's own"  # the name displayed where the recipe has no captions


@dataclass(frozen=True)
class Pair:
    """One image (H, W, C) uint8, its name, its class ("" for none) and its captions."""

    picture: Array
    name: str
    group: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """One strategy: some pairs, and statistics over the training part."""

    name: str
    pairs: tuple[Pair, ...]
    statistics: Statistics
    notes: tuple[str, ...]


def previews(recipe: Recipe, runs: Path, count: int = 20) -> tuple[list[str], list[Preview]]:
    """Notes on the data, and each strategy that the recipe names on the same ``count`` images of the training split.

    What a captioning model writes is kept beside the runs, and a run takes it over. Raises UserError for whatever
    ``upturn run`` would refuse, but for several strategies, which are what this is for.
    """
    parts = assemble(recipe.model_copy(update={"captions": recipe.captions[:1]}))
    policy: Any = parts.model("policy")
    refuse_captions(recipe, parts.source, policy, "captions")
    splits = parts.source.load()
    empty = Splits(splits.train, splits.held_out, splits.classes)
    strategies = caption_strategies(recipe)
    worded: Mapping[str, Splits] = {
        name: captioned(strategy, empty, runs / SHARED, caption_key(parts)) for name, strategy in strategies.items()
    } or {PLAIN: empty}
    rng = seeds.generator(seeds.key(recipe.seed, "captions", "shown"))
    rows = np.sort(rng.permutation(len(splits.train))[:count])
    return list(splits.notes), [_preview(name, found, rows, policy) for name, found in worded.items()]


def _preview(name: str, splits: Splits, rows: Array, policy: Policy) -> Preview:
    train = splits.train
    texts = all_captions(train)
    labels = train.labels
    pairs = tuple(
        Pair(train.content[row], place(train, row), splits.classes[labels[row]] if labels[row] >= 0 else "", texts[row])
        for row in rows.tolist()
    )
    readers, notes = _readers(policy, splits)
    return Preview(name, pairs, statistics(train, readers), (*splits.notes, *notes))


def _readers(policy: Policy, splits: Splits) -> tuple[list[CaptionReader], list[str]]:
    """The policy's tokenizers, where they can be had without its weights; a model from nothing makes its own."""
    place: str | Path | None = None
    if isinstance(policy, FromFiles):
        if policy.folder is None and policy.config is not None:
            return _built_readers(policy, splits), []
        place = policy.folder if policy.folder is not None else _cached(str(policy.hub))
    folders = sorted(Path(place).glob("tokenizer*")) if place is not None else []
    if not folders:
        return [], ["no tokenizer is at hand: lengths in tokens, and what is cut, are not known before the model is"]
    from transformers import AutoTokenizer

    readers = []
    for folder in folders:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"this tokenizer cannot be read: {str(error).splitlines()[0]}", where=str(folder), fix="Mend the files."
            ) from error
        readers.append(_reader(folder.name, tokenizer))
    return readers, []


def _built_readers(policy: Any, splits: Splits) -> list[CaptionReader]:
    policy.build(splits.train, 0)
    return [_reader(str(name).replace("text_encoder", "tokenizer"), tokenizer)
            for name, tokenizer in policy.pipeline.tokenizers.items()]


def _cached(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def _reader(name: str, tokenizer: PreTrainedTokenizerBase) -> CaptionReader:
    def lengths(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    return CaptionReader(name, int(tokenizer.model_max_length), lengths)
