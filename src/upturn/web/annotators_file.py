"""Reads a file of annotators: YAML (a list of {name, role, team, quota}) or CSV with these columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, get_args

import yaml

from upturn.annotation.db.validation import Role
from upturn.errors import UserError

_KEYS = ("name", "role", "team", "quota")


def people_in(path: Path) -> list[dict[str, Any]]:
    """The entries of the file. UserError naming the file and the entry."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = list(csv.DictReader(io.StringIO(text))) if path.suffix == ".csv" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error) as error:
        raise UserError(f"this file cannot be read: {str(error).splitlines()[0]}", where=str(path)) from error
    if not isinstance(found, list):
        raise UserError("a list of people is expected", where=str(path), fix="Write '- {name: ada, team: a}' lines.")
    people = [_person(entry, f"{path}, entry {number}") for number, entry in enumerate(found, start=1)]
    names = [person["name"] for person in people]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"'{twice[0]}' stands there twice", where=str(path), fix="Give everybody a name of their own.")
    return people


def _person(entry: object, where: str) -> dict[str, Any]:
    entry = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not str(entry.get("name") or "").strip():
        raise UserError("a person has a name", where=where, fix="Write 'name: …'.")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise UserError(f"a person has no '{unknown[0]}'", where=where, fix=f"It has: {', '.join(_KEYS)}.")
    role = str(entry.get("role") or "voter").strip()
    if role not in get_args(Role):
        raise UserError(f"there is no role '{role}'", where=where, fix=f"One of: {', '.join(get_args(Role))}.")
    quota = entry.get("quota")
    if quota is not None and str(quota).strip() == "":
        quota = None
    if quota is not None and not str(quota).strip().isdigit():
        raise UserError(f"a quota is a number, not '{quota}'", where=where)
    return {"name": str(entry["name"]).strip(), "role": role, "team": str(entry.get("team") or "").strip(),
            "quota": None if quota is None else int(str(quota))}
