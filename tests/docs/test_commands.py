"""Tests that the README's commands are those that CI and the tests run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = ("bash", "sh", "shell", "console")



def commands(text: str) -> list[list[str]]:
    """The commands in fenced shell blocks that begin with make or upturn, split as a shell would."""
    found = []
    for language, body in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        if language not in SHELLS:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            for part in _parts(words):
                if part[0] in ("make", "upturn"):
                    found.append(part)
    return found


def _parts(words: list[str]) -> Iterator[list[str]]:
    """``a && b`` is two commands."""
    part: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", ";", "|"):
            if part:
                yield part
            part = []
        else:
            part.append(word)


def make_recipes(text: str) -> dict[str, list[str]]:
    """The lines that each target of a Makefile runs."""
    targets: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        head = re.match(r"^([\w.-]+) *:(?!=)", line)
        if head:
            current = targets.setdefault(head[1], [])
        elif line.startswith("\t"):
            current.append(line.strip().lstrip("@"))
    return targets


def complaints(words: list[str], makefile: str, ci: str, tested: frozenset[str], root: Any) -> list[str]:
    """What is stale in one command; ``root`` is the command line's click command."""
    if words[0] == "upturn":
        return _of_upturn(words, tested, root)
    targets, out = make_recipes(makefile), []
    for target in (word for word in words[1:] if "=" not in word):
        if target not in targets:
            out.append(f"the Makefile has no target '{target}'")
        elif not re.search(rf"\bmake\b[^\n]*\b{re.escape(target)}\b", ci):
            # CI does not make it: then the upturn commands that it runs are to be tested ones
            inner = [shlex.split(line, comments=True) for line in targets[target] if "upturn" in line]
            ours = [["upturn", *part[1:]] for line in inner for part in _parts(line) if part[0].endswith("upturn")]
            if not ours:
                out.append(f"'make {target}' is not run by .ci/run")
            out += [complaint for command in ours for complaint in _of_upturn(command, tested, root)]
    return out


def _of_upturn(words: list[str], tested: frozenset[str], root: Any) -> list[str]:
    command, rest, path = root, words[1:], ["upturn"]
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return [f"'{' '.join(path)}' has no command '{rest[0]}'"]
        command, path, rest = command.commands[rest[0]], [*path, rest[0]], rest[1:]
    options = {name: p for p in command.params for name in [*p.opts, *p.secondary_opts] if name.startswith("-")}
    options["--help"] = None
    out, positional, waiting = [], 0, 0
    for word in rest:
        if waiting:
            waiting -= 1
        elif word.startswith("-") and len(word) > 1:
            name, given, _ = word.partition("=")
            if name not in options:
                out.append(f"'{' '.join(path)}' has no option '{name}'")
            elif not given and (p := options[name]) is not None and not getattr(p, "is_flag", False):
                waiting = p.nargs
        else:
            positional += 1
            if word.startswith("recipes/") and not (ROOT / word).is_file():
                out.append(f"there is no file '{word}'")
    room = sum(1 if p.nargs > 0 else 1000 for p in command.params if p.param_type_name == "argument")
    if positional > room:
        out.append(f"'{' '.join(path)}' takes {room} arguments, not {positional}")
    if len(path) > 1 and not set(path[1:]) <= tested:
        out.append(f"no test runs '{' '.join(path)}'")
    return out


@lru_cache
def words_in_tests() -> frozenset[str]:
    """Every word in a string of the tests (but these) that speak to the command line, and in `.ci/run`."""
    words: set[str] = set((ROOT / ".ci" / "run").read_text(encoding="utf-8").split())
    for path in (*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path == Path(__file__) or not re.search(r"upturn\.cli|upturn import cli|[\"'/]upturn[\"' ]", text):
            continue
        constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        words |= {word for value in constants if isinstance(value, str) for word in value.split()}
    return frozenset(words)


@lru_cache
def command_line() -> Any:
    import typer

    from upturn import cli

    return typer.main.get_command(cli.app)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")



def test_readme_has_the_two_commands() -> None:
    found = commands(read("README.md"))
    assert ["make", "demo"] in found and ["make", "test"] in found


def test_readme_and_docs_contain_only_tested_commands() -> None:
    stale = [
        f"{page.relative_to(ROOT)}: {' '.join(words)}: {complaint}"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for words in commands(page.read_text(encoding="utf-8"))
        for complaint in complaints(words, read("Makefile"), read(".ci/run"), words_in_tests(), command_line())
    ]
    assert not stale, "\n" + "\n".join(stale)


def options(text: str) -> list[tuple[str, str]]:
    """(command or "", option) of every option in inline code: in `upturn run --set a=b`, in `serve --host`, alone."""
    found = []
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`|'(--[^'\n]+)'", outside):
        words = (code[0] or code[1]).replace("[", " ").replace("]", " ").split()
        if words[:1] == ["upturn"]:
            words = words[1:]
        named = words[0] if words and not words[0].startswith("-") and (code[0] or "").find("--") > 0 else ""
        found += [(named, word.partition("=")[0]) for word in words if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)]
    return found


def known_options(command: Any) -> dict[str, set[str]]:
    """Options by the name of each command, its subcommands' among them; "" has all."""
    found: dict[str, set[str]] = {"": {"--help"}}

    def within(name: str, at: Any) -> None:
        own = {"--help"} | {word for p in at.params for word in (*p.opts, *p.secondary_opts) if word.startswith("--")}
        for key in {"", name}:
            found.setdefault(key, set()).update(own)
        for inner, each in getattr(at, "commands", {}).items():
            within(name or inner, each)
            found.setdefault(inner, set()).update(known(each))

    def known(at: Any) -> set[str]:
        return {word for p in at.params for word in (*p.opts, *p.secondary_opts) if word.startswith("--")}

    within("", command)
    return found


def test_every_option_that_a_page_names_exists() -> None:
    """Also in prose and tables, where no command is run."""
    known = known_options(command_line())
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    named = [(page, *pair) for page in pages for pair in options(page.read_text(encoding="utf-8"))]
    assert len(named) > 40
    stale = [
        f"{page.relative_to(ROOT)}: {command} {option}" for page, command, option in named
        if option not in known.get(command, known[""]) and page.parent.name != "decisions"
    ]
    assert not stale, "\n" + "\n".join(stale)


def test_options_are_found_in_inline_code() -> None:
    text = "`upturn run A --set a=b` and `--merge`, `serve --host` or '--what model'\n```bash\nupturn x --y\n```\n"
    assert options(text) == [("run", "--set"), ("", "--merge"), ("serve", "--host"), ("", "--what")]
    assert "--merge" not in known_options(command_line())[""]


def test_commands_are_found_in_shell_blocks_only() -> None:
    text = (
        "```bash\n$ make demo  # two minutes\ngit clone x && cd x && make test\nupturn run a.yaml \\\n  --name b\n```\n"
        "```python\nupturn run\n```\nmake nothing\n1. So:\n\n   ```sh\n   upturn list\n   ```\n"
    )
    expected = [["make", "demo"], ["make", "test"], ["upturn", "run", "a.yaml", "--name", "b"], ["upturn", "list"]]
    assert commands(text) == expected


MAKEFILE = "demo: setup\n\t.venv/bin/upturn run recipes/digits.yaml\ntest: setup\n\tpytest\nold:\n\tpython x.py\n"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("make test", None),
        ("make demo", None),
        ("make nothing", "no target 'nothing'"),
        ("make old", "not run by .ci/run"),
        ("upturn run recipes/digits.yaml --name x", None),
        ("upturn lab gaussian --n 100 --rounds 100 --replicas 10000 --json", None),
        ("upturn --help", None),
        ("upturn walk recipes/digits.yaml", "no command 'walk'"),
        ("upturn lab poisson", "no command 'poisson'"),
        ("upturn run recipes/digits.yaml --fast", "no option '--fast'"),
        ("upturn run recipes/none.yaml", "no file 'recipes/none.yaml'"),
        ("upturn run recipes/digits.yaml again", "takes 1 arguments, not 2"),
        ("upturn compare A B", "no test runs 'upturn compare'"),
    ],
)  # fmt: skip
def test_a_stale_command_is_found(line: str, complaint: str | None) -> None:
    tested = frozenset({"run", "lab", "gaussian"})
    found = complaints(shlex.split(line), MAKEFILE, "make setup test\n", tested, command_line())
    assert found == [] if complaint is None else any(complaint in one for one in found), found
