"""A name in a recipe -> the class in the file of that name, or ``"their_package.module:Class"``.

There is no registry: ``best_of_n`` among the curators is ``upturn/curators/best_of_n.py``, class ``BestOfN``.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from upturn.errors import UserError

FOLDERS: Mapping[str, str] = {
    "source": "upturn.data.sources",
    "caption": "upturn.data.captions",
    "mixing_policy": "upturn.data.mixing",
    "feature": "upturn.features",
    "formulation": "upturn.diffusion.formulations",
    "network": "upturn.diffusion.networks",
    "sampler": "upturn.diffusion.samplers",
    "model": "upturn.models",
    "adapter": "upturn.adapters",
    "objective": "upturn.objectives",
    "scorer": "upturn.scorers",
    "curator": "upturn.curators",
    "metric": "upturn.metrics",
    "optimizer": "upturn.training.optimizers",
    "schedule": "upturn.training.schedules",
    "vote_mode": "upturn.annotation.modes",
    "experiment": "upturn.lab.experiments",
    "section": "upturn.report.sections",
}

BASES: Mapping[str, tuple[str, str]] = {  # module and name of the class that a component of the kind inherits
    **{kind: ("upturn.protocols", base) for kind, base in {
        "source": "Source", "caption": "Caption", "feature": "Features", "model": "Trainable", "adapter": "Adapter",
        "objective": "Objective", "scorer": "Scorer", "curator": "Curator", "metric": "Metric",
    }.items()},
    "mixing_policy": ("upturn.data.base_mixing_policy", "BaseMixingPolicy"),
    "sampler": ("upturn.diffusion.base_sampler", "BaseSampler"),
    "vote_mode": ("upturn.annotation.vote_mode", "VoteMode"),
    "experiment": ("upturn.lab.experiment", "Experiment"),
    "section": ("upturn.report.section", "Section"),
}


def names(kind: str) -> list[str]:
    """The components of a kind that ship with upturn; a file that begins with _ is a helper."""
    package = importlib.import_module(FOLDERS[kind])
    found = (info.name for info in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def check_name(kind: str, name: str, where: str = "") -> None:
    """Raises UserError naming the nearest name where upturn has no such component; imports nothing of it."""
    known = names(kind)
    if ":" in name or name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise UserError(
        f"there is no {kind.replace('_', ' ')} '{name}'", where=where,
        fix=f"{hint}Known: {', '.join(known)}; or give your own as 'package.module:Class'.",
    )


def find(kind: str, name: str, where: str = "") -> type[Any]:
    """The class of a component.

    Raises UserError naming the nearest name, or what could not be imported and why.
    """
    check_name(kind, name, where)
    if ":" in name:
        module_name, class_name = name.split(":", 1)
    else:
        module_name = f"{FOLDERS[kind]}.{name}"
        class_name = "".join(part.capitalize() for part in name.split("_"))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"the {kind} '{name}' cannot be imported: {error}", where=where,
            fix="Start upturn in the folder that holds its module, put that folder into PYTHONPATH, or install it."
            if ":" in name else "Install what it needs.",
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise UserError(
            f"{module_name} has no dataclass '{class_name}'", where=where,
            fix=f"A {kind} is one dataclass named after its file.",
        )
    _check_base(kind, found, where)
    return found


def _check_base(kind: str, found: type[Any], where: str) -> None:
    """Raises UserError where a component lacks the base class that declares what other code reads of it."""
    if kind not in BASES:
        return
    module, base = BASES[kind]
    if not issubclass(found, getattr(importlib.import_module(module), base)):
        raise UserError(
            f"{found.__module__}:{found.__name__} is no {kind}: it does not inherit {module}.{base}",
            where=where, fix=f"Write 'class {found.__name__}({base}):'.",
        )


def installed(kind: str, name: str) -> type[Any] | None:
    """The class of a component; None where it is not here, as of a run that another machine made."""
    try:
        return find(kind, name)
    except UserError:
        return None


def make(kind: str, spec: str | Mapping[str, Any], where: str = "") -> Any:
    """A live component from its name, or from a mapping of ``name`` and its fields, every type checked."""
    fields = {"name": spec} if isinstance(spec, str) else dict(spec)
    if not isinstance(fields.get("name"), str):
        raise UserError(
            f"a {kind} needs a name", where=where, fix=f"Write 'name: …', one of {', '.join(names(kind))}."
        )
    name = fields.pop("name")
    return checked(find(kind, name, where), fields, where, f"{kind} '{name}'")


def checked(cls: type[Any], fields: Mapping[str, Any], where: str, what: str) -> Any:
    """An instance of a dataclass from YAML: unknown keys and wrong types are one clear message."""
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for given in fields:
        if given not in known:
            near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"{what} has no field '{given}'", where=f"{where}.{given}" if where else str(given),
                fix=f"{hint}It has: {', '.join(known) or 'none'}.",
            )
    hints = get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.name in fields:
            at = f"{where}.{item.name}" if where else item.name
            values[item.name] = typed(hints[item.name], fields[item.name], at)
        elif item.init and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise UserError(f"{what} needs '{item.name}'", where=where, fix=f"Add '{item.name}: …'.")
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(str(error), where=where) from error


def typed(hint: Any, value: object, where: str) -> Any:
    """``value`` as ``hint``, or a UserError that names the key, what is there and what is allowed."""
    try:
        config = None if _has_own_config(hint) else ConfigDict(strict=False)
        return TypeAdapter(hint, config=config).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        inner = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{value!r} does not fit: {first['msg'].lower()}", where=f"{where}.{inner}" if inner else where,
            fix="Fix the value.",
        ) from error


def _has_own_config(hint: object) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "model_config"))


def describe(kind: str, name: str) -> tuple[str, list[tuple[str, str, str]]]:
    """One line of summary, and (field, type, default) for each field."""
    cls = find(kind, name)
    summary = (cls.__doc__ or "").strip().splitlines()[0]
    rows = []
    for item in dataclasses.fields(cls):
        if not item.init:
            continue
        if item.default is not dataclasses.MISSING:
            default = repr(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            default = repr(item.default_factory())
        else:
            default = "required"
        kind_of = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
        rows.append((item.name, kind_of, default))
    return summary, rows
