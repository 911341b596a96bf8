"""The reference page of the command line, generated from the typer application."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import typer

from upturn.cli import app

KINDS = {Path: "path", int: "integer", float: "number", str: "text"}


def page() -> str:
    root = typer.main.get_command(app)
    lines = [
        "# Command line\n",
        "Generated from the commands themselves; `upturn COMMAND --help` prints the same. Exit status: 0 done, 1 a run "
        "failed, 2 bad input, 3 the run waits for votes.\n",
    ]
    for path, command in walk(root, ["upturn"]):
        lines += section(path, command)
    return "\n".join([*lines, ""])


def walk(command: Any, path: list[str]) -> list[tuple[list[str], Any]]:
    """Every command that does something, with its path. A group that runs by itself is one of them."""
    children = getattr(command, "commands", {})
    found = [(path, command)] if not children or command.invoke_without_command else []
    for name, child in children.items():
        found += walk(child, [*path, name])
    return found


def section(path: list[str], command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = [*path, *(usage_of(p) for p in arguments), *(["[OPTIONS]"] if options else [])]
    lines = [f"## {' '.join(path)}\n", escape(paragraphs(command.help or "")), ""]
    lines += ["```text", " ".join(usage), "```", ""]
    if options:
        lines += ["| option | meaning | default |", "| --- | --- | --- |"]
        lines += [row(option) for option in options]
        lines.append("")
    return lines


def usage_of(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name or "").upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if not option.is_flag:
        names += f" {escape((option.metavar or kind(option)).upper())}"
    value = option.default
    unstated = callable(value) or value is None or value is False or value in ((), [])
    written = "" if unstated else f"`{value}`"
    return f"| {names} | {escape((option.help or '').replace(chr(10), ' '))} | {written} |"


def kind(option: Any) -> str:
    """The type of an option's value in one word."""
    hint = option.type_descriptor.annotation
    found = [h for h in (hint, *get_args(hint)) if inspect.isclass(h) and h in KINDS]
    return KINDS[found[0]] if found else "value"


def paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines()).replace("\f", "").replace("\b", "")


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
