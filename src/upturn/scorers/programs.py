"""A verifier that runs programs against tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.protocols import Scorer, Tools
from upturn.sandbox.bubblewrap import Limits, Sandbox, opened
from upturn.sandbox.output import Ended
from upturn.scorers._fences import last_fenced
from upturn.scorers._program_tests import NoTests, Tests, read_tests, same_output
from upturn.scorers._verdicts import Verdict, check_text, quoted, unscored
from upturn.types import Samples, Scores, objects

_MOST_CHARACTERS = 200_000  # of a program; a longer one is wrong without being run
_QUOTED = 150  # of an error


@dataclass(frozen=True)
class Programs(Scorer):
    """Right (1) where a Python program passes every test of its prompt, run inside bubblewrap; wrong (0) elsewhere.

    The program is the last fenced block of the completion, or where there is none the whole. Tests are, in a field of
    the prompt: Python statements (each ``assert`` and each bare call is a test, run in sequence in the
    program's namespace, under one limit); a JSON list of such texts; or a JSON list of {"input", "output"}, each a run
    of its own, whose standard output must be equal save for space at the ends of lines. A program can deceive
    statements, which run in its process (an object that equals everything); it cannot deceive outputs, which never
    enter the sandbox.

    Unscored (NaN): a prompt without the field, or whose tests cannot be read. UserError, before anything is run, where
    bubblewrap is missing or cannot make a sandbox; a program is never run outside.

    tests            the field of the prompt
    credit           ``all``: 1 or 0; ``share``: the share of tests passed (then 'verifier_accuracy' is undefined)
    continues_prompt the program is the prompt's text and the completion after it, unchanged (HumanEval)
    python           an interpreter whose packages programs may import; null: the one that runs this, no packages
    memory_mb        address space of each process
    cpu_seconds, wall_seconds   of one run
    processes        processes and threads at once, the program's own included
    files_mb         the work folder, and each file
    output_kb        all that it prints
    at_once          programs that run in parallel; null: one a core
    """

    tests: str = "tests"
    credit: Literal["all", "share"] = "all"
    continues_prompt: bool = False
    python: str | None = None
    memory_mb: int = 512  # an interpreter and its standard library take 30
    cpu_seconds: int = 5  # above the 3 s that Chen et al. (2021) give a HumanEval program
    wall_seconds: float = 10.0
    processes: int = 1  # then memory_mb is the limit of the whole program
    files_mb: int = 16
    output_kb: int = 256
    at_once: int | None = None

    @property
    def verifies(self) -> bool:
        return self.credit == "all"

    def __post_init__(self) -> None:
        for name in ("memory_mb", "cpu_seconds", "wall_seconds", "processes", "files_mb", "output_kb", "at_once"):
            given = getattr(self, name)
            if given is not None and given <= 0:
                raise ValueError(f"{name} must be above 0, not {given}")
        if self.memory_mb < 64:
            raise ValueError(f"memory_mb must be at least 64 for an interpreter to start, not {self.memory_mb}")
        opened(self.python)  # now rather than after hours of training

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN (with ``share`` any in [0, 1]), with an explanation for each.

        Raises UserError on samples that are not text, RunError where the machine can no longer start a sandbox.
        """
        check_text("programs", samples)
        sandbox = opened(self.python)
        read: dict[str, Tests | str] = {}
        verdicts: dict[tuple[str, str], Verdict] = {}
        requested = []
        for prompt, content in zip(samples.prompts, samples.content, strict=True):
            written = prompt.fields.get(self.tests, "")
            if written not in read:
                read[written] = self._read(written)
            requested.append((self._program(prompt.text, content), written))
        wanted = list(dict.fromkeys(requested))
        pool = ThreadPoolExecutor(self.at_once or os.cpu_count() or 1)
        try:
            judged = pool.map(lambda pair: self._verdict(sandbox, pair[0], read[pair[1]]), wanted)
            verdicts = dict(zip(wanted, judged, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        values = np.array([verdicts[pair][0] for pair in requested], dtype=np.float64)
        return Scores("programs", values, objects([verdicts[pair][1] for pair in requested]))

    def _read(self, written: str) -> Tests | str:
        if not written:
            return f"the prompt has no field '{self.tests}'"
        try:
            return read_tests(written)
        except NoTests as error:
            return f"the field '{self.tests}' holds no tests: {error}"

    def _program(self, prompt: str, content: str) -> str:
        if self.continues_prompt:
            return prompt + content
        block = last_fenced(content)
        return content if block is None else block

    def _verdict(self, sandbox: Sandbox, program: str, tests: Tests | str) -> Verdict:
        if isinstance(tests, str):
            return unscored(tests)
        if not program.strip():
            return 0.0, "wrong: nothing is written"
        if len(program) > _MOST_CHARACTERS:
            return 0.0, f"wrong: longer than {_MOST_CHARACTERS} characters"
        passed, fault = (self._cases if tests.cases else self._steps)(sandbox, program, tests)
        if fault is None:
            return 1.0, "right" if self.credit == "all" else f"right: {len(tests)} of {len(tests)} tests"
        if self.credit == "share":
            return passed / len(tests), f"{passed} of {len(tests)} tests; {fault}"
        return 0.0, f"wrong: {fault}"

    def _limits(self) -> Limits:
        return Limits(
            self.memory_mb, self.cpu_seconds, self.wall_seconds, self.processes, self.files_mb, self.output_kb
        )

    def _cases(self, sandbox: Sandbox, program: str, tests: Tests) -> tuple[int, str | None]:
        """How many passed, and the first fault; with ``all`` none is run after it."""
        passed, first = 0, None
        for number, case in enumerate(tests.cases, 1):
            ended = sandbox.run(program, self._limits(), stdin=case.stdin)
            fault = _broken(ended)
            if fault is None and not same_output(ended.stdout, case.stdout):
                fault = f"it printed {quoted(ended.stdout)}, not {quoted(case.stdout)}"
            if fault is None:
                passed += 1
            elif first is None:
                first = f"test {number} of {len(tests)}: {fault}"
                if self.credit == "all":
                    break
        return passed, first

    def _steps(self, sandbox: Sandbox, program: str, tests: Tests) -> tuple[int, str | None]:
        ended = sandbox.run(program, self._limits(), steps=list(tests.steps))
        if ended.errors.get(-1):
            return 0, f"the program raised {ended.errors[-1]}"
        passed = sum(test and _went_well(ended.errors, number) for number, (_, test) in enumerate(tests.steps))
        for number, (step, _) in enumerate(tests.steps):
            if not _went_well(ended.errors, number):
                why = ended.errors.get(number) or _broken(ended) or "it ended before"
                return passed, f"{quoted(step)}: {why}"
        return passed, None


def _went_well(errors: Mapping[int, str | None], number: int) -> bool:
    return number in errors and errors[number] is None


def _broken(ended: Ended) -> str | None:
    """Why a run did not come to its end, or None."""
    if ended.stopped:
        return ended.stopped
    if ended.code == 0:
        return None
    if ended.code == 128 + signal.SIGKILL:  # what the limit of CPU time sends; a kernel out of memory sends it, too
        return "it was killed: CPU time, or memory"
    return ended.last_error[:_QUOTED] or f"it ended with code {ended.code}"
