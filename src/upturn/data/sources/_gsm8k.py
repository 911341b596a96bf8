"""Files in the format of GSM8K: word problems whose worked answers hold equations, as in ``<<48/2=24>>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from upturn.data.json_lines import column, records
from upturn.errors import UserError

_EQUATION = re.compile(r"<<([^<>\n]*)>>")
_FINAL = re.compile(r"^####(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """One line: its number, the question, its equations as written, and the final answer (without commas)."""

    line: int
    question: str
    equations: tuple[str, ...]
    answer: str


def problems(path: Path) -> list[Problem]:
    """All problems of a file. Raises UserError naming file and line where a line is not in the format."""
    out = []
    for line, found in records(path):
        where = f"{path}, line {line}"
        question = _text(column(found, "question", where, "train"), "question", where)
        answer = _text(column(found, "answer", where, "train"), "answer", where)
        equations = _EQUATION.findall(answer)
        if answer.count("<<") != len(equations) or answer.count(">>") != len(equations):
            raise UserError("'<<' and '>>' do not pair up", where=where, fix="Fix the line.")
        wrong = [equation for equation in equations if "=" not in equation]
        if wrong:
            raise UserError(f"'<<{wrong[0]}>>' has no '='", where=where, fix="Write <<expression=result>>.")
        final = _FINAL.findall(answer)
        if len(final) != 1 or not final[0].strip():
            raise UserError("there is no final answer", where=where, fix="End the answer with a line '#### number'.")
        out.append(Problem(line, question, tuple(equations), final[0].strip().replace(",", "")))
    if not out:
        raise UserError("the file has no lines", where=str(path), fix='Each line must be {"question": …, "answer": …}.')
    return out


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"'{name}' must be text, this is {type(value).__name__}", where=where, fix="Fix the line.")
    return value
