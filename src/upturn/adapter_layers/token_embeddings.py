"""Textual inversion: new tokens of text encoders, their files, and the encoders with the tokens merged."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from upturn.adapter_layers.new_tokens import WORDS, Words, wrapped
from upturn.diffusion.joint import trained_encoders
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.store.files import read_json, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Encoders = Mapping[str, PreTrainedModel]  # the text encoders that can learn tokens, by name
    Tokenizers = Mapping[str, PreTrainedTokenizerBase]  # by the name of the encoder that reads the tokens

FOLDER, _INDEX = "tokens", "tokens.json"
_DAMAGED = "It is damaged: use another checkpoint."


@dataclass(frozen=True)
class Word:
    """A token and its number of vectors."""

    token: str
    vectors: int

    @property
    def spelled(self) -> tuple[str, ...]:
        """The tokens of its vectors, as diffusers calls them."""
        return (self.token, *(f"{self.token}_{i}" for i in range(1, self.vectors)))

    @property
    def folder(self) -> str:
        """The folder of its files: the token's letters, digits, '-' and '_'."""
        return re.sub(r"[^A-Za-z0-9_-]", "", self.token) or "token"


def initial_rows(encoders: Encoders, tokenizers: Tokenizers, word: str, vectors: int) -> dict[str, Tensor]:
    """(vectors, width) by encoder: the embeddings of the word's tokens, in turn.

    Raises UserError where the word is more tokens than there are vectors.
    """
    found: dict[str, Tensor] = {}
    for name, encoder in encoders.items():
        ids = tokenizers[name](word, add_special_tokens=False)["input_ids"]
        if not 0 < len(ids) <= vectors:
            raise UserError(
                f"'{word}' is {len(ids)} tokens to the {name}, and there are {vectors} vectors to begin with them",
                where="adapter.tokens", fix="Name another word, or raise 'vectors:'.",
            )
        table = encoder.get_input_embeddings().weight.detach()
        found[name] = table[[ids[i % len(ids)] for i in range(vectors)]].clone()
    return found


def add(encoders: Encoders, tokenizers: Tokenizers, module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Rows of one new token into every encoder, frozen. ``tokenizers`` are those without new tokens.

    Rows of encoders outside the trained ``module`` are registered in it, so that they are trained, saved and resumed.
    """
    for name, encoder in encoders.items():
        words = _of(encoder, len(tokenizers[name]))
        words.rows.append(nn.Parameter(values[name].to(words.weight), requires_grad=False))
    inner = unwrapped(module)
    trained = trained_encoders(inner)
    outside = {name: encoder for name, encoder in encoders.items() if name not in trained}
    if outside:
        setattr(inner, WORDS, nn.ModuleDict({name: _of(encoder, 0).rows for name, encoder in outside.items()}))


def first_ids(encoders: Encoders) -> dict[str, int]:
    """The first id that is a new token, by encoder."""
    return {name: _of(encoder, 0).first for name, encoder in encoders.items()}


def _of(encoder: PreTrainedModel, first: int) -> Words:
    """The encoder's embedding with additional rows; wraps it if necessary."""
    embedding = encoder.get_input_embeddings()
    if isinstance(embedding, Words):
        return embedding
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if child is embedding:
                parent._modules[name] = words = Words(embedding, first)
                return words
    raise ValueError("the encoder has no embedding of tokens")


def extended_tokenizers(
    tokenizers: Tokenizers, words: Sequence[Word], encoders: Iterable[str]
) -> dict[str, PreTrainedTokenizerBase]:
    """Copies that know the tokens, for these encoders; the given tokenizers stay as they are.

    Raises UserError where a tokenizer would not read a token as one.
    """
    known = dict(tokenizers)
    for name in encoders:
        known[name] = extended = copy.deepcopy(known[name])
        first = len(extended)
        for word in words:
            extended.add_tokens(list(word.spelled))
        every = [token for word in words for token in word.spelled]
        text = "a " + " a ".join(every) + " a"
        ids = [i for i in extended(text, add_special_tokens=False, truncation=False)["input_ids"] if i >= first]
        if ids != list(range(first, first + len(every))):
            raise UserError(
                f"the tokenizer does not read {', '.join(word.token for word in words)} as new tokens",
                where="adapter.tokens", fix="Take small letters between brackets, such as <my-cat>.",
            )
    return known


def rows(encoders: Encoders, place: int) -> dict[str, nn.Parameter]:
    """The parameter (vectors, width) of the token at this place in each encoder."""
    return {name: _of(encoder, 0).rows[place] for name, encoder in encoders.items()}


# Files.


def save(encoders: Encoders, words: Sequence[Word], folder: Path) -> None:
    """tokens/<token>/learned_embeds.safetensors, of a second encoder learned_embeds_2; nothing where there is none."""
    from safetensors.torch import save_file

    for place, word in enumerate(words):
        at = folder / FOLDER / word.folder
        at.mkdir(parents=True, exist_ok=True)
        for name, row in rows(encoders, place).items():
            save_file({word.token: row.detach().cpu().contiguous()}, at / _file(name), metadata={"format": "pt"})
    if words:
        index = [{"token": word.token, "vectors": word.vectors} for word in words]
        (folder / FOLDER / _INDEX).write_text(to_json(index), encoding="utf-8")


def _file(encoder: str) -> str:
    """diffusers' own name for it; that of its example for SDXL where there are two."""
    return f"learned_embeds{encoder.removeprefix('text_encoder')}.safetensors"


def load(encoders: Encoders, folder: Path) -> Iterator[tuple[Word, dict[str, Tensor]]]:
    """The tokens of ``save`` and their rows, in their order.

    Raises UserError naming the file that is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / FOLDER / _INDEX
    if not (folder / FOLDER).is_dir():
        return
    for entry in read_json(index):
        word, found = Word(entry["token"], entry["vectors"]), {}
        for name, encoder in encoders.items():
            path = folder / FOLDER / word.folder / _file(name)
            try:
                found[name] = load_file(path)[word.token]
            except FileNotFoundError as error:
                raise UserError("there is no such file", where=str(path), fix=_DAMAGED) from error
            except (SafetensorError, KeyError) as error:
                raise UserError(f"these tokens cannot be read: {error}", where=str(path), fix=_DAMAGED) from error
            expected = (word.vectors, encoder.get_input_embeddings().weight.shape[1])
            if found[name].shape != expected:
                raise UserError(
                    f"{word.token} is {tuple(found[name].shape)}, not {expected}", where=str(path), fix=_DAMAGED
                )
        yield word, found


@torch.no_grad()
def merge(encoders: Encoders, module: nn.Module) -> None:
    """The rows into the encoders' tables; ``module`` holds none any more."""
    for encoder in encoders.values():
        for parent, name, words in wrapped(encoder):
            table = torch.cat([words.base.weight[: words.first], *words.rows])
            frozen = not words.weight.requires_grad
            parent._modules[name] = nn.Embedding(len(table), table.shape[1], _weight=table, _freeze=frozen)
            encoder.config.vocab_size = len(table)
    inner = unwrapped(module)
    if hasattr(inner, WORDS):
        delattr(inner, WORDS)


def clashes(tokens: Sequence[str]) -> str:
    """A message naming two ambiguous tokens; empty where all are distinct."""
    folders: dict[str, str] = {}
    for token in tokens:
        other = folders.setdefault(Word(token, 1).folder, token)
        if other != token:
            return f"'{token}' and '{other}' do not differ in any letter"
        inside = next((o for o in tokens if o != token and token in o), None)
        if inside is not None:
            return f"'{token}' is a part of '{inside}'"
    return ""
