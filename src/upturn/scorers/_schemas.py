"""JSON schemas: read, checked, and applied without the network and with a time limit on patterns."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError
from upturn.scorers import _patterns

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_QUOTED = 150  # characters of a fault in an explanation


class BadSchema(Exception):
    """Not a schema; the text is the reason."""


@functools.lru_cache(maxsize=1024)
def validator(text: str) -> Validator:
    """A validator for the schema that the text holds. Raises BadSchema, and UserError without 'jsonschema'."""
    try:
        from jsonschema import Draft202012Validator, exceptions, validators
        from jsonschema_specifications import REGISTRY
    except ImportError as error:
        raise UserError(
            "the scorer 'json_schema' needs the package 'jsonschema', 4.18 or later, which is not installed",
            where="scorer 'json_schema'", fix="Run 'pip install jsonschema'.",
        ) from error
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSchema(f"the schema is no JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise BadSchema("a JSON schema is an object, or true or false")
    plain = validators.validator_for(schema, default=Draft202012Validator)
    try:
        plain.check_schema(schema)
    except exceptions.SchemaError as error:
        raise BadSchema(f"no JSON schema: {error.message[:_QUOTED]}, at {error.json_path}") from error
    guarded = validators.extend(
        plain,
        {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional_properties},
    )
    return guarded(schema, registry=REGISTRY)  # a registry that fetches nothing


def first_fault(checks: Validator, written: object) -> str | None:
    """What the schema does not allow, in the order of the schema; None where all is allowed.

    Raises BadSchema where a reference leads nowhere, BadPattern, TookTooLong.
    """
    from referencing.exceptions import Unresolvable

    try:
        fault = next(checks.iter_errors(written), None)
    except Unresolvable as error:
        raise BadSchema(f"the schema refers to what is not in it: {error}") from error
    except RecursionError as error:
        raise BadSchema("schema or text are nested too deeply") from error
    if fault is None:
        return None
    message = fault.message if len(fault.message) <= _QUOTED else f"{fault.message[:_QUOTED]}…"
    return f"{message}, at {fault.json_path}"


def _pattern(checks: Validator, pattern: str, written: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    from jsonschema import ValidationError

    if checks.is_type(written, "string") and not _patterns.found(pattern, written):
        yield ValidationError(f"{written!r} does not match {pattern!r}")


def _pattern_properties(
    checks: Validator, patterns: Mapping[str, Any], written: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    if checks.is_type(written, "object"):
        for pattern, inner in patterns.items():
            for name, value in written.items():
                if _patterns.found(pattern, name):
                    yield from checks.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(checks: Validator, inner: object, written: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not checks.is_type(written, "object"):
        return
    listed, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in written.items():
        if name in listed or any(_patterns.found(pattern, name) for pattern in patterns):
            continue
        if inner is False:
            yield ValidationError(f"the property {name!r} is not allowed")
        else:
            yield from checks.descend(value, inner, path=name)
