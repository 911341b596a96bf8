"""upturn new: writes a recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upturn.errors import UserError


def new(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    kind: Annotated[str, typer.Option("--for", help="images, text or points.")] = "images",
) -> None:
    """Write a commented recipe to start from."""
    from upturn.config.templates import STARTERS

    if kind not in STARTERS:
        raise UserError(f"there is no starter for '{kind}'", where="--for", fix=f"One of: {', '.join(STARTERS)}.")
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(STARTERS[kind])
    except FileExistsError:
        raise UserError("the file exists", where=str(path), fix="Name another one.") from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from None
    print(f"{path} is written. Next: edit it, then run 'upturn plan {path}'.")
