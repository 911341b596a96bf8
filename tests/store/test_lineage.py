"""Tests of the lineage against a planted family tree."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from upturn.errors import UserError
from upturn.store import lineage, parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Mixture, Prompt, Samples, concatenate, objects, real_samples
from upturn.types import synthetic_samples as synthetic


def real(n: int, source: str = "digits", start: int = 0) -> Samples:
    content = np.arange(start, start + n, dtype=np.float32)[:, None]
    samples = real_samples("points", content, [Prompt("", 0)] * n, source)
    return samples.with_fields(split=objects(["train" if i % 5 else "held_out" for i in range(n)]))


def model_samples(model: str, n: int) -> Samples:
    keys = np.arange(n)[:, None]
    return synthetic("points", np.zeros((n, 1), dtype=np.float32), [Prompt("", i) for i in range(n)], keys, model)


def store(run: Run, unit: str, samples: Samples) -> None:
    with run.commit(unit, "sample") as out:
        parquet_tables.write_samples(out.path / "samples.parquet", samples)


def train(
    run: Run, unit: str, model: str, parent: str | None, parts: list[tuple[str, Samples]], weights: Array | None = None
) -> None:
    samples = concatenate([part for _, part in parts])
    units = [name for name, part in parts for _ in range(len(part))]
    with run.commit(unit, "mix") as out:
        weights = np.ones(len(samples)) if weights is None else weights
        parquet_tables.write_mixture(out.path / "mixture.parquet", Mixture(samples, weights), units)
    with run.commit(unit, "train", {"model": model, "parent": parent, "mixture": unit}) as out:
        (out.path / "model").mkdir()
        (out.path / "model" / "w").write_text(model)


@pytest.fixture
def family(tmp_path: Path) -> tuple[Run, dict[str, Samples]]:
    """data D (20 of digits, 10 of photos).

    pre   on D[1:5]             -> fine, from pre, on D[5:8]        -> s1 (10 samples in round 1)
    m1    from fine, on s1[:4], D[8:10], and D[10] with weight 0    -> s2 (6 samples in round 2)
    m2    from fine (m1 was rejected: unrelated to m1), on photos   -> s3 (3 samples in round 3)
    judge a helper whose mixture is not in the run
    """
    run = Run.create(tmp_path / "run", "", {})
    data = concatenate([real(20), real(10, "photos", 100)])
    s = {
        "data": data, "s1": model_samples("model-fine", 10),
        "s2": model_samples("model-m1", 6), "s3": model_samples("model-m2", 3),
    }
    store(run, "data", data)
    with run.commit("models/judge", "fit", {"model": "model-judge", "parent": None, "mixture": "models/judge"}) as out:
        (out.path / "model").mkdir()
    train(run, "rounds/000/pretrain", "model-pre", None, [("data", data.take(np.arange(1, 5)))])
    train(run, "rounds/000/finetune", "model-fine", "model-pre", [("data", data.take(np.arange(5, 8)))])
    with run.commit("rounds/000", "base", {
        "model": "model-fine", "parent": "model-pre", "mixture": "rounds/000/finetune"}) as out:
        (out.path / "model").mkdir()
    store(run, "rounds/001", s["s1"])
    weights = np.array([1, 1, 1, 1, 2, 2, 0], dtype=np.float64)
    parts = [("rounds/001", s["s1"].take(np.arange(4))), ("data", data.take(np.arange(8, 11)))]
    train(run, "rounds/001", "model-m1", "model-fine", parts, weights)
    store(run, "rounds/002", s["s2"])
    train(run, "rounds/002", "model-m2", "model-fine", [("data", data.take(np.arange(20, 30)))])
    store(run, "rounds/003", s["s3"])
    return run, s


def ids(samples: Samples, rows: slice) -> list[str]:
    return sorted(samples.ids[rows].tolist())


@pytest.mark.slow
def test_a_sample_is_traced_to_exactly_its_real_roots(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    one = lineage.trace(run, s["s1"].ids[0])
    assert [model.model for model in one.models] == ["model-fine", "model-pre"]
    assert one.roots == {"digits": 7} and one.real == ids(s["data"], slice(1, 8)) and one.origin == "synthetic"
    two = lineage.trace(run, s["s2"].ids[5][:8])
    assert [(model.model, model.unit) for model in two.models] == [
        ("model-m1", "rounds/001"), ("model-fine", "rounds/000/finetune"), ("model-pre", "rounds/000/pretrain")]
    assert two.real == ids(s["data"], slice(1, 10)), "the row of weight 0 was not trained on"
    assert (two.models[0].real, two.models[0].synthetic, two.models[0].parent) == (2, 4, "model-fine")
    three = lineage.trace(run, s["s3"].ids[1])
    assert three.roots == {"digits": 7, "photos": 10} and three.foreign == {}
    assert [place.unit for place in three.places] == ["rounds/003"]


@pytest.mark.slow
def test_a_real_sample_has_itself_and_its_split(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    found = lineage.trace(run, s["data"].ids[5])
    assert (found.origin, found.source, found.models, found.real) == ("real", "digits", [], [])
    assert [(place.unit, place.split) for place in found.places] == [("data", "held_out")]


@pytest.mark.slow
def test_takedown_names_all_that_a_real_sample_touched(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    early = lineage.trace_down(run, s["data"].ids[2])
    assert early.mixtures == {"rounds/000/pretrain": 1}
    assert {(model.model, model.direct) for model in early.models} == {
        ("model-pre", True), ("model-fine", False), ("model-m1", False), ("model-m2", False)}
    assert early.samples == {"rounds/001": 10, "rounds/002": 6, "rounds/003": 3}
    assert early.ids == sorted([*s["s1"].ids, *s["s2"].ids, *s["s3"].ids])
    assert early.unrecorded == ["models/judge"]
    late = lineage.trace_down(run, s["data"].ids[9])
    assert [model.model for model in late.models] == ["model-m1"] and late.samples == {"rounds/002": 6}
    photo = lineage.trace_down(run, s["data"].ids[25])
    assert [model.model for model in photo.models] == ["model-m2"] and photo.ids == sorted(s["s3"].ids)
    unused = lineage.trace_down(run, s["data"].ids[10])
    assert unused.models == [] and unused.samples == {} and unused.mixtures == {}


@pytest.mark.slow
def test_takedown_of_a_synthetic_sample(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    used, idle = lineage.trace_down(run, s["s1"].ids[3]), lineage.trace_down(run, s["s1"].ids[4])
    assert used.mixtures == {"rounds/001": 1} and [model.model for model in used.models] == ["model-m1"]
    assert used.samples == {"rounds/002": 6} and idle.models == [] and idle.samples == {}


@pytest.mark.slow
def test_both_directions_agree(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    some = s["data"].ids[[0, 1, 7, 8, 20]]
    down = {name: set(lineage.trace_down(run, name).ids) for name in some}
    for part in ("s1", "s2", "s3"):
        name = s[part].ids[0]
        roots = {root for root, reached in down.items() if name in reached}
        assert set(lineage.trace(run, name).real) & set(some) == roots


@pytest.mark.slow
def test_prompts_taken_from_samples_are_ancestors(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "", {})
    data = real(10)
    first = model_samples("teacher", 4).with_fields(parent=objects([data.ids[0], data.ids[1], None, None]))
    second = model_samples("other-teacher", 2).with_fields(parent=objects([first.ids[0], first.ids[3]]))
    store(run, "data", data)
    store(run, "rounds/001", first)
    store(run, "rounds/002", second)
    train(run, "rounds/002", "m", None, [("rounds/002", second.take([0]))])
    store(run, "rounds/003", model_samples("m", 2))
    up = lineage.trace(run, second.ids[0])
    assert up.parent == first.ids[0] and up.real == [data.ids[0]] and up.foreign == {"other-teacher": 2, "teacher": 4}
    assert lineage.trace(run, second.ids[1]).real == []
    assert lineage.trace(run, model_samples("m", 2).ids[1]).real == [data.ids[0]]
    down = lineage.trace_down(run, data.ids[0])
    assert down.samples == {"rounds/001": 1, "rounds/002": 1, "rounds/003": 2}
    assert lineage.trace_down(run, data.ids[1]).ids == [first.ids[1]]


@pytest.mark.slow
def test_unknown_short_and_ambiguous_ids_are_one_message(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    doubled = real(2)
    doubled = Samples(**{**vars(doubled), "ids": objects([s["s1"].ids[0][:6] + "zz", s["s1"].ids[0] + "0"])})
    store(run, "rounds/004", doubled)
    with pytest.raises(UserError, match="too short"):
        lineage.trace(run, s["s1"].ids[0][:5])
    with pytest.raises(UserError, match="no sample's id begins with 'nobody'"):
        lineage.trace_down(run, "nobody")
    with pytest.raises(UserError, match="beginning of several ids"):
        lineage.trace(run, s["s1"].ids[0][:6])
    assert lineage.trace(run, s["s1"].ids[0]).id == s["s1"].ids[0], "a whole id is never ambiguous"
    with pytest.raises(UserError, match="no sample's id"):
        lineage.trace(run, "100%_'; DROP")


@pytest.mark.slow
def test_the_answers_are_json_and_long_lists_are_limited(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    for found in (lineage.trace(run, s["s3"].ids[0], limit=2), lineage.trace_down(run, s["data"].ids[2], limit=2)):
        assert json.loads(json.dumps(asdict(found))) == asdict(found)
    assert len(lineage.trace(run, s["s3"].ids[0], limit=2).real) == 2
    assert len(lineage.trace_down(run, s["data"].ids[2], limit=2).ids) == 2


def test_the_real_fraction_is_by_weight_and_an_interval_where_a_source_is_uncertain(
    family: tuple[Run, dict[str, Samples]]
) -> None:
    run, _ = family
    assert lineage.real_fraction(run, "rounds/001") == (0.5, 0.5)
    assert lineage.real_fraction(run, "rounds/000/pretrain", {"photos": (0.0, 0.1)}) == (1.0, 1.0)
    assert lineage.real_fraction(run, "rounds/002", {"photos": (0.7, 0.9)}) == pytest.approx((0.7, 0.9))
    assert lineage.real_fraction(run, "rounds/001", {"digits": (0.5, 1.0)}) == (0.25, 0.5)
    with pytest.raises(ValueError, match="real share"):
        lineage.real_fraction(run, "rounds/001", {"digits": (0.9, 0.5)})
    with pytest.raises(UserError, match=r"mixture\.parquet"):
        lineage.real_fraction(run, "data")


def test_a_damaged_file_is_named(family: tuple[Run, dict[str, Samples]]) -> None:
    run, s = family
    path = run.unit("rounds/002") / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rounds/002/samples\.parquet"):
        lineage.trace(run, s["s1"].ids[0])


@pytest.mark.slow
def test_fifty_thousand_samples_take_less_than_a_second_of_processor(tmp_path: Path) -> None:
    """Ten rounds of 5,000, each trained on 2,500 of the round before and 2,500 real ones."""
    run = Run.create(tmp_path / "run", "", {})
    data = real(2500)
    store(run, "data", data)
    train(run, "rounds/000/pretrain", "m0", None, [("data", data)])
    template = model_samples("m", 5000)
    for number in range(1, 11):
        model = f"m{number - 1}"
        names = {"ids": objects([f"{model}-{row:08x}" for row in range(5000)]), "source": objects([model] * 5000)}
        samples = replace(template, **names)
        store(run, f"rounds/{number:03d}", samples)
        parts = [(f"rounds/{number:03d}", samples.take(np.arange(2500))), ("data", data)]
        train(run, f"rounds/{number:03d}", f"m{number}", f"m{number - 1}", parts)
    began = time.process_time()
    up = lineage.trace(run, "m9-00000007")
    half = time.process_time()
    down = lineage.trace_down(run, data.ids[0])
    end = time.process_time()
    assert len(up.models) == 10 and up.roots == {"digits": 2500}
    assert len(down.models) == 11 and sum(down.samples.values()) == 50_000
    # seconds of processor, not of a clock that other work shares; measured 0.3 each
    assert half - began < 1 and end - half < 1, (half - began, end - half)
