"""The tests of a program, as prompts carry them."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import Any

_INPUTS, _OUTPUTS = ("input", "stdin"), ("output", "stdout")


class NoTests(Exception):
    """The text holds no test; the exception's text is the reason."""


@dataclass(frozen=True)
class ProgramCase:
    """What a program reads on standard input, and what it must print."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Tests:
    """Either statements, run in sequence after the program in its namespace, or cases, each in a separate run.

    steps  (source, whether it is a test): ``assert`` and bare calls are tests; imports, definitions and assignments
           prepare them
    """

    steps: tuple[tuple[str, bool], ...] = ()
    cases: tuple[ProgramCase, ...] = ()

    def __len__(self) -> int:
        return len(self.cases) or sum(test for _, test in self.steps)


def read_tests(text: str) -> Tests:
    """Tests in any of the forms that data sets use. Raises NoTests.

    Python statements (HumanEval); a JSON list of such texts (MBPP); a JSON list of {"input": …, "output": …}, also
    "stdin" and "stdout"; a JSON object {"inputs": [...], "outputs": [...]} (APPS).
    """
    if not text.strip():
        raise NoTests("nothing is written")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _statements(text)
    if isinstance(found, dict):
        found = _paired(found)
    if not isinstance(found, list) or not found:
        raise NoTests("it is JSON, but no list of tests")
    if all(isinstance(item, str) for item in found):
        return _statements("\n".join(found))
    return Tests(cases=tuple(_case(item, number) for number, item in enumerate(found, 1)))


def same_output(printed: str, expected: str) -> bool:
    """Equal save for space at the ends of lines and empty lines at the end, as programming contests compare."""
    return _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n").split("\n")


def _statements(text: str) -> Tests:
    try:
        parsed = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoTests(f"neither JSON nor Python: {error}") from error
    steps = tuple((ast.unparse(node), _is_test(node)) for node in parsed.body)
    if not any(test for _, test in steps):
        raise NoTests("there is no assert and no call in it")
    return Tests(steps=steps)


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def _paired(found: dict[str, Any]) -> list[dict[str, Any]]:
    if "fn_name" in found:
        raise NoTests("it tests a function by name ('fn_name'): write assert lines instead")
    inputs, outputs = found.get("inputs"), found.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise NoTests("a JSON object must have 'inputs' and 'outputs', lists of one length")
    return [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]


def _case(item: object, number: int) -> ProgramCase:
    if isinstance(item, dict):
        given = next((item[name] for name in _INPUTS if name in item), "")
        wanted = next((item[name] for name in _OUTPUTS if name in item), None)
        if isinstance(given, str) and isinstance(wanted, str):
            return ProgramCase(given, wanted)
    raise NoTests(f"test {number} is neither a statement nor an object of texts 'input' and 'output'")
