"""Tests of recipes: valid ones are read and written back, errors name line, key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from upturn.config import recipe
from upturn.errors import UserError
from upturn.loop.assemble import assemble

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
GOOD = """
name: points
seed: 0
data:
  name: points
  shape: eight_gaussians
  n: 4000
models:
  policy:
    name: points

features: points
stages:
  - name: pretrain
    steps: 2500
    ema: 0.995
rounds:
  count: 3
  sample:
    prompts: 1000
    candidates: 4
  score:
    name: closeness
    to: [4.0, 0.0]
    width: 4.0
  curate: choice
  mix:
    policy: replace
    lambda: 1.0
  train:
    steps: 800
evaluate:
  prompts: 1000
  metrics: [reward, coverage, precision, frechet]
gate:
  metric: reward
  alpha: 0.05
  guards:
    coverage: {at_least: 0.9}
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_assemble_and_survive_a_round_trip(path: Path) -> None:
    read = recipe.load(path)
    assemble(read)
    assert recipe.parse(recipe.to_yaml(read), "again") == read


def test_settings_reach_any_key() -> None:
    read = recipe.parse(GOOD, "r", ["stages.0.steps=7", "rounds.mix.lambda=.inf", "stages.pretrain.ema=0.5", "seed=3"])
    assert (read.stages[0].steps, read.stages[0].ema, read.seed) == (7, 0.5, 3)
    assert read.rounds is not None and read.rounds.mix.lambda_ == float("inf")
    assert recipe.differences(recipe.parse(GOOD, "r"), read) == [
        "rounds.mix.lambda: 1.0 -> inf", "seed: 0 -> 3", "stages.0.ema: 0.995 -> 0.5", "stages.0.steps: 2500 -> 7",
    ]


@pytest.mark.parametrize(("given", "read"), [("7", 7), ("90 s", "90 s"), ("1.5h", "1.5h")])
def test_checkpoints_are_due_by_steps_or_by_time(given: str, read: int | str) -> None:
    found = recipe.parse(GOOD, "r", [f"stages.0.save_every={given}"])
    assert found.stages[0].save_every == read
    assert recipe.parse(recipe.to_yaml(found), "stored") == found


def line_of(text: str, words: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if words in line)


STRUCTURE = [  # (what to replace, by what, words that the message must have)
    ("seed: 0", "sead: 0", ["unknown key 'sead'", "'seed'"]),
    ("seed: 0", "seed: -1", ["seed", "greater than or equal to 0"]),
    ("seed: 0", "seed: abc", ["seed", "'abc'", "integer"]),
    ("name: points\nseed", "name: 'a/b'\nseed", ["name", "'a/b'"]),
    ("name: points\nseed", "seed", ["'name' is missing"]),
    ("steps: 2500", "stepz: 2500", ["unknown key 'stages.0.stepz'", "'steps'"]),
    ("steps: 2500", "steps: -1", ["stages.0.steps", "greater than or equal to 0"]),
    ("steps: 2500", "steps: 2500\n    epochs: 3", ["stages.0", "exactly one of 'epochs' and 'steps'"]),
    ("    steps: 2500\n", "", ["stages.0", "exactly one of 'epochs' and 'steps'"]),
    ("ema: 0.995", "save_every: 0", ["stages.0.save_every", "steps", "10 min"]),
    ("ema: 0.995", "save_every: 10 weeks", ["stages.0.save_every", "steps", "10 min"]),
    ("ema: 0.995", "ema: 1.5", ["stages.0.ema", "less than 1"]),
    ("lambda: 1.0", "lambda: -2", ["rounds.mix.lambda", "greater than or equal to 0"]),
    ("policy: replace", "policy: replacing", ["rounds.mix.policy", "Did you mean 'replace'", "accumulate, "]),
    ("candidates: 4", "candidates: 4.5", ["rounds.sample.candidates", "4.5"]),
    ("  metric: reward", "  metric: rewerd", ["gate", "'rewerd'", "did you mean 'reward'"]),
    ("coverage: {at_least: 0.9}", "diversity: {at_least: 0.9}", ["'diversity' is not among the metrics"]),
    ("alpha: 0.05", "alpha: 2", ["gate.alpha", "less than 1"]),
    ("models:\n  policy:", "models:\n  model:", ["models", "needs 'policy'"]),
    ("- name: pretrain", "- name: Pre Train", ["stages.0.name"]),
]
PARTS = [
    ("features: points", "features: pointz", ["there is no feature 'pointz'", "'points'", "features"]),
    ("  name: points\n  shape", "  name: poinst\n  shape", ["there is no source 'poinst'", "Did you mean 'points'"]),
    ("shape: eight_gaussians", "shape: nine_gaussians", ["data.shape", "nine_gaussians"]),
    ("n: 4000", "n: many", ["data.n", "'many'"]),
    ("n: 4000", "m: 4000", ["source 'points' has no field 'm'", "data.m"]),
    ("curate: choice", "curate: choise", ["there is no curator 'choise'", "'choice'"]),
    ("curate: choice", "curate: {name: choice, temperatur: 2}", ["no field 'temperatur'", "'temperature'"]),
    ("width: 4.0", "width: -1", ["width"]),
    ("name: closeness", "name: nearness", ["there is no scorer 'nearness'"]),
    ("    name: points\n\nfeatures", "    name: pixels\n    size: 8\n\nfeatures", ["data", "models.policy"]),
    ("metrics: [reward,", "metrics: [perplexity, reward,", ["perplexity", "text", "points"]),
    ("metrics: [reward,", "metrics: [reward, reward,", ["'reward'", "twice"]),
    ("candidates: 4", "candidates: 1", ["'choice'", "candidates", "at least 2"]),
    ("    to: [4.0, 0.0]", "    to: right", ["rounds.score.0.to"]),
    ("    steps: 800", "    steps: 800\n    objective: dpo", ["'choice'", "'dpo'", "compares"]),
    ("    steps: 2500", "    steps: 2500\n    objective: dpo", ["'dpo'", "stages.pretrain.objective"]),
    ("    steps: 2500", "    steps: 2500\n    objective: ppoo", ["there is no objective 'ppoo'"]),
    ("    steps: 2500", "    steps: 2500\n    adapter: loraa", ["there is no adapter 'loraa'"]),
    ("at_least: 0.9", "at_last: 0.9", ["no limit 'at_last'", "gate.guards.coverage", "at_least"]),
    ("lambda: 1.0", "lambda: 0", ["λ = 0", "rounds.mix.lambda"]),
    ("features: points", "features: {name: classifier, model: judge}", ["'judge'", "models:"]),
    ("    name: points\n\nfeatures", "    name: my.module:Class\n\nfeatures", ["cannot be imported", "my.module"]),
]


@pytest.mark.parametrize(("old", "new", "words"), [c for c in STRUCTURE if c[2]], ids=lambda v: str(v)[:30])
def test_bad_structure(old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        recipe.parse(GOOD.replace(old, new, 1), "my.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "my.yaml" in str(caught.value)


@pytest.mark.parametrize(("old", "new", "words"), [c for c in PARTS if c[2]], ids=lambda v: str(v)[:30])
def test_bad_parts_and_pairings(old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        assemble(recipe.parse(GOOD.replace(old, new, 1), "my.yaml"))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_line_is_named() -> None:
    bad = GOOD.replace("ema: 0.995", "emma: 0.995")
    with pytest.raises(UserError, match=f"my.yaml:{line_of(bad, 'emma')}: "):
        recipe.parse(bad, "my.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", ["not valid YAML", "my.yaml:"]),
        ("- a\n- b", ["mapping", "list"]),
        ("", ["mapping", "NoneType"]),
        ("a: b: c", ["not valid YAML", "my.yaml:1"]),
    ],
)
def test_bad_yaml(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        recipe.parse(text, "my.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed", ["'seed' is not a setting", "a.b=value"]),
        ("stages.7.steps=3", ["'7' is not an item of a list of 1", "pretrain"]),
        ("data.shape.deep=3", ["'shape' is the string 'eight_gaussians'"]),
        ("seed=[1", ["not a YAML value"]),
    ],
)
def test_bad_settings(setting: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        recipe.parse(GOOD, "my.yaml", [setting])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(UserError, match=r"no such recipe.*There: other\.yaml"):
        recipe.load(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="a folder, not a recipe"):
        recipe.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        recipe.load(tmp_path / "latin.yaml")
