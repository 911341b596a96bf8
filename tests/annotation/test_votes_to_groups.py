"""What people said, as groups, as columns, as a choice: every mode by hand, against what it must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.simulated_voters import votes_of
from upturn.annotation.annotator_weights import warnings, who
from upturn.annotation.db.used_votes import read_votes, write_votes
from upturn.annotation.to_groups import corrected, vote_fields, voted_groups
from upturn.config.schema import People
from upturn.curators.picked import Picked
from upturn.data.groups import from_fields
from upturn.errors import UserError
from upturn.types import Prompt, Samples, Selection, Votes, synthetic_samples

PICK = People(mode="pick")


def samples(prompts: int, candidates: int) -> Samples:
    keys = np.arange(prompts * candidates).reshape(prompts, candidates)
    texts = [f"{key // candidates}.{key % candidates}" for key in range(keys.size)]
    return synthetic_samples("text", texts, [Prompt(f"prompt {i}") for i in range(prompts)], keys, "model")


def vote(made: Samples, prompt: int, order: str, **more: Any) -> dict[str, Any]:
    """A vote on candidates of a prompt, "3102" from left to right on the screen."""
    width = int((made.group == 0).sum())
    shown = tuple(str(made.ids[prompt * width + int(place)]) for place in order)
    return {"task": f"task {prompt} {''.join(sorted(order))}", "shown": shown} | more


def names(made: Samples, ids: Any) -> list[str]:
    """``prompt.candidate`` of each id."""
    by = dict(zip(made.ids.tolist(), made.content.tolist(), strict=True))
    return [by[name] for name in ids]


def test_a_pick_says_who_won_and_nothing_of_the_others() -> None:
    made = samples(2, 4)
    said = voted_groups(votes_of([
        vote(made, 0, "3102", ranks=(0, 0, 1, 0)), vote(made, 0, "0123", ranks=(1, 0, 0, 0), person="bob"),
        vote(made, 1, "0123", action="bad"), vote(made, 1, "0123", action="tie", person="bob"),
        vote(made, 1, "0123", action="skip", person="cy"),
    ]), made, PICK)
    groups, _ = from_fields(said.samples)
    assert names(made, said.samples.ids) == ["0.0", "0.1", "0.2", "0.3"] * 2
    # position 2 of "3102" is candidate 0: both people chose it, and each vote is a group of its own
    assert groups.ranks.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert said.counts == {"winner": 2, "bad": 1, "tie": 1, "skipped": 1}


def test_pairs_of_a_pick_are_the_winner_and_one_that_stood_beside_it() -> None:
    made = samples(40, 4)
    votes = votes_of([vote(made, i, "0123", ranks=(0, 1, 0, 0), id=f"v{i}") for i in range(40)])
    said = voted_groups(votes, made, PICK, pairs=True)
    groups, _ = from_fields(said.samples)
    assert groups.rows.shape == (40, 2) and (np.sort(groups.ranks, axis=1) == [1, 2]).all()
    better = said.samples.ids[groups.rows[groups.ranks == 1]]
    assert names(made, better) == [f"{i}.1" for i in range(40)]
    others = {name[-1] for name in names(made, said.samples.ids[groups.rows[groups.ranks == 2]])}
    assert others == {"0", "2", "3"}  # 40 draws miss one of three with probability 3e-7


def test_ties_and_all_bad_reach_only_objectives_that_use_them() -> None:
    made = samples(2, 4)
    votes = votes_of([vote(made, 0, "0123", action="bad"), vote(made, 1, "0123", action="tie")])
    bad, _ = from_fields(voted_groups(votes, made, PICK, labels=True).samples)
    assert bad.ranks.tolist() == [[2, 2, 2, 2]]
    tied, _ = from_fields(voted_groups(votes, made, PICK, ties=True).samples)
    assert tied.ranks.tolist() == [[1, 1, 1, 1]]
    assert len(voted_groups(votes, made, PICK).samples) == 0


def test_compare_keeps_the_strength_and_rank_the_whole_order() -> None:
    made = samples(2, 4)
    votes = votes_of([
        vote(made, 0, "20", ranks=(1, 2), strength=2 / 3, mode="compare"),
        vote(made, 1, "20", ranks=(1, 1), strength=0.0, mode="compare"),
    ])
    groups, _ = from_fields(voted_groups(votes, made, People(mode="compare"), ties=True).samples)
    assert groups.ranks.tolist() == [[2, 1], [1, 1]] and groups.strength.tolist() == [2 / 3, 0.0]
    ordered = votes_of([vote(made, 0, "3201", ranks=(4, 1, 2, 3), mode="rank")])
    groups, _ = from_fields(voted_groups(ordered, made, People(mode="rank")).samples)
    assert groups.ranks.tolist() == [[2, 3, 1, 4]]


def rated(made: Samples) -> Votes:
    every = [(0, "0", 7.0, "ann"), (0, "0", 9.0, "bob"), (0, "1", 3.0, "ann"), (1, "0", 5.0, "ann")]
    rows = [vote(made, p, c, person=who, mode="rate", scores=(value,)) for p, c, value, who in every]
    return votes_of([*rows, vote(made, 1, "1", mode="rate", action="bad")])


def test_ratings_become_scores_by_their_mean() -> None:
    made = samples(3, 2)
    people = People(mode="rate")
    groups, _ = from_fields(voted_groups(rated(made), made, people).samples)
    assert groups.rewards.tolist() == [[8.0, 3.0], [5.0, 1.0]] and groups.ranks.tolist() == [[1, 2], [1, 2]]
    assert names(made, made.ids[kept(made, rated(made), people).kept]) == ["0.0", "1.0"]


def test_votes_of_annotators_set_aside_are_not_in_the_groups() -> None:
    """Ten gold tasks, all wrong: below 60% for certain; the other person's vote stays."""
    made = samples(12, 4)
    gold = [vote(made, i, "0123", ranks=(1, 0, 0, 0), check="gold", right=str(made.ids[4 * i + 1])) for i in range(10)]
    votes = votes_of([
        *gold, vote(made, 10, "0123", ranks=(1, 0, 0, 0)), vote(made, 11, "0123", ranks=(1, 0, 0, 0), person="bob"),
    ])
    strict = People(least_reliability=0.6)
    counts = voted_groups(votes, made, strict).counts
    assert counts == {"winner": 1, "gold tasks": 10, "of annotators who were set aside": 1}
    assert voted_groups(votes, made, PICK).counts["winner"] == 2
    assert "set aside: 0 of 10 gold tasks right" in who(votes, strict)["people"]["ann"]["reason"]
    assert any(line.startswith("ann: set aside") for line in warnings(who(votes, strict), strict))


def test_one_annotator_with_too_large_a_share_and_simulated_annotators_are_warned_of() -> None:
    made = samples(10, 4)
    votes = votes_of([
        vote(made, i, "0123", ranks=(1, 0, 0, 0), person="ann" if i < 8 else "bob", team="simulated") for i in range(10)
    ])
    assert warnings(who(votes, PICK), PICK) == [
        "10 of 10 answers are of simulated annotators",
        "ann gave 80% of the votes that count, more than 50%: whose taste is it?",
    ]
    assert not any("ann gave" in line for line in warnings(who(votes, PICK), People(most_share=0.8)))


def kept(made: Samples, votes: Votes, people: People, key: int = 0) -> Selection:
    marked = made.with_fields(**vote_fields(votes, made, people))
    return Picked().curate(marked, np.full(len(made), np.nan), None, key)


def test_the_curator_keeps_the_chosen_and_drops_the_rest_with_a_reason() -> None:
    made = samples(6, 4)
    every = [("ann", 0, 1), ("bob", 0, 1), ("cy", 0, 2), ("ann", 4, 2), ("bob", 4, 3)]
    rows = [
        vote(made, p, "0123", person=name, ranks=tuple(int(i == best) for i in range(4))) for name, p, best in every
    ]
    more = [vote(made, 1, "0123", action="bad"), vote(made, 2, "0123", action="tie"),
            vote(made, 5, "02", ranks=(0, 1))]
    found = kept(made, votes_of([*rows, *more]), PICK)
    chosen = names(made, made.ids[found.kept])
    assert chosen[0] == "0.1" and chosen[-1] == "5.2" and len(chosen) == 3 and chosen[1] in ("4.2", "4.3")
    whys = dict(zip(made.content, found.reasons, strict=True))
    assert whys["0.2"] == "picked: another of 4 was picked" and whys["1.0"] == "picked: all bad"
    assert whys["2.3"] == "picked: tied" and whys["3.0"] == "picked: nobody voted"
    assert whys["5.0"] == "picked: another of 2 was picked" and whys["5.1"] == "picked: nobody voted"
    even = {names(made, made.ids[kept(made, votes_of(rows[3:]), PICK, key).kept])[0] for key in range(20)}
    assert even == {"4.2", "4.3"}  # a draw by key: 20 draws are alike with probability 2e-6


def test_an_even_pair_is_drawn_and_a_tie_is_not() -> None:
    made = samples(2, 2)
    votes = votes_of([
        vote(made, 0, "01", ranks=(1, 2), mode="compare", strength=1.0),
        vote(made, 0, "01", ranks=(2, 1), mode="compare", strength=1.0, person="bob"),
        vote(made, 1, "01", ranks=(1, 1), mode="compare", strength=0.0),
    ])
    found = kept(made, votes, People(mode="compare"))
    assert found.kept[:2].sum() == 1 and found.kept[2:].sum() == 0
    assert set(found.reasons[2:]) == {"picked: tied"}


def test_the_curator_needs_votes() -> None:
    made = samples(1, 2)
    with pytest.raises(UserError, match="these samples have no votes"):
        Picked().curate(made, np.zeros(2), None, 0)


def edits(made: Samples) -> Votes:
    return votes_of([
        vote(made, 0, "0", mode="edit", action="edit", text="better"), vote(made, 1, "0", mode="edit", ranks=(1,)),
        vote(made, 0, "0", mode="edit", action="edit", text="better", person="bob"),
        vote(made, 2, "0", mode="edit", action="bad"),
    ])


def test_edited_texts_replace_what_they_correct() -> None:
    made = samples(4, 1)
    people = People(mode="edit")
    found = kept(made, edits(made), people)
    assert names(made, made.ids[found.kept]) == ["1.0"]
    assert found.reasons.tolist() == ["picked: corrected", "", "picked: all bad", "picked: nobody voted"]
    written = corrected(edits(made), made, people)
    assert written is not None and written.content.tolist() == ["better"]
    assert written.fields["parent"].tolist() == [made.ids[0]] and written.fields["edited_by"].tolist() == ["ann"]
    assert written.prompts == (made.prompts[0],) and written.source.tolist() == ["people"]


def test_frozen_votes_come_back_as_they_went(tmp_path: Path) -> None:
    made = samples(3, 2)
    votes = rated(made)
    write_votes(tmp_path / "votes.parquet", votes)
    back = read_votes(tmp_path / "votes.parquet")
    for name in vars(votes):
        np.testing.assert_equal(getattr(back, name).tolist(), getattr(votes, name).tolist())
