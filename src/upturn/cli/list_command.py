"""list: the components there are, each with its summary and its fields."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from upturn.cli.options import AsJson
from upturn.errors import UserError

_FIELD = ("name", "type", "default")


def list_components(
    kind: Annotated[str | None, typer.Argument(help="model, source, objective, scorer, curator, metric, …")] = None,
    as_json: AsJson = False,
) -> None:
    """The components of a kind with their fields; without a kind, all names."""
    from upturn.config import components

    if kind is not None and kind not in components.FOLDERS:
        kind = kind.removesuffix("s") if kind.removesuffix("s") in components.FOLDERS else kind
    if kind is not None and kind not in components.FOLDERS:
        raise UserError(f"there is no kind '{kind}'", where="list", fix=f"One of: {', '.join(components.FOLDERS)}.")
    kinds = [kind] if kind else list(components.FOLDERS)
    found = {k: {name: components.describe(k, name) for name in components.names(k)} for k in kinds}
    if as_json:
        shape = {
            k: {
                name: {"summary": summary, "fields": [dict(zip(_FIELD, f, strict=True)) for f in fs]}
                for name, (summary, fs) in names.items()
            }
            for k, names in found.items()
        }
        print(json.dumps(shape, indent=1))
        return
    for k, names in found.items():
        print(f"{k}")
        for name, (summary, fields) in names.items():
            print(f"  {name:20} {summary}")
            if kind:
                for field, hint, default in fields:
                    print(f"      {field}: {hint} = {default}")
