"""Every how-to page is run: its files are written, its programs and commands executed, its printed output compared.

Blocks are executed in the order of the page, in one empty directory:

- a block with ``title="PATH"`` is written to that file;
- a ``python`` block without a title is executed;
- each line of a ``bash`` block is a command. ``upturn`` runs in this process, which saves its start; ``# exit 3``
  states another exit status than 0;
- a ``text`` block is what the block before printed. Numbers and identifiers may differ, ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from upturn import cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").rglob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: +title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]?\d+)?%?")


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    body: str
    line: int


def blocks(text: str) -> list[Block]:
    return [Block(m[1], m[2] or "", m[3], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def upturn(arguments: list[str]) -> tuple[int, str]:
    """Exit status and output of the command line, run in this process."""
    out = io.StringIO()
    before = sys.argv
    sys.argv = ["upturn", *arguments]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = before
    return status, out.getvalue()


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Exit status and output of a command; ``upturn`` is the one of this checkout."""
    path = f"{folder / '.bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "200", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}."}
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode  # as a shell reports a signal
    return status, done.stdout + done.stderr


def command(line: str, folder: Path) -> str:
    """Runs one line of a bash block and returns what it printed."""
    words = shlex.split(line, comments=True)
    stated = re.search(r"# exit (\d+)", line)
    expected = int(stated[1]) if stated else 0
    status, out = upturn(words[1:]) if words[0] == "upturn" else shell(line, folder)
    assert status == expected, f"{line}\nexit status {status}, not {expected}\n{out}"
    return out


def execute(body: str, page: Path) -> str:
    """Runs a Python block and returns what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(body, str(page), "exec"), {"__name__": "__main__"})  # the program of a page of ours
    return out.getvalue()


def differs(expected: str, printed: str) -> str | None:
    """The first line of ``expected`` that ``printed`` lacks, in order; None where there is none."""
    have = [normal(line) for line in printed.splitlines()]
    at = 0
    for line in expected.splitlines():
        pattern = ".*".join(re.escape(part.strip()) for part in normal(line).split("..."))
        if not pattern.replace(".*", "").strip():
            continue
        while at < len(have) and not re.fullmatch(f".*?{pattern}.*?" if "..." in line else pattern, have[at]):
            at += 1
        if at == len(have):
            return line
        at += 1
    return None


def normal(line: str) -> str:
    """A line without what may differ between machines: numbers, identifiers, spaces, the frames of tables."""
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b", "#", line)
    line = NUMBER.sub("#", line)
    line = re.sub(r"[│┃|━─┏┓┡┩└┘┴┬┼╇┗┛]", " ", line)
    return " ".join(line.split())


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current directory, from which components are imported; forgotten afterwards."""
    shim = tmp_path / ".bin" / "upturn"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from upturn.cli import main; main()' \"$@\"\n")
    shim.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs" / "how-to")))
def test_a_page_runs_and_prints_its_output(page: Path, workplace: Path) -> None:
    printed, ran = "", 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.title:
            path = workplace / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            printed, ran = execute(block.body, page), ran + 1
        elif block.language == "bash":
            printed, ran = "", ran + 1
            for line in block.body.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    printed += command(line, workplace)
        elif block.language == "text":
            line = differs(block.body, printed)
            assert line is None, f"{page.name}:{block.line}: not printed: {line}\nprinted was:\n{printed}"
    assert ran or page.name == "index.md", "the page runs nothing"


def test_output_is_compared_without_numbers() -> None:
    assert differs("a 1.5 b\nc ... e", "a  2 b\nx\nc d e\n") is None
    assert differs("a 1.5 b", "a 1.5 c") == "a 1.5 b"
    assert differs("b\na", "a\nb") == "a"


def test_blocks_are_read_with_their_titles() -> None:
    text = 'x\n```yaml title="a.yaml"\nname: a\n```\n\n```bash\nupturn run a.yaml\n```\n'
    assert [(b.language, b.title, b.body, b.line) for b in blocks(text)] == [
        ("yaml", "a.yaml", "name: a\n", 2), ("bash", "", "upturn run a.yaml\n", 6),
    ]  # fmt: skip
