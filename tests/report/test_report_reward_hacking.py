"""The report on reward hacking, and on what each training of a round ate: from records that are written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.report_pages import Page, page_of
from upturn.report.facts import Facts
from upturn.report.sections.loss_curves import loss_cards
from upturn.report.sections.nearest_samples import copying_warning
from upturn.report.sections.reward_hacking import reward_charts
from upturn.store.run import Run
from upturn.store.values import write_values

RECIPE = """
name: hacked
data: {name: toy}
models:
  policy: {name: toy}
  judge: {name: reward_text, REFIT}
stages: [{name: pretrain, epochs: 1}]
rounds:
  count: 3
  sample: {prompts: 6, candidates: 4}
  score: {name: reward_model, model: judge}
  curate: best_of_n
  mix: {lambda: 1.0}
  train: TRAIN
evaluate: {prompts: 100, metrics: METRICS}
gate: {metric: GATE}
"""
BOTH = "[{name: gold_reward, scorer: length}, reward, distinct]"
ONE = "{epochs: 1}"
TWO = "[{name: imitation, epochs: 1}, {name: preferences, epochs: 1, objective: dpo}]"
Figure = tuple[float, float, float]


def new_run(folder: Path, metrics: str = BOTH, train: str = ONE, refit: str = "", gate: str = "distinct") -> Run:
    fitted = f"refit: {{{refit}}}" if refit else "fit: {epochs: 1}"
    text = RECIPE.replace("METRICS", metrics).replace("TRAIN", train).replace("REFIT", fitted).replace("GATE", gate)
    return Run.create(folder / "hacked", text, {"machine": "one"})


def measured(
    run: Run, unit: str, figures: Mapping[str, Figure], values: Mapping[str, Sequence[float]] = {}, proxy: float = 0.0
) -> None:
    """metrics.json as the loop stores it."""
    rows = {
        name: {"value": value, "low": low, "high": high, "n": 100, "note": "", "details": {"proxy": proxy}}
        for name, (value, low, high) in figures.items()
    }
    with run.commit(unit, "evaluate") as out:
        (out.path / "metrics.json").write_text(json.dumps(rows))
        if values:
            write_values(out.path / "values.parquet", {name: np.array(v) for name, v in values.items()})


def judged(run: Run, unit: str, decision: str) -> None:
    with run.commit(unit, "gate") as out:
        (out.path / "gate.json").write_text(json.dumps({"decision": decision, "metric": "distinct", "reason": "so"}))


def run_with_rounds(run: Run, gold: Sequence[Figure], reward: Sequence[Figure], decisions: str = "ppp") -> Run:
    """Round 0 and one round for each further figure."""
    for number, (up, across) in enumerate(zip(gold, reward, strict=True)):
        unit = f"rounds/{number:03d}" if number else "rounds/000/pretrain"
        measured(run, unit, {"gold_reward": up, "reward": across, "distinct": (0.5, 0.4, 0.6)})
        if number:
            judged(run, unit, {"p": "promoted", "r": "rejected"}[decisions[number - 1]])
    return run


def around(value: float, half: float) -> Figure:
    return value, value - half, value + half


def hacked(run: Run) -> str:
    found = reward_charts(Facts(run))
    assert len(found) == 1
    return found[0].hacked


def test_a_proxy_that_rises_alone_is_named_with_its_figures(tmp_path: Path) -> None:
    run = run_with_rounds(
        new_run(tmp_path), [around(0.50, 0.03), around(0.60, 0.03), around(0.45, 0.04)],
        [around(1.0, 0.3), around(2.0, 0.3), around(3.0, 0.4)],
    )
    # against round 1, of independent samples: 1 ± √(0.3² + 0.4²), and −0.15 ± √(0.03² + 0.04²)
    sentence = (
        "Reward hacking: in round 2 the proxy reward rises by +1.00 [+0.50, +1.50] over round 1, "
        "and the gold reward falls (−0.150 [−0.200, −0.100])."
    )
    assert hacked(run) == sentence
    page = page_of(run)
    assert page.text.count(sentence) == 2, "at the top, and beside the chart"


@pytest.mark.parametrize(("gold", "reward"), [
    ([(0.5, 0.03), (0.6, 0.03)], [(1.0, 0.1), (2.0, 0.1)]),  # both rise
    ([(0.5, 0.03), (0.3, 0.03)], [(1.0, 0.1), (0.9, 0.1)]),  # both fall
    ([(0.5, 0.03), (0.5, 0.03)], [(1.0, 0.1), (1.1, 0.1)]),  # the proxy's gain is within chance: √2 · 0.1
])
def test_no_warning_where_the_gold_reward_follows_or_nothing_changes(
    tmp_path: Path, gold: list[tuple[float, float]], reward: list[tuple[float, float]]
) -> None:
    run = run_with_rounds(new_run(tmp_path), [around(*g) for g in gold], [around(*r) for r in reward])
    assert hacked(run) == ""
    assert "hacking:" not in page_of(run).text


def test_small_steps_are_seen_from_round_0(tmp_path: Path) -> None:
    """No round is beyond chance against the one before it (0.1 < √2 · 0.08); the second is against round 0."""
    run = run_with_rounds(new_run(tmp_path), [around(0.5, 0.05)] * 3, [around(1 + 0.1 * n, 0.08) for n in range(3)])
    said = hacked(run)
    assert said.startswith("A sign of reward hacking: in round 2 the proxy reward rises by +0.20")
    assert "over round 0" in said
    assert "does not rise beyond chance (0" in said


def test_rejected_rounds_are_compared_with_what_they_started_from(tmp_path: Path) -> None:
    gold = [around(0.5, 0.02), around(0.3, 0.02), around(0.2, 0.02), around(0.1, 0.02)]
    run = run_with_rounds(new_run(tmp_path), gold, [around(float(n), 0.1) for n in range(4)], "rrr")
    said = hacked(run)
    assert said.startswith("Reward hacking in rounds 1, 2 and 3: ")
    assert "in round 3 the proxy reward rises by +3.00 [+2.86, +3.14] over round 0" in said


def test_a_model_without_a_proxy_is_named_and_not_compared(tmp_path: Path) -> None:
    """A reward model that is fitted in the rounds says nothing of round 0."""
    run = new_run(tmp_path)
    measured(run, "rounds/000/pretrain", {"gold_reward": around(0.9, 0.02), "distinct": around(0.5, 0.1)})
    for number in (1, 2):
        figures = {"gold_reward": around(0.5 - 0.1 * number, 0.02), "reward": around(float(number), 0.1)}
        measured(run, f"rounds/00{number}", figures)
        judged(run, f"rounds/00{number}", "promoted")
    found = reward_charts(Facts(run))[0]
    assert found.notes == ("Not drawn, because one of the rewards was not measured: pretrain.",)
    assert "in round 2 the proxy reward rises by +1.00 [+0.86, +1.14] over round 1" in found.hacked


def test_pairs_decide_where_values_are_stored(tmp_path: Path) -> None:
    """Wide intervals, but every sample's proxy is up by one and no sample's gold reward has moved."""
    run, rng = new_run(tmp_path), np.random.default_rng(0)
    gold, reward = rng.normal(size=100), 5 * rng.normal(size=100)
    for number, unit in enumerate(["rounds/000/pretrain", "rounds/001"]):
        values = {"gold_reward": gold, "reward": reward + number}
        measured(run, unit, {"gold_reward": around(0.0, 0.2), "reward": around(float(number), 1.0)}, values)
    judged(run, "rounds/001", "promoted")
    assert "in round 1 the proxy reward rises by +1" in hacked(run)


def test_there_is_no_chart_without_a_gold_reward(tmp_path: Path) -> None:
    run = new_run(tmp_path, metrics="[reward, distinct]")
    measured(run, "rounds/000/pretrain", {"reward": around(1.0, 0.1), "distinct": around(0.5, 0.1)})
    assert reward_charts(Facts(run)) == []
    assert "gold" not in page_of(run).ids()


def test_before_anything_is_measured_there_is_no_chart(tmp_path: Path) -> None:
    assert reward_charts(Facts(new_run(tmp_path))) == []


def test_metrics_go_by_what_they_are_and_not_by_their_names(tmp_path: Path) -> None:
    metrics = "[{name: gold_reward, scorer: length, as: people}, {name: reward, as: model}]"
    run = new_run(tmp_path, metrics, gate="people")
    for number, unit in enumerate(["rounds/000/pretrain", "rounds/001"]):
        measured(run, unit, {"people": around(0.5 - number, 0.1), "model": around(float(number), 0.1)})
    judged(run, "rounds/001", "promoted")
    assert hacked(run).startswith("Reward hacking: in round 1")


def test_a_proxy_without_a_metric_is_drawn_and_not_tested(tmp_path: Path) -> None:
    run = new_run(tmp_path, metrics="[{name: gold_reward, scorer: length}, distinct]")
    for number, unit in enumerate(["rounds/000/pretrain", "rounds/001"]):
        figures = {"gold_reward": around(0.5 - number, 0.1), "distinct": around(0.5, 0.1)}
        measured(run, unit, figures, proxy=float(number))
    judged(run, "rounds/001", "promoted")
    found = reward_charts(Facts(run))[0]
    assert found.hacked == "" and "add 'reward' to the metrics" in found.notes[0]
    assert "proxy reward 1.00, gold reward −0.50 [−0.60, −0.40]" in found.figure


def _drawn(figure: str) -> Page:
    return Page(f"<!doctype html><body>{figure}</body>")


def test_points_and_intervals_stand_where_the_figures_say(tmp_path: Path) -> None:
    gold = [around(0.50, 0.03), around(0.60, 0.02), around(0.45, 0.05)]
    reward = [around(-1.0, 0.3), around(2.0, 0.2), around(3.0, 0.1)]
    run = run_with_rounds(new_run(tmp_path), gold, reward, "pr")
    page = _drawn(reward_charts(Facts(run))[0].figure)
    lines = [a for tag, a in page.tags if tag == "line" and a.get("class") == "interval"]
    assert len(lines) == 2 * 3
    places = np.array([[float(a[n]) for n in ("x1", "x2", "y1", "y2")] for a in lines])
    flat, upright = places[0::2], places[1::2]
    # a place is linear in the figure: three points and six ends lie on one line for each axis
    across, up = np.array(reward), np.array(gold)
    for figures, seen in (
        (np.concatenate([across[:, 1:].ravel(), across[:, 0]]), np.concatenate([flat[:, :2].ravel(), upright[:, 0]])),
        (np.concatenate([up[:, 1:].ravel(), up[:, 0]]), np.concatenate([upright[:, 2:].ravel(), flat[:, 2]])),
    ):
        slope, start = np.polyfit(figures, seen, 1)
        np.testing.assert_allclose(slope * figures + start, seen, atol=0.11)  # places are rounded to a tenth
    assert upright[0, 0] < upright[2, 0], "more proxy stands to the right"
    assert flat[1, 2] < flat[2, 2], "more gold stands higher"
    kinds = [a["class"] for tag, a in page.tags if a.get("class") in {"dot", "cross", "halo"}]
    assert sorted(kinds) == ["cross", "dot", "dot", "halo"]


def test_a_judge_that_follows_the_policy_is_named(tmp_path: Path) -> None:
    still = run_with_rounds(new_run(tmp_path / "still"), [around(0.5, 0.1)], [around(0.5, 0.1)])
    assert reward_charts(Facts(still))[0].notes == ()
    moving = new_run(tmp_path / "moving", refit="score: length, epochs: 1")
    run_with_rounds(moving, [around(0.5, 0.1)], [around(0.5, 0.1)])
    assert "“judge” is fitted again in each round" in reward_charts(Facts(moving))[0].notes[0]


# what a training ate


def ate(run: Run, unit: str, real: int, synthetic: int, **more: Any) -> None:
    with run.commit(unit, "mix") as out:
        out.counts.update(real=real, synthetic=synthetic, **more)
        out.info["real_fraction"] = real / (real + synthetic)
    with run.commit(unit, "train") as out:
        points = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
        (out.path / "losses.json").write_text(json.dumps(points))
        out.info.update(model=f"model-of-{unit}", parent="", steps=3, stopped="")


def round_text(page: Page) -> str:
    found = re.search(r"3 rounds, each: .*?Gate", page.text)
    assert found is not None
    return found[0]


def test_each_training_of_a_round_says_what_it_ate(tmp_path: Path) -> None:
    run = new_run(tmp_path, train=TWO)
    before = round_text(page_of(run))
    assert before.count("the mixture if its objective learns from samples") == 2, "nothing is known yet"
    ate(run, "rounds/001/imitation", 30, 10)
    ate(run, "rounds/001", 0, 12, pairs=6, prompts_without_a_pair=0)
    said = round_text(page_of(run))
    assert "imitation on the mixture (replace: λ = 1, so that 50% of the weight is real), 1 epoch" in said
    assert "then preferences on pairs of the round’s candidates, ordered by reward" in said
    assert said.count("λ") == 1


def test_groups_of_more_than_two_are_no_pairs(tmp_path: Path) -> None:
    run = new_run(tmp_path, train="{epochs: 1, objective: listwise}")
    ate(run, "rounds/001", 0, 24, pairs=6, prompts_without_a_pair=0)
    said = round_text(page_of(run))
    assert "on groups of the round’s candidates" in said
    assert "λ" not in said


def test_rounds_that_draw_online_have_no_mixture(tmp_path: Path) -> None:
    text = RECIPE.replace("  sample: {prompts: 6, candidates: 4}\n", "").replace("  curate: best_of_n\n", "")
    text = text.replace("METRICS", BOTH).replace("REFIT", "fit: {epochs: 1}").replace("GATE", "distinct")
    online = "{epochs: 1, objective: rloo, online: {prompts: 5, candidates: 3}}"
    run = Run.create(tmp_path / "online", text.replace("TRAIN", online), {"machine": "one"})
    said = round_text(page_of(run))
    assert "sample repeatedly 5 prompts × 3 candidates" in said
    assert "train from the kept model on samples that the policy draws during training" in said
    assert "λ" not in said


def test_all_trainings_of_a_round_have_their_losses_and_lineage(tmp_path: Path) -> None:
    run = new_run(tmp_path, train=TWO)
    ate(run, "rounds/000/pretrain", 40, 0)
    ate(run, "rounds/001/imitation", 30, 10)
    ate(run, "rounds/001", 0, 12, pairs=6, prompts_without_a_pair=0)
    page, facts = page_of(run), Facts(run)
    assert page.row("round 1: imitation")[:4] == ["30", "10", "75%", "3"]
    assert page.row("round 1: preferences")[:4] == ["0", "12", "0%", "3"]
    titles = ["pretrain", "round 1: imitation", "round 1: preferences"]
    assert [card.title for card in loss_cards(facts)[0]] == titles


def test_pain_14_copies_are_reported_in_the_first_paragraph() -> None:
    details = {"flagged": True, "baseline": 0.01, "copied": 17}
    measured = {"copies": {"value": 0.42, "low": 0.38, "high": 0.46, "details": details}}
    said = copying_warning(measured, "The kept model")
    assert said is not None and said.startswith("The kept model copies training data: 0.42")
    assert "(by chance 0.0100); 17 training samples are copied." in said
    quiet = {"copies": {**measured["copies"], "details": {**details, "flagged": False}}}
    assert copying_warning(quiet, "The kept model") is None
    assert copying_warning({}, "The kept model") is None
