"""The report: every figure in it is the store's, what models write is escaped, and it can be made at any time."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.report_pages import Page, page_of
from helpers.stored_runs import EVIL, METRIC, StoredRun
from upturn import report
from upturn.config import components
from upturn.report import image_data, svg, text_changes
from upturn.report import titles as words
from upturn.report.sections import kept_and_dropped
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Selection, objects


@pytest.fixture(scope="module", params=["image", "text", "points"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return StoredRun(tmp_path_factory.mktemp(request.param) / "demo", request.param).whole()


@pytest.fixture(scope="module")
def page(whole: StoredRun) -> Page:
    return page_of(whole.run)


def numbers_in(cell: str) -> list[float]:
    return [float(x.replace("−", "-")) for x in re.findall(r"−?\d+(?:\.\d+)?", cell.replace("\u202f", ""))]


# figures


@pytest.mark.slow
def test_table_of_figures_is_metrics_json(whole: StoredRun, page: Page) -> None:
    units = ["rounds/000/pretrain", "rounds/000/finetune", "rounds/001", "rounds/002", "rounds/003"]
    assert page.row("metric") == ["pretrain", "finetune", "round 1", "round 2", "round 3"]
    for name in (METRIC, "coverage", "class_shares", "nearest_real"):
        for unit, cell in zip(units, page.row(name), strict=True):
            stored = json.loads((whole.folder / unit / "metrics.json").read_text())[name]
            shown = numbers_in(cell)
            assert len(shown) == 3
            # two digits of the half width are kept, so rounding moves a number by less than 1/20 of it
            half = (stored["high"] - stored["low"]) / 2
            np.testing.assert_allclose(shown, [stored[k] for k in ("value", "low", "high")], atol=0.051 * half)


@pytest.mark.slow
def test_verdict_names_the_kept_round_and_the_paired_gain(page: Page) -> None:
    lead = page.text.split("Contents")[0]
    assert "Round 3 is kept; 2 of 3 rounds passed the gate." in lead
    assert "Round 2 was rejected: quality not better beyond chance in round two" in lead
    # skill 0.9 against 0.6 and 0.4 on the same 60 samples: 18 and 30 of them turned from wrong to right
    assert "better than round 0 by +0.30" in lead
    assert "better than the model after pretrain by +0.50" in lead


def test_every_rejected_reason_and_guard_is_there(page: Page) -> None:
    assert f"quality not better beyond chance in round two {EVIL}" in page.text
    for number in (1, 2, 3):
        assert f"guard sentence of round {number}" in page.text
    assert page.text.count("Guard broken") == 1
    assert "Tested against round 0: quality +0.079 (+0.010 to +0.150)." in page.text
    assert "p, the probability of such a gain by chance, is 0.0123; 0.0167 or less was required." in page.text


def test_dropped_are_counted_by_curator_and_reason(page: Page) -> None:
    # 18 rewards from 0 to 1 in 17 steps: 4 are below 0.2; of the other 14 every third candidate is kept: 5
    assert page.row("sampled") == ["18"] * 3
    assert page.row("threshold", f"below the limit: reward … {EVIL}") == ["4"] * 3
    assert page.row("choice", "not chosen: one of 3") == ["9"] * 3
    assert page.row("kept") == ["5"] * 3
    assert "dropped by an earlier curator" not in page.text


def test_displayed_rewards_are_the_weighted_sum(page: Page) -> None:
    # judge_a weighs 2, judge_b is half of it: 2.5 times the reward, from 0 for the worst to 2.5 for the best
    captions = page.text
    assert re.search(r"From round 3, lowest reward first\. .{0,400}?0\.00", captions)
    assert "2.50 kept" in captions


def test_lineage_and_time(page: Page) -> None:
    real, synthetic, share, steps, model, parent = page.row("round 1")
    assert (real, synthetic, share, steps) == ("30", "5", "86%", "40")
    assert model == "model-of-rounds/001"
    assert parent == "none (new weights)"
    assert "The recipe states no price per hour" in page.text
    titles = [attributes["title"] for _, attributes in page.tags if "title" in attributes]
    assert "training: 100 s" in titles


def test_price_is_displayed_where_it_is_configured(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "priced", "points", price=36.0)
    fake.stages()
    # 100.5 + 2.5 s of mixing and training, 2 s of evaluation, and what loading took: a cent a second
    cost = re.search(r"In all .*?, \$(\d+\.\d+) at \$36\.00 an hour", page_of(fake.run).text)
    assert cost is not None
    assert 1.05 <= float(cost[1]) < 1.25


def test_reasons_that_differ_in_numbers_are_one_kind() -> None:
    said = {
        "threshold": ["threshold: reward 0.1 below 0.5", "threshold: reward -2e-05 below 0.5", "", "unscored"],
        "deduplicate": ["deduplicate: equal to 0123456789abcdef", "", "dropped by an earlier curator",
                        "deduplicate: nearer than 0.2 to fedcba9876543210"],
    }
    chosen = [Selection(name, np.array([not w for w in why]), objects(why)) for name, why in said.items()]
    found = {name: kept_and_dropped.by_kind(name, {1: chosen}) for name in said}
    assert {k: v[1].tolist() for k, v in found["threshold"].items()} == {"reward … below 0.5": [0, 1], "unscored": [3]}
    duplicates = {k: v[1].tolist() for k, v in found["deduplicate"].items()}
    assert duplicates == {"equal to 0123456789abcdef": [0], "nearer than 0.2 to fedcba9876543210": [3]}


def test_many_kinds_of_reasons_are_counted_by_their_first_word() -> None:
    why = [f"judge: {'very ' * i}bad" for i in range(20)]
    chosen = [Selection("judge", np.zeros(20, dtype=bool), objects(why))]
    assert [(k, len(v[4])) for k, v in kept_and_dropped.by_kind("judge", {4: chosen}).items()] == [("judge", 20)]


# safety


def test_what_models_write_is_text(page: Page) -> None:
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert" not in page.source
    assert EVIL in page.text
    assert "&lt;script&gt;alert(" in page.source


def test_only_its_own_script_may_run(page: Page) -> None:
    import hashlib

    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    script = re.search(r"<script>(.*?)</script>", page.source, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/")), (tag, name, value[:60])
    assert not re.search(r"url\(|@import", page.source)
    assert len(page.source) < 3_000_000


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    for _, attributes in page.tags:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in page.ids()


# samples


def _decoded(uri: str) -> Array:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGBA"))


@pytest.mark.slow
def test_grid_shows_the_stored_pixels(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "pictures", "image").whole()
    page = page_of(fake.run)
    grid = parquet_tables.read_samples(fake.folder / "rounds/000/pretrain/grid.parquet")
    # 6 prompts by 5 models; the first is the first prompt of pretrain: two pictures with a gap of one pixel
    shown = _decoded(page.pictures()[0])
    assert shown.shape == (8, 17, 4)
    np.testing.assert_array_equal(shown[:, :8, 0], grid.content[0, :, :, 0])
    np.testing.assert_array_equal(shown[:, 9:, 0], grid.content[1, :, :, 0])
    assert (shown[:, 8, 3] == 0).all()


def test_flip_book_goes_through_checkpoints_and_rounds_and_ends_visible(whole: StoredRun, page: Page) -> None:
    frames = [a for _, a in page.tags if "data-frame" in a]
    names = [a["data-frame"] for a in frames]
    ends = ["pretrain, end of training", "finetune (round 0), end of training"]
    ends += ["round 1, promoted", "round 2, rejected", "round 3, promoted"]
    checkpoints = [] if whole.kind == "points" else ["pretrain, epoch 1", "pretrain, epoch 2"]
    if whole.kind == "text":
        # its texts come out the same at the last checkpoint and at the end only if the draws do: both are shown or one
        names = [n for n in names if n != "pretrain, epoch 4"]
    assert names == [*checkpoints, *ends]
    assert [("hidden" in a) for a in frames] == [True] * (len(frames) - 1) + [False]
    slider = next(a for tag, a in page.tags if tag == "input")
    assert slider["max"] == str(len(frames) - 1) == slider["value"]


@pytest.mark.slow
def test_frame_has_prompts_across(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "frames", "image").whole()
    page = page_of(fake.run)
    grid = parquet_tables.read_samples(fake.folder / "rounds/003/grid.parquet")
    frame = next(u for u in map(_decoded, page.pictures()) if u.shape == (17, 6 * 9 - 1, 4) and u[0, 0, 0] ==
                 grid.content[0, 0, 0, 0] and (u[:8, 9:17, 0] == grid.content[2, :, :, 0]).all())
    np.testing.assert_array_equal(frame[9:, :8, 0], grid.content[1, :, :, 0])


def test_large_images_are_downscaled() -> None:
    rng = np.random.default_rng(0)
    uri = image_data.strip(rng.integers(0, 256, (2, 300, 200, 3)).astype(np.uint8))
    assert uri.startswith("data:image/webp")
    assert _decoded(uri).shape == (128, 85 * 2 + 4, 4)


def test_text_marks_what_changed() -> None:
    pieces = text_changes.changes("the cat sat on the mat", "the dog sat on a warm mat")
    assert "".join(p.text for p in pieces) == "the dog sat on a warm mat"
    assert [p.text for p in pieces if p.changed] == ["dog", "a warm"]
    assert text_changes.changes(None, "anything") == [text_changes.Piece("anything", False)]


def test_greedy_candidates_are_displayed_once(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "greedy", "text")
    fake.content = lambda count, skill, seed: [f"same {skill}"] * count  # type: ignore[method-assign]
    fake.stages()
    source = page_of(fake.run).source
    # once for each of 6 prompts, though there are two candidates
    assert source.count('<pre>same 0.4</pre>') == 2 * 6  # the block, and the frame of the flip-book


@pytest.mark.slow
def test_points_have_the_real_ones_behind(tmp_path: Path) -> None:
    page = page_of(StoredRun(tmp_path / "points", "points").whole().run)
    clouds = {a["id"]: a["d"] for tag, a in page.tags if tag == "path" and a.get("id", "").startswith("cloud")}
    # every real point lies inside the panel, each drawn once
    assert clouds["cloud-real"].count("M") == 30
    used = [a["href"] for tag, a in page.tags if tag == "use"]
    assert used.count("#cloud-real") == 2 * 5  # small multiples and frames
    places = np.array(re.findall(r"M(\d+) (\d+)", clouds["cloud-real"]), dtype=int)
    assert places.min() >= 0
    assert places.max() <= 400


def test_nearest_pairs_are_named_with_their_distance(page: Page) -> None:
    assert "nearest" in page.ids()
    for distance in ("distance 0.250", "distance 1.25", "distance 2.25"):
        assert distance in page.text


# at any time


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text", "points"])
def test_half_finished_runs(tmp_path: Path, kind: str) -> None:
    fake = StoredRun(tmp_path / "half", kind)
    assert "Nothing has been measured yet" in page_of(fake.run).text
    fake.data()
    assert "24 real samples for training" in page_of(fake.run).text
    fake.trained("rounds/000/pretrain", 30, 0)
    assert "losses" in page_of(fake.run).ids()
    fake.evaluated("rounds/000/pretrain", 0.4)
    page = page_of(fake.run)
    assert "the newest model is the one after pretrain" in page.text
    assert page.row("metric") == ["pretrain"]
    fake.trained("rounds/000/finetune", 15, 0)
    fake.evaluated("rounds/000/finetune", 0.6)
    fake.base()
    assert "the gate has not decided on a round yet" in page_of(fake.run).text
    fake.round(1, 0.7, None, "")
    page = page_of(fake.run)
    assert "Round 1 unfinished" in page.text
    assert "Round 2 not started" in page.text
    assert "The run is in progress" in page.text
    fake.run.close()
    assert "stopped before its end" in page_of(Run.open(fake.folder)).text


def test_failed_and_waiting_runs_say_so(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "failed", "points")
    fake.stages()
    fake.run.set_state("failed", f"the loss is not a number {EVIL}")
    assert f"The run failed: the loss is not a number {EVIL}. The steps that finished before" in page_of(fake.run).text
    fake.run.set_state("waiting", "12 votes are missing")
    assert "The run is waiting: 12 votes are missing." in page_of(fake.run).text


@pytest.mark.slow
def test_all_rounds_rejected_keeps_round_0(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "nothing-gained", "points", rounds=2)
    fake.stages()
    for number in (1, 2):
        fake.round(number, 0.5, "rejected", f"no gain in round {number}")
    fake.run.set_state("done")
    page = page_of(fake.run)
    assert "Round 0, the model after finetune, is kept: none of the 2 rounds passed the gate." in page.text
    assert "no gain in round 1" in page.text
    assert "no gain in round 2" in page.text


@pytest.mark.slow
def test_long_runs_show_some_columns_and_say_so(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "long", "image", rounds=20)
    fake.stages()
    for number in range(1, 21):
        fake.round(number, 0.6, "promoted" if number == 7 else "rejected", f"reason of round {number}.")
    page = page_of(fake.run)
    assert len(page.row("metric")) == 22
    heads = re.findall(r'<div class="head"><b>(.*?)</b>', page.source)
    assert heads[:2] == ["pretrain", "finetune"]
    assert "round 7" in heads
    assert heads[-1] == "round 20"
    assert len(heads) <= 17
    assert f"{len(heads)} of 22 models are displayed" in page.text
    assert all(f"reason of round {number}." in page.text for number in range(1, 21))


def test_a_metric_that_cannot_speak_says_why(tmp_path: Path) -> None:
    fake = StoredRun(tmp_path / "silent", "points")
    fake.stages()
    silent: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0, "note": "no prompt has a class"}
    for unit in ("rounds/000/finetune", "rounds/000"):
        path = fake.folder / unit / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics[METRIC] = silent
        path.write_text(json.dumps(metrics))
    page = page_of(fake.run)
    assert "could not be measured (no prompt has a class)" in page.text
    assert page.row(METRIC)[1] == "–"


def test_writing_is_whole_and_repeatable(whole: StoredRun) -> None:
    first = report.write(whole.run).read_bytes()
    assert report.write(whole.run).read_bytes() == first
    assert not list(whole.folder.glob(".report*"))


@pytest.mark.slow
def test_it_needs_no_models(tmp_path: Path) -> None:
    import subprocess
    import sys

    fake = StoredRun(tmp_path / "light", "image")
    fake.stages()
    fake.run.close()
    code = (
        "import sys; from pathlib import Path; from upturn.store.run import Run; from upturn import report;"
        f"report.write(Run.open(Path({str(fake.folder)!r})));"
        "print(sorted({'torch', 'diffusers', 'transformers', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# curves and numbers


def test_curve_marks_rejected_rounds_with_crosses(page: Page) -> None:
    crosses = [a for tag, a in page.tags if a.get("class") == "cross"]
    assert len(crosses) == 1 + 4  # the key, and round 2 in each of four metrics
    halos = [a for tag, a in page.tags if a.get("class") == "halo"]
    assert len(halos) == 1 + 4


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.83, 0.97), (-3.0, 12.0), (1e-5, 4e-5), (1000.0, 250000.0)])
def test_ticks_are_round_inside_and_few(low: float, high: float) -> None:
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert len({svg.tick_text(tick) for tick in found}) == len(found)


@pytest.mark.parametrize(("measured", "shown"), [
    ({"value": 0.98765, "low": 0.981, "high": 0.9931}, "0.9877 [0.9810, 0.9931]"),
    ({"value": 12.3456, "low": 11.1, "high": 14.9}, "12.3 [11.1, 14.9]"),
    ({"value": 4321.7, "low": 4100.0, "high": 4500.0}, "4\u202f322 [4\u202f100, 4\u202f500]"),
    ({"value": -0.5, "low": None, "high": None}, "−0.500"),
    ({"value": None, "low": None, "high": None}, "–"),
])
def test_numbers_have_the_digits_that_the_interval_gives(measured: Mapping[str, Any], shown: str) -> None:
    assert words.interval(measured) == shown


def test_metrics_have_the_name_that_the_recipe_gave() -> None:
    assert words.term("coverage").title == "Coverage"
    assert words.term("tries/coverage", {"name": "coverage"}).title == "Coverage (tries)"
    found = words.term("quality", {"name": "coverage"})
    assert found.title == "quality" and found.better == "higher" and found.meaning == words.term("coverage").meaning
    assert found.reference is not None and found.reference[0] == "if_equal"
    assert words.term("tries/solved", {"name": "verifier_accuracy", "as": "solved", "k": 8}).title == "tries/solved"
    assert words.term("verifier_accuracy", {"name": "verifier_accuracy", "k": 8}).title == "Solved within 8 tries"
    assert words.term("their_own") == words.Term("their_own", "")


def test_every_metric_that_ships_has_a_title_a_meaning_and_its_own_direction() -> None:
    for name in components.names("metric"):
        term = words.term(name)
        assert term.title != name and term.meaning.endswith("."), name
        assert term.better == components.find("metric", name).better, name
    worst = words.term("per_class", {"name": "per_class", "metric": {"name": "coverage", "k": 3}})
    assert worst.title == "Coverage, worst class" and worst.better == "higher"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (59.7, "60 s"), (125, "2 min 05 s"), (7260, "2 h 01 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_control_characters_are_visible() -> None:
    assert words.visible("a\x00b\x1b[31m\u202egood\nline") == "a\u2400b\u241b[31m\ufffdgood\nline"


