"""Helpers for the tests of program execution in the sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from upturn.errors import UserError
from upturn.sandbox.bubblewrap import Limits, opened
from upturn.scorers.programs import Programs
from upturn.types import Prompt, Samples, real_samples

ADD = "assert add(2, 2) == 4\nassert add(1, 2) == 3"
TWICE = json.dumps([{"input": "3\n", "output": "6\n"}, {"input": "-4\n", "output": "-8"}])


def why_not() -> str:
    try:
        opened(None)
    except UserError as error:
        return str(error)
    return ""


sandboxed = pytest.mark.skipif(bool(why_not()), reason=f"no sandbox here: {why_not()}")


def samples(programs: list[str], tests: str, text: str = "?") -> Samples:
    return real_samples("text", programs, [Prompt(text, fields={"tests": tests})] * len(programs), "s")


def judged(program: str, tests: str = ADD, text: str = "?", **settings: Any) -> tuple[float, str]:
    scores = Programs(**settings).score(samples([program], tests, text))
    assert scores.explanations is not None
    return float(scores.values[0]), str(scores.explanations[0])


def attempt(*lines: str) -> str:
    """A program that tries these lines and prints the number of the error, if there is one."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"import os, resource, socket, time\ntry:\n{body}except OSError as error:\n    print(error.errno)\n"


def printed(program: str, **settings: Any) -> str:
    """What a program prints inside; it must end well."""
    ended = opened(None).run(program, Limits(**settings))
    assert ended.code == 0 and not ended.stopped, ended
    return ended.stdout
