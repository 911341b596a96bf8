"""Programs against tests: what is right, what is wrong, and what is neither. Without bubblewrap most are skipped."""

from __future__ import annotations

import json
import math
import sys
import threading
import time

import pytest

from helpers.sandbox_cases import ADD, TWICE, judged, printed, samples, sandboxed
from upturn.errors import UserError
from upturn.sandbox import bubblewrap
from upturn.scorers._program_tests import NoTests, read_tests, same_output
from upturn.scorers.programs import Programs

pytestmark = pytest.mark.slow


@sandboxed
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def add(a, b):\n    return a + b", ADD),
        ("Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nThat is it.", ADD),
        ("def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    input()", ADD),
        ("def add(a, b):\n    return a + b", json.dumps(ADD.split("\n"))),
        ("def add(a, b):\n    return a + b", "def check(f):\n    assert f(2, 3) == 5\ncheck(add)"),
        ("import dataclasses, re\n@dataclasses.dataclass\nclass P:\n    x: int", "p = P(3)\nassert p.x == 3"),
        ("print('noise')\ndef add(a, b):\n    print('more')\n    return a + b", ADD),
        ("print(2 * int(input()))", TWICE),
        ("import sys\nfor line in sys.stdin:\n    print(int(line) * 2, ' ')\n    print()", TWICE),
        ("if __name__ == '__main__':\n    print(2 * int(input()))\n    exit()", TWICE),
        ("print(2 * int(input()))", json.dumps({"inputs": ["3", "4"], "outputs": ["6", "8"]})),
        ("open('a', 'w').write('b')\nprint(open('a').read())", json.dumps([{"stdin": "", "stdout": "b"}])),
        ("print(input())", json.dumps([{"input": "žluť", "output": "žluť"}])),
    ],
    ids=range(13),
)  # fmt: skip
def test_right(program: str, tests: str) -> None:
    assert judged(program, tests) == (1.0, "right")


@sandboxed
@pytest.mark.parametrize(
    ("program", "tests", "why"),
    [
        ("def add(a, b):\n    return a * b", ADD, "'assert add(1, 2) == 3': AssertionError"),
        ("def add(a, b):\n    return a / 0", ADD, "ZeroDivisionError: division by zero"),
        ("", ADD, "nothing is written"), ("```\n```", ADD, "nothing is written"),
        ("def add(a, b", ADD, "the program raised SyntaxError"), ("x = '\x00'", ADD, "the program raised"),
        ("x = '\ud800'", ADD, "the program raised UnicodeEncodeError"), ("def sub(): pass", ADD, "NameError"),
        ("import sys\nsys.exit(0)", ADD, "the program raised SystemExit: 0"), ("(" * 5000, ADD, "the program raised"),
        ("import os\nos._exit(0)", ADD, "it ended before"),
        ("def add(a, b):\n    import os\n    os._exit(0)", ADD, "it ended before"),
        ("def add(a, b):\n    raise SystemExit", ADD, "SystemExit"), ("#" * 300_000, ADD, "longer than"),
        ("class E(Exception):\n    def __str__(self): return self.x\nraise E", ADD, "the program raised E"),
        ("raise ValueError('a\\nb\\x1b[31m')", ADD, "the program raised ValueError: a b�[31m"),
        ("import torch", ADD, "ModuleNotFoundError"),
        ("print(3 * int(input()))", TWICE, "test 1 of 2: it printed '9\\n', not '6\\n'"),
        ("print(6)", TWICE, "test 2 of 2"), ("int(input()) / 0", TWICE, "ZeroDivisionError"),
        ("print(2 * int(input()))\nexit(1)", TWICE, "it ended with code 1"),
        ("import ctypes\nctypes.string_at(0)", TWICE, "it ended with code 139"),
    ],
    ids=range(22),
)  # fmt: skip
def test_wrong(program: str, tests: str, why: str) -> None:
    score, reason = judged(program, tests)
    assert score == 0.0 and reason.startswith("wrong: ") and why in reason and len(reason) < 500, reason


@sandboxed
def test_unscored_where_there_are_no_tests() -> None:
    for tests, why in (("", "no field 'tests'"), ("x = 1", "no assert"), ("assert (", "neither JSON nor Python"),
                       ("[]", "no list of tests"), ("[3]", "test 1 is neither"), ('{"fn_name": "f"}', "fn_name"),
                       ('{"inputs": ["1"], "outputs": []}', "of one length"), ("[" * 100_000, "neither")):  # fmt: skip
        score, reason = judged("def add(a, b):\n    return a + b", tests)
        assert math.isnan(score) and reason.startswith("unscored: ") and why in reason


@sandboxed
def test_the_share_of_tests_passed() -> None:
    reason = "1 of 2 tests; 'assert add(1, 2) == 3': AssertionError"
    assert judged("def add(a, b):\n    return a * b", credit="share") == (0.5, reason)
    assert judged("def add(a, b):\n    return a + b", credit="share")[0] == 1.0
    assert judged("raise ValueError", credit="share")[0] == 0.0
    assert judged("print(6)", TWICE, credit="share")[0] == 0.5
    stuck = "def add(a, b):\n    while a != b: pass\n    return 4"
    assert judged(stuck, credit="share", cpu_seconds=1)[0] == 0.5  # what passed before the end counts


@sandboxed
def test_a_completion_that_goes_on_from_its_prompt() -> None:
    head = "def add(a, b):\n    '''The sum.'''\n"
    assert judged("    return a + b", ADD, head, continues_prompt=True)[0] == 1.0
    assert judged("    return a + b", ADD, head)[0] == 0.0


@sandboxed
def test_with_another_interpreter_its_packages_can_be_imported() -> None:
    program = "import numpy\ndef add(a, b):\n    return numpy.add(a, b)"
    assert judged(program)[0] == 0.0
    assert judged(program, python=sys.executable, cpu_seconds=20, wall_seconds=60) == (1.0, "right")
    with pytest.raises(UserError, match="is no Python interpreter that runs"):
        Programs(python="/bin/false")


@pytest.mark.long
@sandboxed
def test_one_slow_program_does_not_hold_up_the_others_and_order_is_kept() -> None:
    programs = [f"def add(a, b):\n    return a + b + {i % 2}" for i in range(12)]
    programs[3] = "import time\ntime.sleep(60)"
    started = time.perf_counter()
    values = Programs(at_once=4, wall_seconds=3.0).score(samples(programs, ADD)).values
    assert values.tolist() == [1.0, 0.0, 1.0, 0.0] + [1.0, 0.0] * 4
    assert time.perf_counter() - started < 20.0


@sandboxed
def test_the_same_program_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = threading.Semaphore(0)
    run = bubblewrap.Sandbox.run
    monkeypatch.setattr(bubblewrap.Sandbox, "run", lambda *a, **k: (count.release(), run(*a, **k))[1])
    values = Programs().score(samples(["def add(a, b):\n    return a + b"] * 50, ADD)).values
    assert (values == 1.0).all() and count._value == 1


@sandboxed
def test_the_verdict_does_not_depend_on_hash_order() -> None:
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert len({printed(program) for _ in range(4)}) == 1


def test_tests_are_read_in_every_form() -> None:
    assert len(read_tests(ADD)) == 2 and len(read_tests(TWICE)) == 2
    assert read_tests("import math\nx = 1\nassert x\n'text'\nprint(x)").steps == (
        ("import math", False), ("x = 1", False), ("assert x", True), ("'text'", False), ("print(x)", True),
    )  # fmt: skip
    with pytest.raises(NoTests):
        read_tests("def f(): pass")


def test_outputs_are_compared_as_contests_do() -> None:
    assert same_output("1 2 \n3\n\n", "1 2\n3") and same_output("", "\n") and same_output("a\r\nb", "a\nb")
    assert not same_output("1  2", "1 2") and not same_output("\n1", "1") and not same_output("1\n\n2", "1\n2")


@pytest.mark.parametrize("field", ["memory_mb", "cpu_seconds", "wall_seconds", "processes", "output_kb", "at_once"])
def test_limits_that_are_none_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        Programs(**{field: 0})
