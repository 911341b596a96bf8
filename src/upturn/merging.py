"""A unit's model in weights that need nothing else: adapters folded into their base."""

from __future__ import annotations

import shutil
from pathlib import Path

from upturn.store.run import Run

_ADAPTERS = "adapters"  # the folder beside a base that has some


def write(run: Run, unit: str, folder: Path) -> None:
    """The model of ``unit`` into ``folder``, without adapters: what plain `transformers` or `diffusers` opens.

    Log-probs are those of the model with its adapters on, within rounding. Without adapters it is a copy.
    """
    source = run.model_folder(unit)
    if not (source / _ADAPTERS).is_dir():
        shutil.copytree(source, folder)
        return
    from upturn import recipe as recipes
    from upturn.assemble import assemble, load_model
    from upturn.models import _adapters

    parts = assemble(recipes.parse(run.recipe_text, str(run.folder / "recipe.yaml")))
    policy = load_model(parts, "policy", source, unit)
    _adapters.merge(policy.module)
    policy.save(folder)
