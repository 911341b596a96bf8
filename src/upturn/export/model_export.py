"""Writes a unit's model as plain weights, or its adapters only, for other libraries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, get_args

from upturn.errors import UserError
from upturn.store.run import Run

Format = Literal["peft", "diffusers", "kohya"]

_BESIDE = ("adapters", "tokens")  # folders beside a base that has some


def write(run: Run, unit: str, folder: Path) -> None:
    """The model of ``unit`` into ``folder``, without adapters, its own tokens built in: what plain `transformers` or
    `diffusers` opens.

    Log-probs are those of the model with its adapters on, within rounding. Without adapters it is a copy.
    """
    source = run.model_folder(unit)
    if not any((source / name).is_dir() for name in _BESIDE):
        shutil.copytree(source, folder)
        return
    from upturn.adapter_layers import injection

    policy = _loaded(run, unit, source)
    injection.merge(policy.module)
    if policy.words:
        policy.merge_tokens()
    policy.save(folder)


def write_adapters(run: Run, unit: str, folder: Path, form: Format) -> None:
    """The adapters of ``unit`` into ``folder``, without their base.

    peft       each in its folder, and learned tokens in theirs, as in the run
    diffusers  what ``load_lora_weights`` and ``load_textual_inversion`` of a text-to-image pipeline open
    kohya      the keys of sd-scripts and LyCORIS, which ComfyUI and A1111 read

    Raises UserError where there are none, or the format has no way to say what they do.
    """
    source = run.model_folder(unit)
    if form not in get_args(Format):
        raise UserError(f"there is no format '{form}'", where="--format", fix=f"One of: {', '.join(get_args(Format))}.")
    beside = [name for name in _BESIDE if (source / name).is_dir()]
    if not beside:
        raise UserError(f"the model of '{unit}' has no adapters", where="--what", fix="Export '--what model'.")
    if form == "peft":
        for name in beside:
            shutil.copytree(source / name, folder / name)
        return
    from upturn.export import adapter_formats

    policy = _loaded(run, unit, source)
    if form not in policy.adapter_formats:
        raise UserError(
            f"the format of {form} is for text-to-image models", where="--format", fix="Take '--format peft'."
        )
    adapter_formats.write(policy, form, folder)


def _loaded(run: Run, unit: str, source: Path) -> Any:
    from upturn.loop.assembly import load_model
    from upturn.loop.run_context import RunContext

    return load_model(RunContext.open(run).parts, "policy", source, unit)
