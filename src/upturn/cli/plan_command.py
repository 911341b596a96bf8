"""upturn plan: time, cost, disk and stability of a recipe, before anything is computed."""

from __future__ import annotations

import json

from upturn.cli.options import AsJson, RecipePath, Settings


def plan(recipe: RecipePath, settings: Settings = [], as_json: AsJson = False) -> None:
    """Forecast of a recipe's time, cost, disk and stability; nothing is trained."""
    from upturn import plan as planning
    from upturn.config import recipe as recipes

    found = planning.plan(recipes.load(recipe, settings))
    print(json.dumps(found.to_json(), indent=1) if as_json else found.text())
