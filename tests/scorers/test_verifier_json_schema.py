"""JSON against its schema."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from upturn.config import components
from upturn.errors import UserError
from upturn.scorers import _schemas
from upturn.scorers.json_schema import JsonSchema
from upturn.types import Prompt, real_samples

PERSON: dict[str, Any] = {
    "type": "object", "required": ["name"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
}  # fmt: skip


def judged(scorer: JsonSchema, completion: str, **fields: str) -> tuple[float, str]:
    scores = scorer.score(real_samples("text", [completion], [Prompt("?", fields=fields)], "s"))
    assert scores.explanations is not None
    return float(scores.values[0]), str(scores.explanations[0])


@pytest.mark.parametrize(
    "completion",
    [
        '{"name": "Ada"}', ' {"age": 36, "name": "Ada"}\n', 'Here:\n```json\n{"name": "Ada"}\n```\nDone.',
        '{"name": "a ``` b"}', '```\n{"name": 1}\n```\n```\n{"name": "Ada"}\n```', '{"name": "Ada", "age": 36.0}',
    ],
)  # fmt: skip
def test_right(completion: str) -> None:
    assert judged(JsonSchema(PERSON), completion) == (1.0, "right")


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ("", "nothing is written"), ("Ada", "no JSON"), ('{"name": 1', "no JSON"), ('{"name": "Ada"} ok', "no JSON"),
        ("{'name': 'Ada'}", "no JSON"), ('{"age": NaN, "name": "Ada"}', "NaN is no number"),
        ('{"name": "Ada", "name": "Bob"}', "occurs twice"), ("{}", "'name' is a required property, at $"),
        ('{"name": 1}', "1 is not of type 'string', at $.name"), ('{"name": ""}', "at $.name"),
        ('{"name": "Ada", "age": -1}', "-1 is less than the minimum of 0, at $.age"),
        ('{"name": "Ada", "born": 1815}', "the property 'born' is not allowed"), ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "wrong"), ("x" * 2_000_000, "longer than"), ('"' + "x" * 5000 + '"', "…"),
    ],
    ids=range(16),
)  # fmt: skip
def test_wrong(completion: str, why: str) -> None:
    score, reason = judged(JsonSchema(PERSON), completion)
    assert score == 0.0 and reason.startswith("wrong: ") and why in reason and len(reason) < 300, reason


def test_the_schema_may_be_in_the_prompt_or_in_a_file(tmp_path: Path) -> None:
    text = json.dumps(PERSON)
    (tmp_path / "person.json").write_text(text)
    for scorer, fields in ((JsonSchema(), {"schema": text}), (JsonSchema(file=str(tmp_path / "person.json")), {})):
        assert judged(scorer, '{"name": "Ada"}', **fields)[0] == 1.0
        assert judged(scorer, "{}", **fields)[0] == 0.0
    for bad, why in (("", "no field"), ("{", "no JSON"), ("3", "is an object"), ('{"type": "cat"}', "no JSON sch")):
        score, reason = judged(JsonSchema(), "{}", schema=bad)
        assert math.isnan(score) and why in reason
    (tmp_path / "bad.json").write_text('{"type": "cat"}')
    for fields in ({"file": str(tmp_path / "bad.json")}, {"schema": {"type": "cat"}}):
        with pytest.raises(UserError, match="no JSON schema: 'cat' is not valid"):
            components.make("scorer", {"name": "json_schema", **fields}, "rounds.score.0")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    score, reason = judged(JsonSchema({"$ref": "https://example.org/person.json"}), "{}")
    assert math.isnan(score) and "refers to what is not in it" in reason
    inside = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    assert judged(JsonSchema(inside), "3")[0] == 1.0


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"pattern": "(x+x+)+y"}, json.dumps("x" * 5_000)),
        ({"patternProperties": {"(x+x+)+y": {}}}, json.dumps({"x" * 5_000: 1})),
        ({"patternProperties": {"(x+x+)+y": {}}, "additionalProperties": False}, json.dumps({"x" * 5_000: 1})),
    ],
)
def test_a_catastrophic_pattern_is_stopped_and_unscored(schema: dict[str, Any], written: str) -> None:
    started = time.process_time()
    score, reason = judged(JsonSchema(schema), written)
    assert math.isnan(score) and "took longer" in reason
    assert time.process_time() - started < 3.0


def test_the_guarded_keywords_judge_as_the_librarys_own() -> None:
    """Every schema on every text, against the validator that nobody has touched."""
    from jsonschema import Draft202012Validator

    guarded: list[dict[str, Any]] = [
        {"pattern": "^a"}, {"patternProperties": {"^a": {"type": "integer"}}},
        {"patternProperties": {"^a": {}}, "additionalProperties": False}, {"additionalProperties": {"type": "string"}},
        {"properties": {"b": {}}, "additionalProperties": False}, {"items": {"pattern": "b$"}}, {},
        {"properties": {"b": {"additionalProperties": {"pattern": "^x"}}}, "additionalProperties": True},
    ]  # fmt: skip
    texts: list[Any] = ["a", "ba", 3, {}, {"a": 1}, {"ab": "x"}, {"b": 1}, {"a": 1, "b": "x"}, ["ab", "b"], ["ba"],
                        {"b": {"c": "x"}}, {"b": {"c": "y"}}, {"c": None}, [{}], None]  # fmt: skip
    verdicts = set()
    for schema in guarded:
        for value in texts:
            right = Draft202012Validator(schema).is_valid(value)
            assert judged(JsonSchema(schema), json.dumps(value))[0] == float(right), (schema, value)
            verdicts.add(right)
    assert verdicts == {True, False}


def test_without_the_package_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    _schemas.validator.cache_clear()
    with pytest.raises(UserError, match="pip install jsonschema"):
        JsonSchema({"type": "object"})
