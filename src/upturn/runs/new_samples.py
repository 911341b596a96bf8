"""New samples from a stored model, outside of the rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from upturn import seeds
from upturn.config import components
from upturn.errors import UserError
from upturn.loop.assembly import Assembly
from upturn.loop.checks.caption_strategy import reads_text
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.store.run import Run
from upturn.types import Prompt, Samples

if TYPE_CHECKING:
    from upturn.protocols import Policy


class Drawer:
    """The policy of a unit, loaded once for any number of draws.

    ``settings`` are ``name=value`` for the sampling settings of the first evaluation. ``adapters`` choose the adapters
    that act, one choice for all prompts or one for each: "base", or names and folders joined by "+"; without any all of
    the model's act. Raises UserError for a setting that the model does not have, or an adapter that does not fit it.
    """

    def __init__(self, run: Run, unit: str, settings: Sequence[str] = (), adapters: Sequence[str] = ()) -> None:
        self._context = RunContext.open(run)
        self._policy = self._context.policy(unit)
        chosen = _added(self._policy, adapters)
        self._settings = _changed(self._context.parts, self._policy, [*settings, *chosen])

    @property
    def conditional(self) -> bool:
        return self._policy.conditional

    @property
    def choices(self) -> tuple[str, ...]:
        """The classes that a prompt can name; empty if the model reads text or takes no prompt."""
        reads = self._policy.kind == "text" or reads_text(self._policy)
        return () if reads or not self.conditional else self._context.tools.classes

    def draw(self, prompts: Sequence[str], count: int, seed: int) -> Samples:
        """``count`` samples for each prompt. The noise depends on seed, prompt and candidate alone.

        Raises UserError for a prompt that the model cannot read.
        """
        parsed = [_prompt(text, self._policy, self._context) for text in prompts] or [Prompt()]
        keys = prompt_keys(seeds.key("sample", seed), parsed, count)
        return self._context.draw(self._policy, parsed, keys, self._settings)


def to_files(
    run: Run, unit: str, prompts: Sequence[str], count: int, seed: int, folder: Path, settings: Sequence[str] = (),
    adapters: Sequence[str] = (),
) -> list[Path]:
    """Samples of a :class:`Drawer` as PNG, text or CSV files, named by prompt and candidate."""
    samples = Drawer(run, unit, settings, adapters).draw(prompts, count, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(samples, row, folder) for row in range(len(samples))]
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(folder), fix="Name another --to.") from error


def _added(policy: Policy, adapters: Sequence[str]) -> list[str]:
    """The setting that chooses adapters; those that are named by their folder are loaded into the model."""
    if not adapters:
        return []
    from upturn.adapter_layers import adapter_files, injection

    module: Any = policy.module
    named = []
    for choice in adapters:
        parts = choice.split("+") if choice != "base" else []
        named.append("+".join(adapter_files.add(injection.inner(module), parts)) or "base")
    return [f"adapters={json.dumps(named)}"]


def _changed(parts: Assembly, policy: Policy, settings: Sequence[str]) -> Any:
    """The first evaluation's sampling settings, the model's own without one, some of them replaced."""
    values = dict(parts.recipe.evaluate[0].settings) if parts.evaluators else {}
    own = parts.evaluators[0].settings if parts.evaluators else components.checked(policy.Sampling, {}, "", "sampling")
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"'{setting}' is not a setting", where="--set", fix="Write it as 'name=value'.")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"'{value}' is not a value", where=f"--set {name}", fix="Write it as in YAML.") from None
    return components.checked(type(own), values, "--set", "sampling") if settings else own


def _prompt(text: str, policy: Policy, context: RunContext) -> Prompt:
    classes = context.tools.classes
    if not policy.conditional:
        raise UserError(f"the model takes no prompt, got '{text}'", where="--prompt", fix="Leave --prompt out.")
    if policy.kind == "text" or reads_text(policy) or not classes:
        return context.prompt_of(text)
    if text not in classes:
        raise UserError(f"there is no class '{text}'", where="--prompt", fix=f"One of: {', '.join(classes)}.")
    return Prompt(text, classes.index(text))


def _write(samples: Samples, row: int, folder: Path) -> Path:
    stem = f"{int(samples.group[row]):03d}-{int(samples.candidate[row]):03d}"
    content = samples.content[row]
    if samples.kind == "image":
        from PIL import Image

        path = folder / f"{stem}.png"
        Image.fromarray(content[:, :, 0] if content.shape[2] == 1 else content).save(path)
    elif samples.kind == "text":
        path = folder / f"{stem}.txt"
        prompt = samples.prompts[row]
        between = "\n\n" if prompt.messages else ""
        path.write_text(f"{prompt.text}{between}{content}", encoding="utf-8")
    else:
        path = folder / f"{stem}.csv"
        np.savetxt(path, content[None, :], delimiter=",", fmt="%.8g")
    return path
