"""Tests of studies: variants, resumption, differences against scipy, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from helpers.small_recipes import GAUSSIAN
from upturn import report
from upturn.curators.subset import Subset
from upturn.errors import RunError, UserError
from upturn.loop.stages.evaluate import read_measured
from upturn.observer import Observer
from upturn.plan import plan
from upturn.runs import status
from upturn.store.run import Run
from upturn.studies import cost, study_definition, study_results
from upturn.studies.study_runner import conduct
from upturn.types import Prompt, objects, real_samples

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
TOY = yaml.safe_load(GAUSSIAN.replace("count: 3", "count: 1"))
DIGITS = """
name: few-digits
recipe:
  name: base
  threads: 1
  data: digits
  models:
    policy: {name: pixels, size: 8, channels: 1, classes: 10, network: {name: unet, channels: [8, 16]}}
    referee: {name: classifier, fit: {split: held_out, epochs: 1}}
  features: {name: classifier, model: referee}
  filter: {curate: {name: subset, count: 64}}
  stages: [{name: train, epochs: 2, batch_size: 64, checkpoint_epochs: [0, 1, 2]}]
  evaluate: {prompts: 30, metrics: [{name: label_agreement, model: referee}, memorisation], settings: {steps: 3}}
vary: {filter.curate.count: {few: 32, more: 128}}
variants: {bare: {stages.0.epochs: 0, stages.0.checkpoint_epochs: []}}
judges: more
prompts: ["3", "8"]
wordings: [["3", "5"]]
per_prompt: 2
"""


def write(folder: Path, tree: dict[str, Any] | str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def load(folder: Path, **keys: Any) -> study_definition.Study:
    return study_definition.load(write(folder, {"name": "toy", "recipe": TOY, **keys}))


# what is varied


def test_axes_are_multiplied_and_named_variants_are_added(tmp_path: Path) -> None:
    found = load(
        tmp_path, set={"rounds.count": 2},
        vary={"data.n": [300, 600], "rounds.curate": {"by reward": "choice", "all": []}},
        variants={"no rounds": {"rounds": None, "gate": None}}, words={"data.n": "points"},
    )
    assert [v.name for v in found.variants] == [
        "points-300_by-reward", "points-300_all", "points-600_by-reward", "points-600_all", "no-rounds"
    ]
    one = found.variants[1].jobs[0].recipe
    assert (one.data["n"], one.rounds.curate, one.rounds.count) == (300, [], 2)  # type: ignore[union-attr]
    assert found.variants[4].jobs[0].recipe.rounds is None
    assert found.variants[1].labels == {"points": "300", "rounds.curate": "all"}


def test_the_command_line_overrides_set_and_variants_override_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"name": "toy", "recipe": TOY, "set": {"data.n": 200, "seed": 3}, "vary": {"seed": [1, 2]}})
    found = study_definition.load(path, ["data.n=250", "seed=9"])
    assert [(v.jobs[0].recipe.data["n"], v.jobs[0].seed) for v in found.variants] == [(250, 1), (250, 2)]


def test_every_variant_is_trained_with_every_seed(tmp_path: Path) -> None:
    found = load(tmp_path, vary={"data.n": [300, 600]}, seeds=[4, 7])
    assert [job.recipe.name for _, job in found.jobs] == ["n-300-seed4", "n-300-seed7", "n-600-seed4", "n-600-seed7"]
    assert [job.recipe.seed for _, job in found.jobs] == [4, 7, 4, 7]


def test_some_variants_alone(tmp_path: Path) -> None:
    found = load(tmp_path, vary={"data.n": [300, 600, 900]}, judges="n-600")
    some = found.only(["n-900", "n-600"])
    assert [job.recipe.name for _, job in some.jobs] == ["n-600", "n-900"]
    assert list(some.axes.values()) == [("600", "900")]
    with pytest.raises(UserError, match="no variant 'n-7'"):
        found.only(["n-600", "n-7"])
    with pytest.raises(UserError, match="'n-600' lends its helper models"):
        found.only(["n-900"])


@pytest.mark.parametrize(("keys", "said"), [
    ({"vary": {"stages.0.step": [1]}}, r"variant 'step-1'.*unknown key 'stages.0.step'"),
    ({"vary": {"data.n": [1, 1.0]}, "variants": {"n-1": {}}}, "two variants are called 'n-1'"),
    ({"vary": {"data.n": 5}}, "an axis is a list"),
    ({"varies": {}}, r"study.yaml:\d+: 'varies': unknown key. Known: name"),
    ({"vary": {"data.n": [5]}, "judges": "n-6"}, "no variant 'n-6'. One of: n-5"),
    ({"recipe": "gone.yaml"}, "there is no recipe 'gone.yaml'"),
    ({"words": {"data.n": "points"}}, "'data.n' is not varied"),
    ({"wordings": [["a"]]}, "several prompts, each once"),
])
def test_errors_name_their_place(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(tmp_path, **keys)


def test_a_recipe_with_several_caption_strategies_is_a_study(tmp_path: Path) -> None:
    tree = yaml.safe_load((RECIPES / "emoji.yaml").read_text())
    tree["captions"] = ["empty", {"name": "fixed", "text": "an emoji"}, {"name": "fixed", "text": "a", "as": "short"}]
    found = study_definition.load(write(tmp_path, tree, "emoji.yaml"))
    assert [v.name for v in found.variants] == ["empty", "fixed", "short"]
    assert [v.jobs[0].recipe.captions[0]["name"] for v in found.variants] == ["empty", "fixed", "fixed"]
    with pytest.raises(UserError, match="nothing to compare"):
        study_definition.load(write(tmp_path, TOY, "toy.yaml"))


@pytest.mark.parametrize("path", sorted((RECIPES / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_are_read(path: Path) -> None:
    found = study_definition.load(path)
    assert found.variants and found.about and all(job.recipe.grid.texts for _, job in found.jobs)


def test_a_smaller_subset_is_part_of_a_larger_one_for_any_captions() -> None:
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, (200, 4, 4, 1)).astype(np.uint8)
    one = real_samples("image", content, [Prompt(f"a {i}") for i in range(200)], "x")
    other = real_samples("image", content, [Prompt("b")] * 200, "x")
    nothing: Any = None

    def kept(samples: Any, count: int, draw: int = 0) -> set[int]:
        found = Subset(count, draw).curate(samples, np.zeros(200), nothing, 5)
        assert all(reason.startswith("subset: ") for reason in found.reasons[~found.kept])
        return set(np.flatnonzero(found.kept).tolist())

    assert len(kept(one, 20)) == 20 and kept(one, 20) < kept(one, 100) and kept(one, 20) == kept(other, 20)
    assert kept(one, 20) != kept(one, 20, 1) and len(kept(one, 1000)) == 200
    with pytest.raises(ValueError, match="at least one"):
        Subset(0)


# runs


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded")
    asked = load(folder, vary={"rounds.curate": {"chosen": "choice", "all": []}}, seeds=[1, 2, 3])
    return conduct(asked, folder / "studies", after=report.write)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return conduct(study_definition.load(write(folder, DIGITS)), folder / "studies")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.long
def test_over_seeds_it_is_a_paired_t_test(seeded: Path) -> None:
    def rewards(variant: str) -> list[float]:
        runs = [Run.open(seeded / f"{variant}-seed{n}") for n in (1, 2, 3)]
        units = [status.read(run).incumbent.unit for run in runs]
        return [read_measured(run.unit(unit))["reward"].value for run, unit in zip(runs, units, strict=True)]

    found = read(seeded)
    [d] = found["differences"]["reward"]
    a, b = rewards("chosen"), rewards("all")
    test = stats.ttest_rel(a, b)
    assert (d["a"], d["b"], d["how"]) == ("chosen", "all", "seeds")
    assert d["value"] == pytest.approx(np.mean(a) - np.mean(b))
    assert d["p"] == pytest.approx(test.pvalue)
    ends = test.confidence_interval()
    assert (d["low"], d["high"]) == pytest.approx((ends.low, ends.high))
    shown = {v["name"]: v["metrics"]["reward"] for v in found["variants"]}
    mean = stats.t.interval(0.95, 2, np.mean(a), stats.sem(a))
    assert shown["chosen"]["value"] == pytest.approx(np.mean(a)) and shown["chosen"]["seeds"] == pytest.approx(a)
    assert (shown["chosen"]["low"], shown["chosen"]["high"]) == pytest.approx(mean)
    assert d["differs"] and found["metrics"][0]["marks"] == {"all": "worse", "chosen": "best"}


@pytest.mark.long
def test_a_finished_study_runs_nothing_again(seeded: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in seeded.glob("*/state.json")}
    said = read(seeded)
    asked = study_definition.load(seeded.parents[1] / "study.yaml")
    conduct(asked, seeded.parent)
    assert {path: path.stat().st_mtime_ns for path in seeded.glob("*/state.json")} == before
    assert read(seeded) == said


@pytest.mark.long
def test_judges_are_fitted_once_and_lent(digits: Path) -> None:
    lent = [digits / name / "models" / "referee" / "model" for name in ("few", "more", "bare")]
    files = [next(folder.rglob("*.safetensors")) for folder in lent]
    assert len({path.stat().st_ino for path in files}) == 1
    identity = json.loads((digits / "few" / "run.json").read_text())
    assert identity["judges_from"]["id"] == Run.open(digits / "more").id
    assert Run.open(digits / "few").verify().intact and read(digits)["warnings"] == []


def test_judges_that_differ_give_a_warning(tmp_path: Path) -> None:
    tree = yaml.safe_load(DIGITS)
    tree |= {"judges": None, "vary": {"models.referee.fit.learning_rate": [1e-3, 2e-3]}, "variants": {}, "wordings": []}
    tree["set"] = {"stages.0.epochs": 1, "stages.0.checkpoint_epochs": []}
    folder = conduct(study_definition.load(write(tmp_path, tree)), tmp_path)
    assert "'referee' is not the same" in read(folder)["warnings"][0]


def test_a_variant_without_training_is_the_model_before_it(digits: Path) -> None:
    bare = Run.open(digits / "bare").unit("rounds/000/train")
    start = Run.open(digits / "few").unit("rounds/000/train") / "epoch-0000"
    # weights come from the recipe's seed, the scale of pixels from the data: both variants start equal
    mine, theirs = (read_measured(place)["label_agreement"].value for place in (bare, start))
    assert mine == theirs


def test_wordings_of_one_noise_are_compared(digits: Path) -> None:
    for effects in read(digits)["wording_effects"].values():
        [[first, other]] = effects
        assert (first["text"], first["ratio"], other["text"]) == ("3", 0.0, "5")
        assert 0 < other["ratio"] < 1.5


def test_the_page_shows_every_variant_and_is_self_contained(digits: Path) -> None:
    page = report.write_study(digits).read_text()
    wordings = "Different wordings of one prompt"
    for name in ("few", "more", "bare", "filter.curate.count", "checkpoint by checkpoint", wordings):
        assert name in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "default-src 'none'" in page
    assert page.count('alt="3, few"') == 2 and page.count('alt="8, bare"') == 1


def test_a_variant_that_fails_stops_no_other(tmp_path: Path) -> None:
    # a filter that keeps nothing is only found when the data is there
    near = [{"name": "closeness", "to": [0.0, 0.0], "width": 1.0}]
    empty = {"score": near, "curate": {"name": "threshold", "at_least": 1e9}}
    asked = load(tmp_path, variants={"nothing": {"filter": empty}, "whole": {}})
    with pytest.raises(RunError, match="1 of 2 variants failed: nothing"):
        conduct(asked, tmp_path)
    found = read(tmp_path / "toy")
    assert list(found["failed"]) == ["nothing"] and [v["name"] for v in found["variants"]] == ["whole"]
    assert "nothing failed" in report.write_study(tmp_path / "toy").read_text()


def test_all_recipes_are_checked_before_the_first_run(tmp_path: Path) -> None:
    asked = load(tmp_path, variants={"whole": {}, "wrong": {"rounds.score": {"name": "closenes"}}})
    with pytest.raises(UserError, match=r"variant 'wrong'.*closenes"):
        conduct(asked, tmp_path)
    assert not (tmp_path / "toy").exists()


@pytest.mark.long
def test_a_plan_adds_up_and_counts_lent_judges_once(tmp_path: Path) -> None:
    asked = study_definition.load(write(tmp_path, DIGITS))
    found = cost.estimate(asked)
    assert [row["variant"] for row in found["variants"]] == ["few", "more", "bare"]
    for key in ("seconds", "usd", "disk_bytes"):
        assert found["total"][key] == pytest.approx(sum(row[key] for row in found["variants"]))
    alone = plan(asked.variants[2].jobs[0].recipe)
    fit = sum(row.seconds for row in alone.rows if row.unit == "models/referee")
    # two plans time the same steps on a busy machine: half as much again is near
    assert found["variants"][2]["seconds"] < 1.5 * (alone.seconds - fit) + 0.5


def test_words_that_no_caption_has_and_concepts_held_out() -> None:
    assert study_results._within("cat", "an emoji of Cat, nature") and not study_results._within("cat", "a category")
    samples = real_samples(
        "image", np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1),
        [Prompt("a red apple"), Prompt("x"), Prompt("pizza")], "s",
        {"split": objects(["train", "train", "held_out"]), "captions": objects([("a red apple", "fruit"), ("x",), ()])},
    )
    assert study_results._words(samples) == {"a", "red", "apple", "fruit", "x"}


def test_the_command_prints_a_table_and_writes_the_page(tmp_path: Path) -> None:
    from upturn.cli import app

    path = write(tmp_path, {"name": "toy", "recipe": TOY, "vary": {"data.n": [300, 600]}})
    said = CliRunner().invoke(app, ["study", str(path), "--studies", str(tmp_path / "s")])
    assert said.exit_code == 0, said.output
    assert "n-300" in said.output and "reward" in said.output
    folder = tmp_path / "s" / "toy"
    assert (folder / "study.html").is_file() and (folder / "n-600" / "report.html").is_file()
    planned = CliRunner().invoke(app, ["study", str(path), "--plan", "--json"])
    assert {row["variant"] for row in json.loads(planned.output)["variants"]} == {"n-300", "n-600"}


class Killed(BaseException):
    pass


@pytest.mark.long
def test_a_study_killed_between_variants_resumes(tmp_path: Path, seeded: Path) -> None:
    class Impatient(Observer):
        def note(self, text: str) -> None:
            if text.startswith("variant 2"):
                raise Killed

    asked = load(tmp_path, vary={"rounds.curate": {"chosen": "choice", "all": []}}, seeds=[1, 2, 3])
    with pytest.raises(Killed):
        conduct(asked, tmp_path, Impatient())
    assert not (tmp_path / "toy" / "results.json").exists()
    whole, again = read(seeded), read(conduct(asked, tmp_path))
    for found in (whole, again):
        for variant in found["variants"]:
            del variant["cost"]
    assert again == whole
