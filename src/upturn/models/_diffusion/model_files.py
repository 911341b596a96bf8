"""A diffusion model as a folder: model.json, the network and the scheduler as ``diffusers`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch.nn import Module

from upturn.adapter_layers import adapter_files, injection
from upturn.diffusion.denoiser import Formulation, Network
from upturn.diffusion.network_files import load_network, save_network
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._diffusion.normalization import Frame
from upturn.store.files import read_json, to_json

_SETTINGS, _SCHEDULER, _PIPELINE = "model.json", "scheduler", "model_index.json"
_OF_TRAINING = {"label_dropout", "draws"}  # may differ from the values of the saved model's training


class StoredModel(Protocol):
    """The saved parts of a diffusion model whose fields name its network and formulation."""

    name: ClassVar[str]
    network: str | dict[str, Any]
    formulation: str | dict[str, Any]
    module: Module
    frame: Frame
    net: Network
    form: Formulation
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def conditional(self) -> bool: ...
    def parts(self) -> None: ...


def save(model: StoredModel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    inner = unwrapped(model.module)
    with injection.plain(inner):
        save_network(model.net, inner, folder / model.net.folder)
    adapter_files.save(inner, folder)
    scheduler = dict(model.form.scheduler())
    (folder / _SCHEDULER).mkdir(exist_ok=True)
    (folder / _SCHEDULER / "scheduler_config.json").write_text(to_json(scheduler), encoding="utf-8")
    if model.net.folder == "unet" and scheduler["_class_name"] == "DDPMScheduler" and not model.conditional:
        index = {
            "_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        }
        (folder / _PIPELINE).write_text(to_json(index), encoding="utf-8")
    (folder / _SETTINGS).write_text(to_json(_settings(model)), encoding="utf-8")


def _settings(model: StoredModel) -> dict[str, Any]:
    own = {f.name: getattr(model, f.name) for f in fields(model) if f.init}
    network: Any = model.net  # both are dataclasses, as every component is
    formulation: Any = model.form
    own["network"] = {"name": _name(model.network), **asdict(network)}
    own["formulation"] = {"name": _name(model.formulation), **asdict(formulation)}
    return {"model": model.name, "fields": own, "frame": asdict(model.frame)}


def load(model: StoredModel, folder: Path) -> None:
    """Fields, frame and weights of the folder into a model whose own fields must not disagree."""
    path = folder / _SETTINGS
    saved = read_json(path)
    if not isinstance(saved, dict) or not {"model", "fields", "frame"} <= saved.keys():
        raise UserError("this is not the description of a diffusion model", where=str(path), fix="It is damaged.")
    if saved["model"] != model.name:
        raise UserError(f"a model '{saved['model']}' is saved here, not '{model.name}'", where=str(path))
    for entry in fields(model):
        if not entry.init or entry.name in _OF_TRAINING:
            continue
        given, stored = getattr(model, entry.name), saved["fields"][entry.name]
        if given != entry.default and not _agrees(given, stored):
            raise UserError(
                f"{entry.name} is {stored!r} in the saved model, but {given!r} was requested", where=str(path),
                fix=f"Change '{entry.name}:' of the model, or train it from scratch.",
            )
        setattr(model, entry.name, stored)
    at = saved["frame"]
    model.frame = Frame(tuple(at["shape"]), tuple(at["mean"]), at["scale"], at["rms"])
    model.parts()
    model.module = load_network(model.net, folder / model.net.folder)
    adapter_files.load(model.module, folder)


def _name(spec: str | Mapping[str, Any]) -> str:
    return spec if isinstance(spec, str) else str(spec["name"])


def _agrees(given: object, stored: object) -> bool:
    """Whether every requested field equals the saved one (a component's other fields are its defaults)."""
    if isinstance(stored, Mapping):
        fields = {"name": given} if isinstance(given, str) else given
        return isinstance(fields, Mapping) and all(stored.get(name) == value for name, value in fields.items())
    return bool(given == stored)
