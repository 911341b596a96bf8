"""Text to image: any pipeline of ``diffusers``, or a small one trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from upturn import seeds
from upturn.adapter_layers import adapter_files as _adapter_files
from upturn.adapter_layers import token_embeddings
from upturn.config import components
from upturn.diffusion.denoiser import Condition, Formulation
from upturn.diffusion.joint import trained_encoders
from upturn.errors import UserError
from upturn.models._diffusion.diffusion_model import Diffusion
from upturn.models._text_to_image import pipeline_files
from upturn.models._text_to_image import small_pipeline as _t2i_small
from upturn.models._text_to_image.architectures.stable_diffusion import StableDiffusionXl
from upturn.models._text_to_image.build import assemble
from upturn.models._text_to_image.cache import Cache
from upturn.models._text_to_image.caption_cache import NONE, Captions
from upturn.models._text_to_image.conditioning import CAPTION
from upturn.models._text_to_image.latents import Latents
from upturn.models._text_to_image.pipeline import Pipeline, cached, family_of, from_folder, hub_folder
from upturn.models._text_to_image.resolutions import ImageSizes, encoded, formulation, own_size
from upturn.models._text_to_image.sampling import TextToImageSampling
from upturn.types import Array, Batch, Draw, Kind, Prompt, Rollout, Samples, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from upturn.models._diffusion.sampling import DiffusionSampling

_LATENT, _VARIANT, _OFFSET = 3, 4, 5  # streams of a training key; the base has 0 to 2
_CAPTIONS = "captions"  # the samples' field with several captions per image, and a batch's column of their keys


@dataclass(eq=False)
class TextToImage(Diffusion):
    """Text to image: a U-Net or transformer pipeline of `diffusers`, or a small one trained from scratch.

    Exactly one of ``config`` (a small Stable Diffusion XL of pixels, its own words; see ``_t2i_small.Small``),
    ``folder`` (a pipeline of diffusers) and ``hub`` (a name; the local cache first) is given: StableDiffusion (1.x,
    2.x, XL, 3), Flux, PixArt. safetensors only, never remote code. What the network predicts is read from the
    pipeline's scheduler.

    The autoencoder is frozen; where ``cache`` is on, the moments of an image's latents are computed once (a draw then
    samples from them), and the outputs of frozen text encoders for a caption, once: in a process, or in all processes
    that use the named folder. Several captions per image: the samples' field "captions", tuples of texts, one of
    which a draw reads. Log-probs are surrogates: see ``Diffusion``.

    Images are squares of ``size`` pixels, or of several sizes of about that area (the source's ``buckets``): a batch
    has one size, and ``width`` and ``height`` of the sampling settings request one.

    Saved as a pipeline that plain diffusers opens. A safety checker is not read and not kept.
    """

    config: dict[str, Any] | None = None
    folder: str | None = None
    hub: str | None = None
    size: int | None = None  # pixels a side of a square; None: the pipeline's own, or the examples' for a config
    train_text: bool | None = None  # CLIP text encoders with the denoiser; None: of a config yes, of a checkpoint no
    caption_dropout: float = 0.1  # Ho & Salimans 2022, section 4.1: 0.1 or 0.2
    min_snr: float | None = None  # 5: Hang et al. 2023, "Efficient diffusion training via min-SNR weighting", sec. 3.4
    noise_offset: float = 0.0  # 0.1: Guttenberg 2023, "Diffusion with offset noise"
    cache: bool | str = True  # latents and frozen text once, not in each forward pass; a folder: kept there
    gradient_checkpointing: bool = False  # less memory, more time
    notes: tuple[str, ...] = field(default=(), init=False)  # of the last encode: captions that were cut, counted
    words: tuple[token_embeddings.Word, ...] = field(default=(), init=False)  # new tokens, in order
    inverts: tuple[str, ...] | None = field(default=None, init=False, repr=False)  # encoders that can learn tokens
    pipeline_class: str = field(default="", init=False, repr=False)
    pipeline: Pipeline = field(init=False, repr=False)
    small: _t2i_small.Small | None = field(default=None, init=False, repr=False)
    disk_cache: Cache | None = field(default=None, init=False, repr=False)
    sizes: ImageSizes = field(init=False, repr=False)
    latents: Latents = field(init=False, repr=False)
    captions: Captions = field(init=False, repr=False)
    _forms: dict[tuple[int, ...], Formulation] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str] = "text_to_image"
    kind: ClassVar[Kind] = "image"
    Sampling: ClassVar[type] = TextToImageSampling
    asks: ClassVar[tuple[str, ...]] = (CAPTION,)
    counted: ClassVar[int] = 1
    several_sizes: ClassVar[bool] = True
    expensive: ClassVar[bool] = True  # frozen networks read images and captions before a training
    adapter_formats: ClassVar[frozenset[str]] = frozenset({"peft", "diffusers", "kohya"})

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.config, self.folder, self.hub)) != 1:
            raise ValueError("text_to_image needs exactly one of config, folder and hub")
        if not 0 <= self.caption_dropout < 1 or self.draws < 1 or self.noise_offset < 0:
            raise ValueError("needs 0 <= caption_dropout < 1, draws >= 1 and noise_offset >= 0")
        if (self.min_snr is not None and self.min_snr <= 0) or (self.size is not None and self.size < 1):
            raise ValueError("min_snr and size must be above 0")
        if isinstance(self.cache, str) and (not self.cache or Path(self.cache).expanduser().is_file()):
            raise ValueError(f"cache is '{self.cache}': true, false or a folder is expected")
        if self.config is not None:
            where, what = "model.config", "the config of text_to_image"
            self.small = components.checked(_t2i_small.Small, self.config, where, what)
            self.inverts = StableDiffusionXl.inverts
            return
        at = Path(self.folder) if self.folder is not None else cached(str(self.hub))
        if at is not None:  # a pipeline that is not in the hub's cache is checked when it is fetched
            family = family_of(at, self._where)
            self.inverts, self.pipeline_class = family.inverts, str(family.index["_class_name"])
            if self.train_text and not family.trains:
                raise UserError(
                    f"the text encoder of {family.index['_class_name']} cannot be trained", where="model.train_text",
                    fix="Leave train_text out.",
                )

    @property
    def _where(self) -> str:
        return "model.folder" if self.folder is not None else "model.hub"

    @property
    def trains_text(self) -> bool:
        return self.config is not None if self.train_text is None else self.train_text

    @property
    def conditional(self) -> bool:
        return True

    @property
    def dropout(self) -> float:
        return self.caption_dropout

    @property
    def pixels(self) -> int:
        """Pixels per side of an image."""
        return self.frame.shape[1] * self.latents.factor

    def without_store(self) -> None:
        if isinstance(self.cache, str):
            self.cache = True

    # Weights.

    def build(self, examples: Samples, key: int) -> None:
        """The pipeline's weights, or random ones from ``key`` and a tokenizer for these examples' captions.

        Raises UserError where images or pipeline do not fit.
        """
        self._check_kind(examples)
        if not len(examples):
            raise UserError("there are no examples to build a model for", where="model")
        seeds.seed_torch(key)
        if self.small is not None:
            size = self.size or own_size(examples.content)
            captions = [text for texts in _texts(examples) for text in texts]
            pipeline = _t2i_small.build(self.small, size, captions)
        else:
            folder = Path(self.folder) if self.folder is not None else hub_folder(str(self.hub), self._where)
            pipeline, size = from_folder(folder, self._where), self.size or 0
        self._assemble(pipeline, size)
        self.sizes.check(examples.content)
        self.id = content_id(self.name, key, str(self.config), self.folder, self.hub)

    def _assemble(self, pipeline: Pipeline, size: int) -> None:
        parts = assemble(
            pipeline, size, self._where, trains_text=self.trains_text, cache=self.cache,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        self.pipeline, self.latents, self.sizes, self.frame = parts.pipeline, parts.latents, parts.sizes, parts.frame
        self.form, self.module, self.captions, self.caller = parts.form, parts.module, parts.captions, parts.caller
        self.disk_cache, self.words, self._operations, self._forms = parts.disk_cache, (), {}, {}
        self.inverts = pipeline.family.inverts
        self.pipeline_class = str(pipeline.family.index["_class_name"])

    def save(self, folder: Path) -> None:
        """A pipeline folder that ``DiffusionPipeline.from_pretrained`` opens, model.json, adapters/, and tokens/."""
        small = None if self.small is None else asdict(self.small)
        pipeline_files.save(folder, self.pipeline, self.module, pipeline_files.Description(
            self.name, self.pixels, bool(trained_encoders(self.module)), small, asdict(self.frame)
        ))
        token_embeddings.save(self.token_encoders, self.words, folder)

    def load(self, folder: Path) -> None:
        """Reads a saved model. Raises UserError where this instance contradicts it, or a file is missing or damaged."""
        pipeline, saved = pipeline_files.load(folder, self.name, self.size, self.config or {}, self.trains_text)
        self._assemble(pipeline, saved.size)
        _adapter_files.load(self.module, folder)
        for word, rows in token_embeddings.load(self.token_encoders, folder):
            self.add_token(word, rows)

    # New tokens.

    @property
    def token_encoders(self) -> dict[str, PreTrainedModel]:
        """The text encoders that can learn tokens, by name."""
        encoders = self.pipeline.encoders
        return {name: encoders[name] for name in self.pipeline.family.inverts if name in encoders}

    def initial_rows(self, word: str, vectors: int) -> dict[str, Tensor]:
        """(vectors, width) by encoder: the embeddings of a known word's tokens. UserError where it has more tokens."""
        return token_embeddings.initial_rows(self.token_encoders, self.pipeline.tokenizers, word, vectors)

    def add_token(self, word: token_embeddings.Word, rows: Mapping[str, Tensor]) -> None:
        """A new token with frozen ``rows``. Raises UserError where a tokenizer would not read it as one."""
        encoders, tokenizers = self.token_encoders, self.pipeline.tokenizers
        token_embeddings.add(encoders, tokenizers, self.module, rows)
        self.words = (*self.words, word)
        extended = token_embeddings.extended_tokenizers(tokenizers, self.words, encoders)
        self.captions.reread(extended, token_embeddings.first_ids(encoders))

    def token_rows(self, word: token_embeddings.Word) -> dict[str, torch.nn.Parameter]:
        """The parameter (vectors, width) of a new token in each encoder."""
        return token_embeddings.rows(self.token_encoders, self.words.index(word))

    def merge_tokens(self) -> None:
        """New tokens into tokenizers and encoders, so that the saved model needs no further file."""
        if not self.words:
            return
        token_embeddings.merge(self.token_encoders, self.module)
        self.pipeline.tokenizers, self.pipeline.origin = dict(self.captions.tokenizers), None
        self.words = ()
        self.captions.reread(self.pipeline.tokenizers, {})

    # Examples.

    def encode(self, samples: Samples) -> Batch:
        """Columns "x" (latents' moments, or pixels where nothing is cached) and "captions" (N, V) keys, -1 for none.

        See ``notes`` for captions that are longer than a text encoder reads, and for what the cache contained.
        """
        self._check_kind(samples)
        self.sizes.check(samples.content)
        texts = _texts(samples)
        flat = self.captions.keys([text for row in texts for text in row])
        widths = torch.tensor([len(row) for row in texts])
        keys = torch.full((len(texts), max(map(len, texts), default=1)), -1)
        keys[torch.arange(keys.shape[1])[None, :] < widths[:, None]] = flat
        cut = sum(text in self.captions.cut for row in texts for text in row)
        x = encoded(self.latents, samples.content, cached=bool(self.cache), disk_cache=self.disk_cache)
        self.notes = (*self.captions.notes, *(self.disk_cache.take_notes() if self.disk_cache else ()))
        self.captions.notes.clear()
        if cut:
            self.notes += (f"{cut} of {len(flat)} captions are longer than the text encoder reads, and are cut",)
        return Batch({"x": x, _CAPTIONS: keys})

    def row_shape(self, batch: Batch) -> tuple[int, ...]:
        return self.sizes.row_shape(batch, latents=bool(self.cache))

    def drawn_shape(self, settings: DiffusionSampling) -> tuple[int, ...]:
        return self.sizes.sampled_shape(settings)

    def form_of(self, shape: tuple[int, ...]) -> Formulation:
        if shape == self.frame.shape:
            return self.form
        if shape not in self._forms:
            self._forms[shape] = formulation(self.pipeline, self._where, *shape[1:])
        return self._forms[shape]

    def draw(self, batch: Batch, key: int, start: int) -> Draw:
        """The base's, with the noise of the autoencoder's posterior, which caption is read, and the offset noise."""
        drawn, stop, shape = super().draw(batch, key, start), start + len(batch), self.row_shape(batch)

        def shared(table: Tensor) -> Tensor:
            return table.repeat_interleave(batch.candidates, dim=0) if batch.candidates > 1 else table

        latent = variant = None
        noise = drawn.noise
        if self.latents.sampled:
            latent = shared(seeds.table_normal(key, start, stop, shape, stream=_LATENT))
        if batch[_CAPTIONS].shape[1] > 1:
            variant = shared(seeds.table_uniform(key, start, stop, stream=_VARIANT))
        if self.noise_offset:
            level = seeds.table_normal(key, start, stop, (self.draws, shape[0]), stream=_OFFSET)
            noise = noise + self.noise_offset * shared(level)[..., None, None]
        return replace(drawn, noise=noise, latent=latent, variant=variant)

    def clean(self, batch: Batch, draw: Draw) -> Tensor:
        x = batch["x"]
        return self.latents.drawn(x if self.cache else self.latents.moments(x), draw.latent)

    # Condition.

    def condition(self, prompts: Sequence[Prompt]) -> Condition:
        return {CAPTION: self.captions.keys([prompt.text for prompt in prompts])}

    def training_condition(self, batch: Batch, draw: Draw) -> Condition:
        keys = batch[_CAPTIONS]
        caption = keys[:, 0]
        if draw.variant is not None:
            counts = (keys >= 0).sum(dim=1)
            which = (draw.variant.to(keys.device) * counts).long().clamp(max=counts - 1)
            caption = keys.gather(1, which[:, None])[:, 0]
        return {CAPTION: caption if draw.drop is None else caption.masked_fill(draw.drop.to(caption.device), NONE)}

    def without(self, condition: Condition, settings: DiffusionSampling) -> Condition:
        negative = settings.negative or None
        return {CAPTION: torch.full_like(condition[CAPTION], int(self.captions.keys([negative])[0]))}

    def prepared(self, condition: Condition) -> Condition:
        caller: Any = self.caller
        read: Condition = condition if torch.is_grad_enabled() else caller.read(self.module, condition)
        return read

    def unguidable(self) -> str:
        if self.config is not None and not self.caption_dropout:
            return "with caption_dropout 0 a model trained from scratch never learns to generate without its caption"
        return ""

    def weight(self, sigma: Tensor) -> Tensor:
        """The textbook's, or min(SNR, min_snr) where that is less, which is the same for every prediction.

        Hang et al. 2023, equation 7: min(SNR, gamma) of the squared error of x0, where SNR is 1 / sigma^2.
        """
        if self.min_snr is None:
            return self.form.weight(sigma)
        return sigma.square().reciprocal().clamp(max=self.min_snr)

    def content(self, generated: Tensor) -> Array:
        return self.latents.content(generated)

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: DiffusionSampling) -> Rollout:
        if settings.negative:
            raise UserError("a rollout takes no 'negative' caption", where="settings.negative", fix="Leave it out.")
        return super().rollout(prompts, keys, settings)

    def flops(self, batch: Batch) -> float:
        once = super().flops(batch)
        return once if self.cache else once + self._coding() * batch.rows

    def _coding(self) -> float:
        """FLOPs of encoding one image, which a forward pass without a cache includes."""
        from torch.utils.flop_counter import FlopCounterMode

        if "coding" not in self._operations:
            with FlopCounterMode(display=False) as counter:
                self.latents.moments(torch.zeros(1, 3, self.pixels, self.pixels, dtype=torch.uint8))
            self._operations["coding"] = float(counter.get_total_flops())
        return self._operations["coding"]


def _texts(samples: Samples) -> list[tuple[str, ...]]:
    """The captions of each image, at least one."""
    several = samples.fields.get(_CAPTIONS)
    if several is None:
        return [(prompt.text,) for prompt in samples.prompts]
    return [tuple(texts) or (prompt.text,) for texts, prompt in zip(several, samples.prompts, strict=True)]
