"""Textual inversion of a text-to-image model: its new tokens, their files, and the model with them built in."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upturn.adapter_layers.new_tokens import WORDS, Words, wrapped
from upturn.diffusion.denoiser import bare
from upturn.diffusion.joint import Joint
from upturn.errors import UserError
from upturn.store.files import read_json, to_json

FOLDER, _INDEX = "tokens", "tokens.json"
_DAMAGED = "It is damaged: use another checkpoint."


@dataclass(frozen=True)
class Word:
    """A token and how many vectors it is."""

    token: str
    vectors: int

    @property
    def spelled(self) -> tuple[str, ...]:
        """The tokens of its vectors, as diffusers calls them."""
        return (self.token, *(f"{self.token}_{i}" for i in range(1, self.vectors)))

    @property
    def folder(self) -> str:
        """Of its files: what of the token is a letter, a digit, '-' or '_'."""
        return re.sub(r"[^A-Za-z0-9_-]", "", self.token) or "token"


def learners(model: Any) -> dict[str, Any]:
    """The text encoders that can learn tokens, by name."""
    return {name: model.pipeline.encoders[name] for name in model.pipeline.family.inverts
            if name in model.pipeline.encoders}


def began(model: Any, word: str, vectors: int) -> dict[str, Tensor]:
    """(vectors, width) by encoder: the embeddings of the word's tokens, in turn.

    Raises UserError where the word is more tokens than there are vectors.
    """
    found: dict[str, Tensor] = {}
    for name, encoder in learners(model).items():
        ids = model.pipeline.tokenizers[name](word, add_special_tokens=False)["input_ids"]
        if not 0 < len(ids) <= vectors:
            raise UserError(
                f"'{word}' is {len(ids)} tokens to the {name}, and there are {vectors} vectors to begin with them",
                where="adapter.tokens", fix="Name another word, or raise 'vectors:'.",
            )
        table = encoder.get_input_embeddings().weight.detach()
        found[name] = table[[ids[i % len(ids)] for i in range(vectors)]].clone()
    return found


def add(model: Any, word: Word, rows: Mapping[str, Tensor]) -> None:
    """A new token, its rows frozen. Raises UserError where the tokenizer would not see it as one."""
    for name, encoder in learners(model).items():
        words = _of(encoder, len(model.pipeline.tokenizers[name]))
        words.rows.append(nn.Parameter(rows[name].to(words.weight), requires_grad=False))
    model.words = (*model.words, word)
    _hold(model)
    model.captions.reread(_tokenizers(model), {name: _of(e, 0).first for name, e in learners(model).items()})


def _of(encoder: Any, first: int) -> Words:
    """The encoder's embedding with rows of its own, wrapped now where it was not."""
    embedding = encoder.get_input_embeddings()
    if isinstance(embedding, Words):
        return embedding
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if child is embedding:
                parent._modules[name] = made = Words(embedding, first)
                return made
    raise ValueError("the encoder has no embedding of tokens")


def _hold(model: Any) -> None:
    """Rows of encoders outside the trained module are held by it, too, so that they are trained, saved and resumed."""
    inner: Any = bare(model.module)
    outside = {name: encoder for name, encoder in learners(model).items()
               if not (isinstance(inner, Joint) and name in inner.trained())}
    if outside:
        setattr(inner, WORDS, nn.ModuleDict({name: _of(encoder, 0).rows for name, encoder in outside.items()}))


def _tokenizers(model: Any) -> dict[str, Any]:
    """Copies that know the tokens; the pipeline's own stay as they are."""
    known = dict(model.pipeline.tokenizers)
    for name in learners(model):
        known[name] = made = copy.deepcopy(known[name])
        first = len(made)
        for word in model.words:
            made.add_tokens(list(word.spelled))
        every = [token for word in model.words for token in word.spelled]
        text = "a " + " a ".join(every) + " a"
        ids = [i for i in made(text, add_special_tokens=False, truncation=False)["input_ids"] if i >= first]
        if ids != list(range(first, first + len(every))):
            raise UserError(
                f"the tokenizer does not read {', '.join(word.token for word in model.words)} as new tokens",
                where="adapter.tokens", fix="Take small letters between brackets, such as <my-cat>.",
            )
    return known


def rows(model: Any, word: Word) -> dict[str, nn.Parameter]:
    """The parameter (vectors, width) of a token in each encoder."""
    at = model.words.index(word)
    return {name: _of(encoder, 0).rows[at] for name, encoder in learners(model).items()}


# Files.


def save(model: Any, folder: Path) -> None:
    """tokens/<token>/learned_embeds.safetensors, of a second encoder learned_embeds_2; nothing where there is none."""
    from safetensors.torch import save_file

    for word in model.words:
        at = folder / FOLDER / word.folder
        at.mkdir(parents=True, exist_ok=True)
        for name, row in rows(model, word).items():
            save_file({word.token: row.detach().cpu().contiguous()}, at / _file(name), metadata={"format": "pt"})
    if model.words:
        said = [{"token": word.token, "vectors": word.vectors} for word in model.words]
        (folder / FOLDER / _INDEX).write_text(to_json(said), encoding="utf-8")


def _file(encoder: str) -> str:
    """diffusers' own name for it; that of its example for SDXL where there are two."""
    return f"learned_embeds{encoder.removeprefix('text_encoder')}.safetensors"


def load(model: Any, folder: Path) -> None:
    """The tokens of ``save``, in their order. Raises UserError naming the file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / FOLDER / _INDEX
    if not (folder / FOLDER).is_dir():
        return
    for said in read_json(index):
        word, found = Word(said["token"], said["vectors"]), {}
        for name, encoder in learners(model).items():
            path = folder / FOLDER / word.folder / _file(name)
            try:
                found[name] = load_file(path)[word.token]
            except FileNotFoundError as error:
                raise UserError("there is no such file", where=str(path), fix=_DAMAGED) from error
            except (SafetensorError, KeyError) as error:
                raise UserError(f"these tokens cannot be read: {error}", where=str(path), fix=_DAMAGED) from error
            wanted = (word.vectors, encoder.get_input_embeddings().weight.shape[1])
            if found[name].shape != wanted:
                raise UserError(
                    f"{word.token} is {tuple(found[name].shape)}, not {wanted}", where=str(path), fix=_DAMAGED
                )
        add(model, word, found)


@torch.no_grad()
def merge(model: Any) -> None:
    """The tokens into tokenizers and encoders, so that what is saved needs nothing beside it."""
    if not model.words:
        return
    for encoder in learners(model).values():
        for parent, name, words in wrapped(encoder):
            table = torch.cat([words.base.weight[: words.first], *words.rows])
            frozen = not words.weight.requires_grad
            parent._modules[name] = nn.Embedding(len(table), table.shape[1], _weight=table, _freeze=frozen)
            encoder.config.vocab_size = len(table)
    model.pipeline.tokenizers = dict(model.captions.tokenizers)
    model.pipeline.origin = None
    inner: Any = bare(model.module)
    if hasattr(inner, WORDS):
        delattr(inner, WORDS)
    model.words = ()
    model.captions.reread(model.pipeline.tokenizers, {})


def clashes(tokens: Sequence[str]) -> str:
    """Two tokens that would be taken for each other, as a message; empty where all are apart."""
    folders: dict[str, str] = {}
    for token in tokens:
        other = folders.setdefault(Word(token, 1).folder, token)
        if other != token:
            return f"'{token}' and '{other}' differ in no letter"
        inside = next((o for o in tokens if o != token and token in o), None)
        if inside is not None:
            return f"'{token}' is a part of '{inside}'"
    return ""
