"""What runs in the sandbox before and around a program that nobody has read.

Its text is handed to the interpreter in there with two descriptors: the task to read, and the report to write. The
program never starts before its limits hold. It imports almost nothing: ``json`` alone would take as long as the rest.
"""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import sys

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the import
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_SHOWN = 200  # characters of an error


def main() -> None:
    task_fd, report_fd = int(sys.argv[1]), int(sys.argv[2])
    with open(task_fd, "rb") as file:
        task = marshal.load(file)
    limit(task)
    sys.argv[:] = ["program.py"]
    os.write(report_fd, b"ready\n")
    if task["steps"] is None:
        os.close(report_fd)
        run(task["program"], "__main__")
        return
    judge(task["program"], task["steps"], report_fd, task["secret"])
    os._exit(0)  # threads that the program left do not hold it up


def limit(task: dict[str, Any]) -> None:
    """Never to be raised again: hard limits, and no identity that could."""
    if task["uid"]:
        os.setgroups([])
        os.setresgid(task["uid"], task["uid"], task["uid"])
        os.setresuid(task["uid"], task["uid"], task["uid"])
    for name, most in task["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def run(program: str, name: str) -> ModuleType:
    for ending in ("exit", "quit"):  # else they come with the folders of packages, which are left out
        vars(builtins).setdefault(ending, sys.exit)
    module = type(sys)(name)
    sys.modules[name] = module
    exec(compile(program, "program.py", "exec"), module.__dict__)
    return module


def judge(program: str, steps: list[tuple[str, bool]], fd: int, secret: str) -> None:
    """A line a step: the secret, the step's number, what it raised (nothing where it went well); -1 is the program.

    The secret keeps what else the program writes from passing for a report.
    """
    try:
        names = run(program, "program").__dict__
    except BaseException as error:
        report(fd, secret, -1, error)
        return
    for number, (step, test) in enumerate(steps):
        try:
            exec(compile(step, f"test {number}", "exec"), names)
        except BaseException as error:
            report(fd, secret, number, error)
            if not test:
                return
        else:
            report(fd, secret, number, None)


def report(fd: int, secret: str, number: int, error: BaseException | None) -> None:
    message = "" if error is None else words(error)
    os.write(fd, f"{secret} {number} {' '.join(message.split())}\n".encode("utf-8", "replace"))


def words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"[:_SHOWN].removesuffix(": ")
    except BaseException:  # the program wrote its __str__
        return name


if __name__ == "__main__":
    main()
