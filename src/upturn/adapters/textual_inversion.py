"""Textual inversion: trains only new tokens of a text-to-image model's text encoders."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from upturn.adapter_layers import injection as adapters
from upturn.adapter_layers import token_embeddings
from upturn.adapter_layers.token_embeddings import Word
from upturn.adapters._entry import AtEntry
from upturn.errors import UserError
from upturn.protocols import Adapter, Trainable

if TYPE_CHECKING:
    from upturn.models.text_to_image import TextToImage


@dataclass(frozen=True)
class TextualInversion(Adapter):
    """Rows of the text encoders' embeddings for new tokens, which captions and prompts then use as words.

    Gal et al. 2022, "An image is worth one word: Personalizing text-to-image generation using textual inversion",
    section 3. Saved in the model's folder as ``tokens/<token>/learned_embeds.safetensors``, which
    ``load_textual_inversion`` of diffusers opens. For Stable Diffusion 1, 2, XL and Flux (its CLIP alone). A stage
    that names tokens of an earlier one continues them.
    """

    tokens: dict[str, str]  # each new token and the word that it begins as: {<my-cat>: cat}
    vectors: int = 1  # of each token (Gal et al., section 5.3: more fit the images better, and are edited worse)

    def __post_init__(self) -> None:
        if not self.tokens or self.vectors < 1:
            raise ValueError("needs at least one token and one vector")
        for token, word in self.tokens.items():
            if not token or token.split() != [token] or not word.strip():
                raise ValueError(f"'{token}: {word}': a token has no space in it, and needs an initial word")
        odd = token_embeddings.clashes(list(self.tokens))
        if odd:
            raise ValueError(f"tokens: {odd}; they would be taken for each other")

    def refuses(self, model: Trainable) -> str:
        """Why this model cannot learn tokens; empty where it can, or where that is not known yet."""
        if model.inverts is None or model.inverts:
            return ""
        what = model.pipeline_class or f"the model '{model.name or type(model).__name__}'"
        return f"{what} has no text encoder that learns new tokens"

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        """New tokens are initialized from their words; all but the rows of these tokens is frozen.

        Raises UserError where the model cannot learn tokens, or none of its captions contains one of them.
        """
        odd = self.refuses(model)
        if odd:
            raise UserError(odd, where="adapter", fix="Use Stable Diffusion 1, 2, XL or Flux, or another adapter.")
        of: Any = model
        for token, begin in self.tokens.items():
            there = next((word for word in of.words if word.token == token), None)
            if there is None:
                others = [word.token for word in of.words]
                self._check(of, token, token_embeddings.clashes([*others, token]))
                of.add_token(Word(token, self.vectors), of.initial_rows(begin, self.vectors))
            elif there.vectors != self.vectors:
                raise UserError(
                    f"the model's {token} has {there.vectors} vectors, and this stage requests {self.vectors}",
                    where="adapter.vectors", fix="Request the same, or name another token.",
                )
        absent = [word.token for word in self._words(of) if of.captions.none_contains(word.token)]
        if absent:
            raise UserError(
                f"no caption contains {absent[0]}, so it cannot be learned", where="adapter.tokens",
                fix="Write it into the captions, e.g. captions: {name: fixed, text: 'a photo of " + absent[0] + "'}.",
            )
        module: Any = model.module
        for name in adapters.names(module):
            adapters.dropout(module, name, 0.0)
        module.requires_grad_(False)
        for row in self.parameters(model):
            row.requires_grad_(True)

    def _check(self, model: TextToImage, token: str, odd: str) -> None:
        for name, tokenizer in model.captions.tokenizers.items():
            if not odd and name in model.token_encoders and token in tokenizer.get_vocab():
                odd = f"'{token}' is a word of the {name} already"
        if odd:
            raise UserError(odd, where="adapter.tokens", fix="Take another token, such as <my-cat>.")

    def _words(self, model: TextToImage) -> list[Word]:
        return [word for word in model.words if word.token in self.tokens]

    def reference(self, model: Trainable) -> Trainable:
        """The model at the entry: a view that reads captions with the rows as they are now."""
        module = adapters.inner(model.module)
        view: Any = copy.copy(model)
        active = adapters.names(module)
        view.module = AtEntry(module, active, active)
        rows = list(self.parameters(model))
        view.caller = _Before(view.caller, rows, [row.detach().clone() for row in rows])
        return view  # type: ignore[no-any-return]

    def parameters(self, model: Trainable) -> Iterable[nn.Parameter]:
        of: Any = model
        return [row for word in self._words(of) for row in of.token_rows(word).values()]

    def merge(self, model: Trainable) -> None:
        """Tokens and adapters of the model into its base."""
        of: Any = model
        adapters.merge(adapters.inner(model.module))
        of.merge_tokens()


@dataclass(frozen=True)
class _Before:
    """The caller of a model, with these rows at their entry values."""

    caller: Any
    rows: list[nn.Parameter]
    values: list[Tensor]

    def call(self, *args: Any) -> Tensor:
        with self._swapped():
            out: Tensor = self.caller.call(*args)
        return out

    def read(self, *args: Any) -> Any:
        with self._swapped():
            return self.caller.read(*args)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        kept = [row.data for row in self.rows]
        for row, value in zip(self.rows, self.values, strict=True):
            row.data = value.to(row.device)
        try:
            yield
        finally:
            for row, now in zip(self.rows, kept, strict=True):
                row.data = now
