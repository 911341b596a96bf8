"""upturn new: writes a recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upturn.errors import UserError


def new(
    path: Annotated[
        Path | None, typer.Argument(help="The file to write. Default: recipe.yaml, or NAME.yaml with --from.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="KIND", help="A commented starter: images (the default), text or points; or a job on your "
            "own chat model: sft, dpo, reward-model, rejection-sampling-dpo, rloo, grpo or ppo.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="A recipe that comes with upturn, such as digits.")
    ] = None,
) -> None:
    """Write a commented recipe to start from."""
    from upturn.config import shipped

    if kind is not None and source is not None:
        raise UserError("--for and --from exclude each other", fix="--for writes a starter, --from a shipped recipe.")
    text = shipped.recipe(source) if source is not None else shipped.starter(kind or "images")
    path = path or Path("recipe.yaml" if source is None else f"{source}.yaml")
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise UserError("the file exists", where=str(path), fix="Give another file name.") from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from None
    print(f"{path} is written. Next: edit it, then run 'upturn plan {path}'.")
