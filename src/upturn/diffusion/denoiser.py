"""One preconditioned denoiser for every formulation, in the coordinates x = x0 + sigma * noise.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", equation 7:
``D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, c_noise(sigma))``. DDPM and rectified flow are the same
network F under other coefficients, so samplers, guidance, objectives and rollouts are written once, over D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

Denoise = Callable[["Tensor", "Tensor"], "Tensor"]  # x (N, ...), sigma () or (N,) -> an estimate of x0 (N, ...)
Condition = Mapping[str, "Tensor"]  # the conditioning, by name: row-level tensors (N, ...), such as the class "label"


class Coefficients(NamedTuple):
    """The four functions of equation 7 at some noise levels, each of the shape of sigma."""

    skip: Tensor
    out: Tensor
    into: Tensor  # c_in; ``in`` is a word of Python
    noise: Tensor


class Formulation(Protocol):
    """How a noise level enters the network, its weight in the loss, and the levels of a sampler.

    A component of kind "formulation"; sigma is the noise's standard deviation.
    """

    def fitted(self, rms: float) -> Formulation:
        """The same for data whose root mean square is ``rms``, where anything is to be measured."""
        ...

    def coefficients(self, sigma: Tensor) -> Coefficients: ...
    def weight(self, sigma: Tensor) -> Tensor:
        """Of the squared error of D in the training loss: ``w(sigma) |D - x0|^2`` is the textbook's loss."""
        ...

    def training_sigma(self, u: Tensor) -> Tensor:
        """Training's noise levels from uniform numbers in [0, 1): the inverse of their distribution function."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) falling noise levels of a sampler, the last 0."""
        ...

    def noise_range(self) -> tuple[float, float]:
        """The least and the greatest ``c_noise`` that occur."""
        ...

    def scheduler(self) -> Mapping[str, Any]:
        """The ``diffusers`` scheduler that samples from the same network: its configuration with ``_class_name``."""
        ...


class Caller(Protocol):
    """F, as samplers and training see it. Its module has ``settings`` or ``config``: so it differs from a wrapper."""

    def call(self, module: nn.Module, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """F(x (N, *shape), c_noise () or (N,), N rows of condition) -> (N, *shape)."""
        ...


class Network(Caller, Protocol):
    """A component of kind "network", conditioned on "label" (N,) int64, -1 for none; ``folder`` is its name in a saved
    model."""

    folder: ClassVar[str]

    def make(self, shape: tuple[int, ...], classes: int, noise_range: tuple[float, float]) -> nn.Module:
        """Fresh weights, from torch's own stream."""
        ...

    def config(self, module: nn.Module) -> Mapping[str, Any]:
        """config.json in the format of ``diffusers``."""
        ...

    def from_config(self, config: Mapping[str, Any]) -> nn.Module: ...


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Values () or (N,) so that they broadcast over ``like`` (N, ...)."""
    return values if values.ndim == 0 else values.reshape(-1, *[1] * (like.ndim - 1))


def denoised(
    network: Caller, module: nn.Module, formulation: Formulation, x: Tensor, sigma: Tensor, condition: Condition
) -> Tensor:
    """D(x (N, ...); sigma () or (N,), N rows of condition): the expected x0, (N, ...)."""
    c = formulation.coefficients(sigma)
    raw = network.call(module, spread(c.into, x) * x, c.noise, condition)
    return spread(c.skip, x) * x + spread(c.out, x) * raw
