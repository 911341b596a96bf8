"""The reference pages of components, one a kind, generated from their docstrings and dataclass fields."""

from __future__ import annotations

import inspect
import re

from upturn.config import components

TITLES = {  # where a kind's name and an s do not make the title
    "mixing_policy": "Mixing policies",
    "schedule": "Learning-rate schedules",
    "section": "Report sections",
    "experiment": "Experiments of the lab",
}


def title(kind: str) -> str:
    return TITLES.get(kind, kind.replace("_", " ").capitalize() + "s")


def pages() -> dict[str, str]:
    """The index and one page a kind, by path within the reference."""
    out = {"components/index.md": index()}
    for kind in components.FOLDERS:
        out[f"components/{kind}.md"] = page(kind)
    return out


def index() -> str:
    lines = [
        "# Components\n",
        "Every component that a recipe can name. The pages are generated from the docstrings; `upturn list KIND` "
        "prints the same.\n",
        "| kind | folder | components |",
        "| --- | --- | --- |",
    ]
    for kind, folder in components.FOLDERS.items():
        found = ", ".join(f"[`{name}`]({kind}.md#{name})" for name in components.names(kind))
        lines.append(f"| [{title(kind)}]({kind}.md) | `{folder.replace('.', '/')}/` | {found} |")
    return "\n".join([*lines, ""])


def page(kind: str) -> str:
    lines = [f"# {title(kind)}\n"]
    for name in components.names(kind):
        cls = components.find(kind, name)
        _, rows = components.describe(kind, name)
        doc = inspect.cleandoc(cls.__doc__ or "")
        lines += [f"## {name} {{#{name}}}\n", prose(doc), ""]
        if rows:
            lines += ["| field | type | default |", "| --- | --- | --- |"]
            lines += [f"| `{field}` | {cell(hint)} | {default(value)} |" for field, hint, value in rows]
        lines.append("")
        source = cls.__module__.replace(".", "/")
        lines += [f"Source: `src/{source}.py`\n"]
    return "\n".join(lines)


def prose(doc: str) -> str:
    """A docstring as Markdown: double backticks to single, indented formulas stay code, other text is escaped."""
    out = []
    for line in doc.splitlines():
        if not line.startswith("    "):
            line = re.sub(r"``([^`]+)``", r"`\1`", line)
            parts = line.split("`")
            for i in range(0, len(parts), 2):
                parts[i] = re.sub(r"([*_<\[\]])", r"\\\1", parts[i])
            line = "`".join(parts)
        out.append(line)
    return "\n".join(out)


def cell(text: str) -> str:
    return "`" + text.replace("|", "&#124;").replace("`", "'") + "`" if "|" not in text else code(text)


def code(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return f"<code>{escaped}</code>"


def default(text: str) -> str:
    return "**required**" if text == "required" else code(text)
