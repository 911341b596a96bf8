"""Files of the small networks: ``model.safetensors`` and the settings that rebuild the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from upturn.errors import UserError
from upturn.store import files

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
Net = TypeVar("Net", bound=nn.Module)


def save(module: nn.Module, name: str, settings: dict[str, Any], folder: Path) -> None:
    """``model.safetensors`` and ``config.json``: equal weights give equal bytes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {key: t.detach().cpu().contiguous() for key, t in module.state_dict().items()}
    save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / _CONFIG).write_text(files.to_json({"model": name, **settings}), encoding="utf-8")


def settings(name: str, folder: Path) -> dict[str, Any]:
    """The settings that ``save`` was given; UserError where they cannot be read or are of another model."""
    found = files.read_json(folder / _CONFIG)
    if not isinstance(found, dict) or found.pop("model", None) != name:
        raise UserError(f"is not the config of a {name}", where=str(folder / _CONFIG))
    return found


def weights(make: Callable[[], Net], folder: Path) -> tuple[Net, bytes]:
    """The network of ``make`` with the saved weights, for use, and their bytes; UserError where they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw = (folder / _WEIGHTS).read_bytes()
        module = make()
        module.load_state_dict(load(raw))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(
            f"the weights do not fit or cannot be read: {str(error).strip().splitlines()[0]}",
            where=str(folder / _WEIGHTS), fix="Use another checkpoint.",
        ) from error
    return module.eval(), raw
