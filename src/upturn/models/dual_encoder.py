"""Images and texts in one space: any dual encoder of ``transformers``, or a small one trained from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from upturn import seeds
from upturn.config import components
from upturn.embeddings.processors import Reader
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._dual_encoder import small_dual_encoder as _dual_small
from upturn.models._dual_encoder import transformers_encoder
from upturn.models._dual_encoder.small_dual_encoder import CHANCES, SmallDualEncoder, Towers
from upturn.models._dual_encoder.transformers_encoder import TransformersEncoder
from upturn.models._heads import head_files as _network_files
from upturn.protocols import Trainable
from upturn.store import files
from upturn.types import Array, Batch, Draw, Kind, Likelihood, Outputs, Ragged, Samples, by_size, content_id

_NAME = "dual_encoder"
_CHUNK = 256  # images or texts in one pass
_EMPTY = -1  # the number of an empty caption: it takes no part in contrastive training


@dataclass(eq=False)
class DualEncoder(Trainable):
    """Images and texts in one embedding space, close where they match: CLIP, SigLIP, AltCLIP, or a small one.

    Exactly one of ``config`` (a small one trained from scratch: convolutions, and a bag of words and their pieces; see
    ``_dual_small.Small``), ``folder`` and ``hub`` (any dual encoder of `transformers`, multilingual ones too; the
    local cache first) is given. The objective ``contrastive`` trains it on images and their captions.

    Its ``rewards`` are scale times cosine of an image and its prompt's text, as PickScore's and HPS's are (Kirstain et
    al. 2023, equation 1): the scorer ``reward_model`` reads them, and bradley_terry or plackett_luce train them on
    preferences. ``features`` are the images' vectors.

    captions  a caption strategy of its own for its training data (as the recipe's ``captions:``); None: the
              prompts' texts as they are
    """

    likelihood: ClassVar[Likelihood] = "reward"
    embeds_images_and_texts: ClassVar[bool] = True

    config: dict[str, Any] | None = None
    folder: str | None = None
    hub: str | None = None
    captions: str | dict[str, Any] | None = None

    kind: Kind = field(default="image", init=False)
    id: str = field(default="", init=False)
    notes: tuple[str, ...] = field(default=(), init=False)  # of the last encode: texts that were cut or empty, counted
    module: torch.nn.Module = field(default_factory=torch.nn.Module, init=False, repr=False)
    _shape: list[int] = field(default_factory=list, init=False, repr=False)
    _small: SmallDualEncoder | None = field(default=None, init=False, repr=False)
    _reader: Reader | None = field(default=None, init=False, repr=False)
    _strategy: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.config, self.folder, self.hub)) != 1:
            raise ValueError("give exactly one of 'config' (a small one trained from scratch: {}), 'folder' and 'hub'")
        if self.config is not None:
            self._small = components.checked(SmallDualEncoder, self.config, "config", "config of a dual_encoder")
        if self.captions is not None:
            self._strategy = components.make("caption", self.captions, "captions")

    def build(self, examples: Samples, key: int) -> None:
        """Weights for images of this shape, or from the files."""
        _need_images(examples)
        if self._small is None:
            self.open()
            return
        self._shape = [int(side) for side in examples.content.shape[1:]]
        if self._shape[2] not in (1, 3):
            raise UserError(f"images have {self._shape[2]} channels", where=f"model '{_NAME}'",
                            fix="Use 1 (grey) or 3 (RGB): 'channels:' of the source.")
        seeds.seed_torch(key)
        self.module = Towers(self._small, self._shape)
        self.id = content_id(_NAME, key, files.to_json(self._settings()))

    def open(self) -> None:
        """From ``folder`` or ``hub``, for use; a folder may also be one that this class saved."""
        if self.folder is not None and _ours(Path(self.folder)):
            self.load(Path(self.folder))
        elif self._small is None:
            self._take(*transformers_encoder.read(self.folder, self.hub))
            self.id = content_id(_NAME, *_fingerprint(self.module))
        else:
            raise UserError("the model has no weights before it is trained", where=f"model '{_NAME}' with 'config'",
                            fix="Give it 'fit:', or name a 'folder' or 'hub'.")

    def _take(self, module: TransformersEncoder, reader: Reader) -> None:
        self.module, self._reader, self._small = module, reader, None

    def encode(self, samples: Samples) -> Batch:
        """"pixels" (N, C, H, W) uint8, "ids" of the texts (with "mask" where the library reads them), "caption" (N,).

        Captions are numbers, equal for equal texts and -1 for none.

        Raises UserError for other kinds and shapes than it was built for.
        """
        _need_images(samples)
        if self._strategy is not None:
            samples, _ = self._strategy.caption(samples, (), None, seeds.key(_NAME, "captions"))
        texts = [prompt.text for prompt in samples.prompts]
        numbers = [int(content_id(text.strip()), 16) >> 1 if text.strip() else _EMPTY for text in texts]
        columns: dict[str, Tensor | Ragged] = {"caption": torch.tensor(numbers, dtype=torch.int64)}
        empty = numbers.count(_EMPTY)
        notes = [f"{empty:,} of {len(texts):,} images have no caption: they have no effect"] if empty else []
        columns["pixels"] = torch.from_numpy(self._checked(samples.content).transpose(0, 3, 1, 2).copy(order="C"))
        if self._reader is None:
            columns["ids"] = _dual_small.read(texts)
        else:
            columns["ids"], columns["mask"], cut = self._reader.tokens(texts)
            notes += [f"{cut:,} of {len(texts):,} texts are cut to {self._reader.length} tokens"] if cut else []
        self.notes = tuple(notes)
        return Batch(columns)

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        """The augmentation of training rows of a small model (image shifts, words left out); None elsewhere.

        Training rows have something ``given``, their weight. ``noise`` (N, 1, 41), one for all candidates.
        """
        if self._reader is not None or not batch.given:
            return None
        chance = seeds.table_normal(key, start, start + len(batch), (1, CHANCES))
        chance = chance.repeat_interleave(batch.candidates, dim=0).to(batch["pixels"].device)
        return Draw(torch.ones_like(chance[..., 0]), chance)

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """rewards (N,) scale * cosine, features (N, D) of images, values (N, 2 D): scaled images, then texts.

        log_probs and mask are (N, 0): it gives no likelihood.
        """
        if self._reader is None:
            chance = None if draw is None else draw.noise[:, 0]
            images, texts, scale = self.module(batch["pixels"], batch["ids"], chance)
        else:
            pixels = self._reader.pixels(batch["pixels"].permute(0, 2, 3, 1).numpy(force=True))
            mask = None if self._reader.fixed else batch["mask"]
            images, texts, scale = self.module(pixels.to(batch["ids"].device), batch["ids"], mask)
        none = images[:, :0]
        rewards = scale * (images * texts).sum(dim=1)
        values = torch.cat([scale * images, texts], dim=1)
        return Outputs(none, none, rewards=rewards, features=images, values=values)

    @property
    def scale(self) -> float:
        """The factor between a cosine and a logit."""
        return float(self._bare.scale.detach())

    def images(self, content: Array) -> Array:
        """(N, D) float32 of unit length, of (N, H, W, C) uint8. UserError for another shape than it was built for."""
        if content.dtype == object:
            each = list(by_size(content))
            back = np.argsort(np.concatenate([rows for rows, _ in each]), kind="stable")
            return np.asarray(np.concatenate([self.images(same) for _, same in each])[back])
        content = self._checked(content)

        def one(rows: slice) -> Tensor:
            if self._reader is not None:
                pixels = self._reader.pixels(content[rows])
            else:
                pixels = torch.from_numpy(content[rows].transpose(0, 3, 1, 2).copy(order="C"))
            found: Tensor = self._bare.image(pixels.to(self._device))
            return found

        return self._chunked(len(content), one)

    def texts(self, texts: Sequence[str]) -> Array:
        """(N, D) float32 of unit length."""
        def one(rows: slice) -> Tensor:
            part = list(texts[rows])
            if self._reader is None:
                found: Tensor = self._bare.text(_dual_small.read(part).to(self._device))
            else:
                ids, mask, _ = self._reader.tokens(part)
                found = self._bare.text(ids.to(self._device), None if self._reader.fixed else mask.to(self._device))
            return found

        return self._chunked(len(texts), one)

    def _chunked(self, count: int, one: Callable[[slice], Tensor]) -> Array:
        with _quiet(self.module):
            parts = [one(slice(at, min(at + _CHUNK, count))).float().cpu().numpy() for at in range(0, count, _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    @property
    def _bare(self) -> Any:
        return unwrapped(self.module)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _checked(self, content: Array) -> Array:
        if self._reader is None and list(content.shape[1:]) != self._shape:
            raise UserError(f"the model was built for images of {self._shape}, not {list(content.shape[1:])}",
                            where=f"model '{_NAME}'", fix="Train it on images of this size.")
        return content

    def _settings(self) -> dict[str, Any]:
        assert self._small is not None
        return {"shape": self._shape, "config": dict(self._small.__dict__)}

    def save(self, folder: Path) -> None:
        """A folder that ``transformers`` opens, or of the small one ``model.safetensors`` and ``config.json``."""
        if self._reader is not None:
            transformers_encoder.save(self._bare, self._reader, folder)
        else:
            _network_files.save(self.module, _NAME, self._settings(), folder)

    def load(self, folder: Path) -> None:
        """Reads the files of ``save``; UserError where it cannot be read."""
        if not _ours(folder):
            self._take(*transformers_encoder.read(str(folder), None))
            self.id = content_id(_NAME, *_fingerprint(self.module))
            return
        found = _network_files.settings(_NAME, folder)
        small = components.checked(SmallDualEncoder, found["config"], str(folder), "config of a dual_encoder")
        module, raw = _network_files.weights(lambda: Towers(small, found["shape"]), folder)
        self._small, self._shape, self._reader, self.module = small, found["shape"], None, module
        self.id = content_id(_NAME, raw)

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of the matrix products and convolutions of one forward pass."""
        from torch.utils.flop_counter import FlopCounterMode

        if not batch.rows:
            return 0.0
        one = Batch(batch.columns).take(torch.zeros(1, dtype=torch.int64))
        with _quiet(self.module), FlopCounterMode(display=False) as counter:
            self.forward(one.to(self._device), None)
        return float(counter.get_total_flops()) * batch.rows


def _need_images(samples: Samples) -> None:
    if samples.kind != "image":
        raise UserError(f"a dual_encoder reads images and texts, and these samples are {samples.kind}",
                        where=f"model '{_NAME}'", fix="Use a source of images.")


def _ours(folder: Path) -> bool:
    path = folder.expanduser() / "config.json"
    return path.is_file() and dict(files.read_json(path)).get("model") == _NAME


def _fingerprint(module: torch.nn.Module) -> Iterator[bytes]:
    for name, value in module.state_dict().items():
        yield name.encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@contextmanager
def _quiet(module: torch.nn.Module) -> Iterator[None]:
    """In evaluation mode, without gradients."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
