"""A network as a folder that ``diffusers`` opens: config.json and safetensors; equal weights are equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.store.files import read_json, to_json
from upturn.store.weights import linked

if TYPE_CHECKING:
    from torch import nn

    from upturn.diffusion.denoiser import Network

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"  # the names that diffusers looks for


def save_network(network: Network, module: nn.Module, folder: Path) -> None:
    """Weights that are those of the file they were loaded from are linked, not written again."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(to_json(network.config(module)), encoding="utf-8")
    inner: Any = unwrapped(module)
    if not linked(getattr(inner, "base_file", None), folder / WEIGHTS, inner.state_dict()):
        weights = {name: value.detach().cpu().contiguous() for name, value in inner.state_dict().items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def load_network(network: Network, folder: Path) -> nn.Module:
    """Raises UserError that names the file where one is missing, damaged, or of another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    module = network.from_config(read_json(folder / CONFIG))
    path = folder / WEIGHTS
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path)) from error
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"these weights cannot be read: {str(error).splitlines()[0]}", where=str(path), fix="They are damaged.",
        ) from error
    read: Any = module
    read.base_file = path
    return module
