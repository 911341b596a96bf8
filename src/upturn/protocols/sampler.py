"""Settings of a model's sampling, and the protocol of what can be sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from upturn.types import Array, Kind, Prompt, Samples


class SamplingSettings:
    """Base class of the settings of a model's sampling: a frozen dataclass, its fields the keys of ``settings:``.

    Settings that a model does not have keep the values below, which change nothing.
    """

    @property
    def guide(self) -> str:
        """The version of the model that guides (autoguidance); empty for none."""
        return ""

    @property
    def keyed(self) -> bool:
        """Whether a sample is a function of its prompt and key, whatever is sampled beside it."""
        return True

    @property
    def sampler(self) -> str | dict[str, Any]:
        """The algorithm, for messages."""
        return ""

    @property
    def temperature(self) -> float:
        """1 samples from the model's own distribution."""
        return 1.0

    @property
    def top_p(self) -> float:
        """The share of probability that is kept; 1 is all."""
        return 1.0

    @property
    def top_k(self) -> int:
        """The number of outcomes that are kept; 0 is all."""
        return 0

    @property
    def guidance(self) -> float:
        """The scale of guidance; 1 is none."""
        return 1.0

    @property
    def negative(self) -> str:
        """The caption that guidance leads away from; empty for the empty caption."""
        return ""

    @property
    def width(self) -> int | None:
        """Pixels of an image; None is the model's own."""
        return None

    @property
    def height(self) -> int | None:
        """Pixels of an image; None is the model's own."""
        return None

    @property
    def batch(self) -> int:
        """Samples in one call of the model."""
        return 1024

    @property
    def longest(self) -> int | None:
        """Tokens of a sample at most; None where nothing limits it but the model, or samples have no length."""
        return None

    def require(self, where: str) -> None:
        """Raises UserError naming ``where`` where these settings cannot run on this machine."""

    def with_length(self, tokens: int) -> Self:
        """The same with samples of at most so many tokens; itself where samples have no length."""
        return self


class Sampler(Protocol):
    """Anything that answers prompts; an HTTP teacher is only this."""

    @property
    def kind(self) -> Kind:
        """The kind of content: "text", "image" or "points"."""
        ...

    Sampling: ClassVar[type[SamplingSettings]]  # the dataclass of its settings

    @property
    def conditional(self) -> bool:
        """Whether what it makes depends on the prompt."""
        ...

    def sample(self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K) int64: the noise of row i depends on key i alone."""
        ...
