"""The formulation that a scheduler configuration of ``diffusers`` describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from upturn.diffusion.denoiser import Formulation
from upturn.errors import UserError

_BETAS = frozenset({
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
    "UniPCMultistepScheduler",
})
_FLOW = "FlowMatchEulerDiscreteScheduler"
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = ("epsilon", "v_prediction")
_SPACINGS = ("leading", "linspace", "trailing")
_USUAL = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}  # of them all


def check(config: Mapping[str, Any], where: str) -> None:
    """Raises UserError naming the setting of the scheduler that is not supported, and those that are."""
    name = config.get("_class_name")
    if name == _FLOW:
        for flag in ("invert_sigmas", "shift_terminal", "stochastic_sampling"):
            if config.get(flag):
                raise _unsupported(f"{flag}: {config[flag]!r}", where)
        return
    if name not in _BETAS:
        raise _unsupported(f"the scheduler {name}", where)
    if config.get("rescale_betas_zero_snr"):
        raise _unsupported("zero terminal SNR (rescale_betas_zero_snr), a noise level without bound,", where)
    if config.get("trained_betas") is not None:
        raise _unsupported("a table of trained_betas", where)
    if str(config.get("variance_type", "")).startswith("learned"):
        raise _unsupported(f"the variance_type '{config['variance_type']}', a variance that the network learns,", where)
    if config.get("use_flow_sigmas"):
        raise _unsupported("flow noise levels in a scheduler of betas (use_flow_sigmas)", where)
    for key, usual, known in (
        ("prediction_type", "epsilon", _PREDICTIONS), ("beta_schedule", "linear", tuple(_SCHEDULES)),
    ):
        if config.get(key, usual) not in known:
            raise _unsupported(f"{key} '{config[key]}' (known: {', '.join(known)})", where)


def _unsupported(what: str, where: str) -> UserError:
    return UserError(
        f"{what} is not supported", where=where,
        fix=f"Supported: {_FLOW}, and epsilon or v_prediction by {', '.join(sorted(_BETAS))}.",
    )


def formulation(
    config: Mapping[str, Any], where: str, *, tokens: int, time: Literal["logit_normal", "uniform"],
    last: Literal["table", "even"],
) -> Formulation:
    """The formulation of a scheduler's configuration.

    ``tokens`` of an image say how far a flow is shifted where the scheduler shifts by resolution; ``time`` and
    ``last`` are not part of a flow scheduler: how training draws times, and where sampling ends.
    """
    from upturn.diffusion.formulations.epsilon import Epsilon
    from upturn.diffusion.formulations.shifted_flow import ShiftedFlow
    from upturn.diffusion.formulations.velocity import Velocity

    check(config, where)
    if config["_class_name"] == _FLOW:
        if config.get("use_dynamic_shifting"):
            return ShiftedFlow(_by_resolution(config, tokens), 1.0, time, last)
        shift = float(config.get("shift", 1.0))
        return ShiftedFlow(shift, shift, time, last)
    made = {**_USUAL, **config}
    cls = Velocity if config.get("prediction_type") == "v_prediction" else Epsilon
    spacing = config.get("timestep_spacing", "leading")
    return cls(
        schedule=_SCHEDULES[made["beta_schedule"]],  # type: ignore[arg-type]
        times=int(made["num_train_timesteps"]), beta_start=float(made["beta_start"]), beta_end=float(made["beta_end"]),
        spacing=spacing if spacing in _SPACINGS else "leading", offset=int(config.get("steps_offset", 0)),
    )


def _by_resolution(config: Mapping[str, Any], tokens: int) -> float:
    """The shift at a number of tokens: the scheduler interpolates its logarithm (or itself) between two resolutions."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = float(low + (tokens - few) * (high - low) / (many - few))
    return mu if config.get("time_shift_type", "exponential") == "linear" else math.exp(mu)
