"""Tests of a run that waits for annotators, stores their votes and resumes, with equal bytes after any kill."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import child_process as children
from helpers.small_recipes import small
from helpers.vote_recipes import VOTED
from upturn import cli
from upturn.annotation.db.ballots import open_box
from upturn.annotation.db.used_votes import votes_of
from upturn.annotation.db.validation import Answer, Refused
from upturn.config.recipe import to_yaml
from upturn.errors import UserError
from upturn.loop import loop
from upturn.runs import status
from upturn.store import lineage, parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run
from upturn.web.simulated_run import answer, run_through

pytestmark = pytest.mark.slow

RUNNER = CliRunner()
FITTED = """
name: fitted
threads: 1
data: digits
models:
  policy: {name: pixels, classes: 10, network: {name: mlp, width: 16, depth: 1}}
  reward: {name: reward_image, refit: {objective: bradley_terry, steps: 2, batch_size: 8}}
stages: [{name: pretrain, steps: 2, batch_size: 32}]
rounds:
  count: 1
  sample: {prompts: 60, candidates: 4, settings: {steps: 2}}
  people: {mode: pick, simulated: {score: ink, count: 2}}
  score: {name: reward_model, model: reward}
  curate: best_of_n
  mix: {policy: replace, lambda: 1.0, real: 20}
  train: {steps: 2, batch_size: 16}
evaluate: {prompts: 10, metrics: [vendi], settings: {steps: 2}}
grid: {prompts: 2, per_prompt: 1}
"""
EDITED = """
name: edited
threads: 1
data: {name: equations, count: 100, operations: [1, 2], largest: 5, worked: 50}
models:
  policy:
    name: causal_lm
    config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    max_length: 48
stages: [{name: pretrain, steps: 2, batch_size: 16, where: {solution: given}}]
rounds:
  count: 1
  sample: {prompts: 6, candidates: 1, where: {}, settings: {max_tokens: 6}}
  people: {mode: edit}
  curate: picked
  mix: {policy: replace, lambda: 1.0, where: {solution: given}}
  train: {steps: 2, batch_size: 8}
evaluate: {prompts: 4, metrics: [distinct], settings: {max_tokens: 6}}
grid: {prompts: 1, per_prompt: 1}
"""


def vote_all(run: Run, unit: str = "rounds/001", most: int = 100) -> list[str]:
    """One person picks the first on the screen, or writes a text; the ids of the votes."""
    made = []
    with open_box(run) as box:
        names = {person.name: person.id for person in box.people()}
        person = names.get("ada") or box.add_person("ada")[0].id
        while len(made) < most and (showing := box.assign(person).showing) is not None:
            name = f"{unit}-{len(made)}-{showing.task}"
            said = Answer(name, person, showing.id, "said", pick=1)
            if showing.mode == "edit":
                said = Answer(name, person, showing.id, "edit", text=f"{len(made)} + 1 = {len(made) + 1}")
            made.append(box.record(said).id)
    return made


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that waits in round 1, with seven of ten answers."""
    run = loop.run(small(VOTED), tmp_path_factory.mktemp("waiting"))
    vote_all(run, most=7)
    return loop.run(small(VOTED), run.folder.parent)  # it waits again, and its message counts the seven


def copied(run: Run, to: Path) -> Run:
    shutil.copytree(run.folder, to / run.name)
    return Run.open(to / run.name)


def test_a_waiting_run_reports_the_missing_votes(waiting: Run, tmp_path: Path) -> None:
    assert waiting.state.state == "waiting"
    path = tmp_path / "recipe.yaml"
    path.write_text(VOTED)
    again = RUNNER.invoke(cli.app, ["run", str(path), "--runs", str(waiting.folder.parent)])
    assert again.exit_code == 3, again.output
    assert "7 of 10 answers ('pick' on rounds/001) are there (ada 7)" in " ".join(again.output.split())
    assert f"upturn serve {waiting.folder}" in again.output
    seen = status.read(waiting)
    assert seen.state == "waiting" and "(ada 7)" in seen.message
    assert seen.rounds[1].state == "running" and seen.rounds[2].state == "pending"


def test_status_counts_what_came_since(waiting: Run, tmp_path: Path) -> None:
    run = copied(waiting, tmp_path)
    vote_all(run, "more", most=2)
    assert "9 of 10 answers" in status.read(run).message and "7 of 10" in run.state.message
    printed = RUNNER.invoke(cli.app, ["status", "voted", "--runs", str(tmp_path), "--json"]).output
    assert "9 of 10 answers" in json.loads(printed)["message"]


def ended(run: Run) -> dict[str, str]:
    """The artifacts of round 1, by the hash of their bytes."""
    unit = run.unit("rounds/001")
    names = ("votes.parquet", "selections.parquet", "mixture.parquet", "model")
    return {name: tree_hash(unit / name) if name == "model" else (unit / name).read_bytes().hex() for name in names}


@pytest.fixture(scope="module")
def voted(waiting: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = copied(waiting, tmp_path_factory.mktemp("voted"))
    vote_all(run, "rest")
    return run


@pytest.fixture(scope="module")
def undisturbed(voted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = copied(voted, tmp_path_factory.mktemp("undisturbed"))
    return loop.run(small(VOTED), run.folder.parent)  # waits again, in round 2


def test_picked_candidates_are_kept_and_the_votes_are_frozen(undisturbed: Run) -> None:
    assert undisturbed.state.state == "waiting" and "rounds/002" in undisturbed.state.message
    found = votes_of(undisturbed, ["rounds/001"])
    assert found is not None and len(found) == 10
    samples = parquet_tables.read_samples(undisturbed.unit("rounds/001") / "samples.parquet")
    chosen = parquet_tables.read_selections(undisturbed.unit("rounds/001") / "selections.parquet", samples.ids)[-1]
    picked = {shown[ranks.index(1)] for shown, ranks in zip(found.shown, found.ranks, strict=True)}
    assert set(samples.ids[chosen.kept]) == picked and len(picked) == 10
    assert set(chosen.reasons[~chosen.kept]) == {"picked: another of 4 was picked"}
    record = undisturbed.done("rounds/001", "vote")
    assert record is not None and record.counts["votes"] == 10 and record.info["simulated"] == 0
    assert "votes.parquet" in record.files and undisturbed.verify().intact
    with open_box(undisturbed) as box:
        assert [poll.unit for poll in box.polls(active=True)] == ["rounds/002"]
        with pytest.raises(Refused, match="a round has used the answers"):
            box.open_poll("rounds/001", "pick", [])


@pytest.mark.long
@pytest.mark.parametrize("fault", ["commit:written", "commit:after-record"])
def test_killed_around_the_vote_it_ends_with_the_same_bytes(
    voted: Run, undisturbed: Run, tmp_path: Path, fault: str
) -> None:
    """SIGKILL while the votes are frozen; then the last answer is taken back, and another one is given in its place."""
    run = copied(voted, tmp_path)
    child = children.start(VOTED, tmp_path, fault)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with open_box(run) as box:
        person = box.people()[0].id
        undone, showing = box.undo("second-thoughts", person)
        assert undone is not None and showing is not None
        box.record(Answer("late", person, showing.id, "bad"))
    loop.run(small(VOTED), tmp_path)
    assert ended(run) == ended(undisturbed)


def test_simulated_annotators_complete_a_run(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(VOTED)
    done = RUNNER.invoke(cli.app, ["run", str(path), "--runs", str(tmp_path), "--simulate"])
    assert done.exit_code == 0, done.output
    run = Run.open(tmp_path / "voted")
    votes = votes_of(run)
    assert run.state.state == "done" and votes is not None and len(votes) == 20
    assert set(votes.team) == {"simulated"} and len(set(votes.person)) == 3
    assert "of simulated annotators" in done.output
    assert "20 votes of 3 simulated annotators" in (run.folder / "report.html").read_text(encoding="utf-8")
    points = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    kept = parquet_tables.read_selections(run.unit("rounds/001") / "selections.parquet", points.ids)[-1].kept
    nearness = -np.linalg.norm(points.content - np.array([4.0, 0.0]), axis=1)
    assert nearness[kept].mean() > nearness.mean()


def test_corrected_texts_are_trained_on_with_their_parents(tmp_path: Path) -> None:
    run = loop.run(small(EDITED), tmp_path)
    vote_all(run)
    assert loop.run(small(EDITED), tmp_path).state.state == "done"
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    written = parquet_tables.read_samples(run.unit("rounds/001/edited") / "samples.parquet")
    assert sorted(written.content) == [f"{i} + 1 = {i + 1}" for i in range(6)]
    mixed = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet").samples
    assert set(mixed.ids[mixed.origin == "synthetic"]) == set(written.ids)
    traced = lineage.trace(run, str(written.ids[0]))
    assert traced.parent in samples.ids and traced.foreign == {"people": 6}
    assert samples.source[0] in [ancestor.model for ancestor in traced.models]
    with open_box(run) as box:
        assert set(written.fields["edited_by"]) == {box.people()[0].id}


def test_preference_objectives_learn_from_the_votes(tmp_path: Path) -> None:
    text = VOTED.replace("models: {policy: gaussian}", "models: {policy: {name: points, network: {name: mlp, width: 8, "
                         "depth: 1}}}").replace("curate: picked", "curate: []").replace("count: 2", "count: 1")
    text = text.replace("train: {steps: 1}", "train: {steps: 2, batch_size: 8, objective: dpo}")
    text = text.replace("name: fit, steps: 1", "name: fit, steps: 2, batch_size: 32")
    run = run_through(small(text, "rounds.sample.settings={steps: 2}", "evaluate.settings={steps: 2}"), tmp_path)
    mixed = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet").samples
    votes = votes_of(run)
    assert votes is not None and run.state.state == "done"
    picked = {shown[ranks.index(1)] for shown, ranks in zip(votes.shown, votes.ranks, strict=True)}
    assert set(mixed.ids[mixed.fields["rank"] == 1]) == picked and len(mixed) == 20
    assert run.done("rounds/001", "mix").counts["pairs"] == 10  # type: ignore[union-attr]


def test_a_reward_model_is_fitted_on_votes(tmp_path: Path) -> None:
    """Sixty pairs, one a pick, nine tenths of them fitted on; the scorer that it becomes chooses."""
    run = run_through(small(FITTED), tmp_path)
    votes = votes_of(run)
    assert votes is not None and run.state.state == "done"
    said = parquet_tables.read_mixture(run, run.unit("rounds/001/reward") / "mixture.parquet").samples
    picked = {shown[ranks.index(1)] for shown, ranks in zip(votes.shown, votes.ranks, strict=True)}
    assert set(said.ids[said.fields["rank"] == 1]) == picked and len(said) == 120
    fit = run.done("rounds/001/reward", "judge")
    assert fit is not None and fit.counts["groups"] == 60 and fit.info["votes"] == {"winner": 60}
    assert run.done("rounds/001", "score").counts["scored"] == 240  # type: ignore[union-attr]


MISTAKES = [
    (["rounds.people=null"], "reads annotators' votes, and the rounds ask for none"),
    (["rounds.curate=[]"], "nothing reads their votes"),
    (["rounds.curate=[picked, choice]", "rounds.score={name: closeness, to: [0.0, 0.0]}"], "would select again among"),
    (["rounds.sample.candidates=1"], "chooses among candidates"),
    (["rounds.people.overlap=4"], "each task needs votes of 4 annotators, and 3 are simulated"),
    (["models.reward={name: reward_image, refit: {objective: bradley_terry, steps: 1}}", "rounds.people=null",
      "rounds.curate=[]"],
     "have no scores and no votes"),
    (["rounds.people.mode=guess"], "rounds.people.mode"),
    (["rounds.people.candidates=9"], "rounds.people.candidates"),
    (["rounds.people.simulated.score=nothing"], "nothing"),
]


@pytest.mark.parametrize(("settings", "said"), MISTAKES, ids=lambda v: v if isinstance(v, str) else "")
def test_invalid_settings_are_refused_before_the_first_step(settings: list[str], said: str) -> None:
    from upturn.loop.assemble import assemble

    with pytest.raises(UserError, match=said):
        assemble(small(VOTED, *settings))


def test_without_simulated_annotators_no_votes_are_simulated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody is there to vote"):
        run_through(small(VOTED, "rounds.people.simulated=null"), tmp_path)
    assert not (tmp_path / "voted").exists()


def test_the_recipe_survives_a_round_trip_through_yaml() -> None:
    asked = small(VOTED, "rounds.people.repeats=0.1", "rounds.people.least_reliability=0.6")
    assert small(to_yaml(asked)) == asked


def test_the_plan_counts_votes_and_hours() -> None:
    from upturn.plan.expected_counts import kept, votes

    rounds = small(VOTED, "rounds.people.overlap=3", "rounds.people.seconds=60").rounds
    assert rounds is not None and kept(rounds) == 10
    assert "60 answers ('pick', 30 a round): 1.0 person-hours at 60 s each" in votes(rounds)[0]


def test_the_record_counts_simulated_votes(waiting: Run, tmp_path: Path) -> None:
    """Some answers by a person, the rest by simulated annotators: the record counts both."""
    from upturn.loop.assemble import assemble

    run = copied(waiting, tmp_path)
    recipe = small(VOTED)
    assert recipe.rounds is not None and recipe.rounds.people is not None
    assert answer(run, assemble(recipe), recipe.rounds.people) == 3
    loop.run(recipe, tmp_path)
    assert run.done("rounds/001", "vote").info["simulated"] == 3  # type: ignore[union-attr]
