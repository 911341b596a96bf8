"""A verifier of JSON by its schema."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.scorers._fences import last_fenced
from upturn.scorers._patterns import BadPattern, TookTooLong
from upturn.scorers._schemas import BadSchema, first_fault, validator
from upturn.scorers._verdicts import RIGHT, Verdict, quoted, unscored, verified, wrong
from upturn.types import Samples, Scores

_MOST_CHARACTERS = 1_000_000  # of a completion; a longer one is wrong without being read


@dataclasses.dataclass(frozen=True)
class JsonSchema(Scorer):
    """Right (1) where the completion is JSON that its schema allows; wrong (0) elsewhere, with the first fault.

    The completion is read whole, or if that is no JSON and it holds fenced code, the last such block. Strict JSON: no
    NaN, no comments, no name twice in one object. The dialect is the one that the schema's ``$schema`` names, by
    default draft 2020-12 (json-schema.org). Nothing is fetched: a ``$ref`` can only point into the schema itself.
    ``format`` is a note, not a rule, as the specification has it.

    Unscored (NaN): a prompt without the field where the recipe gives no schema, a field that is no schema, and a
    ``pattern`` of the schema that takes too long on the text.

    schema  written in the recipe; or
    file    of JSON, that holds it; or neither:
    field   of the prompt that holds it
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    verifies: ClassVar[bool] = True

    schema: dict[str, Any] | None = None
    file: str | None = None
    field: str = "schema"
    _text: str = dataclasses.field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.schema is not None and self.file is not None:
            raise ValueError("schema and file are both given: one is enough")
        text = "" if self.schema is None else json.dumps(self.schema)
        if self.file is not None:
            try:
                text = Path(self.file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"the schema cannot be read: {error}", where=f"json_schema.file: {self.file}", fix="Fix the path."
                ) from error
        if text or self.file is not None:
            try:
                validator(text)
            except BadSchema as error:
                raise ValueError(f"{self.file or 'schema'}: {error}") from error
        object.__setattr__(self, "_text", text)

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN, with an explanation for each. Raises UserError on samples that are not text."""
        if self._text:
            return verified("json_schema", samples, lambda prompt: self._text, self._verdict)
        return verified("json_schema", samples, lambda prompt: prompt.fields.get(self.field, ""), self._verdict)

    def _verdict(self, schema: str, content: str) -> Verdict:
        if not schema:
            return unscored(f"the prompt has no field '{self.field}'")
        if len(content) > _MOST_CHARACTERS:
            return wrong(f"longer than {_MOST_CHARACTERS} characters")
        try:
            checks = validator(schema)
        except BadSchema as error:
            return unscored(f"the field '{self.field}': {error}")
        try:
            written = _read(content)
        except ValueError as error:
            return wrong(str(error))
        try:
            fault = first_fault(checks, written)
        except (BadSchema, BadPattern, TookTooLong) as error:
            return unscored(str(error))
        return RIGHT if fault is None else wrong(fault)


def _read(content: str) -> Any:
    """Raises ValueError with the reason if it is not JSON."""
    try:
        return _strict(content)
    except ValueError:
        block = last_fenced(content)
        if block is None:
            raise
        return _strict(block)


def _strict(text: str) -> Any:
    if not text.strip():
        raise ValueError("nothing is written")
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg.lower()} at line {error.lineno}, character {error.colno}") from error
    except RecursionError as error:
        raise ValueError("no JSON that is read: it is nested too deeply") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"no JSON: {name} is no number there")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"no strict JSON: the name {quoted(twice)} occurs twice in one object")
    return found
