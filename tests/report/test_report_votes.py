"""The report's section on human feedback: planted facts are on the page, names are escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from helpers.simulated_voters import Person, joined, simulated_votes, votes_of
from upturn.report.sections.human_feedback import FeedbackSummary, HumanFeedback, summary
from upturn.types import Votes


def crowd() -> tuple[Votes, dict[str, str]]:
    """Two teams, a guesser, one who takes the first; candidates of even numbers are a better model's."""
    voters = [Person(f"honest{i}", temperature=1.0, team="red" if i < 5 else "blue") for i in range(8)]
    voters += [Person("guesser", 0.0, team="blue"), Person("<b>first</b>", first=0.5, temperature=1.0, team="red")]
    votes, taste = simulated_votes(voters, 300, 4, 0, spread=2.0)
    gold = [{"person": "guesser", "task": f"g{i}", "shown": (f"{i}a", f"{i}b"), "ranks": (0, 1), "check": "gold",
             "right": f"{i}a", "team": "blue"} for i in range(12)]
    owners = {f"t{t:04d}c{c}": "round 1" if c % 2 == (taste[t].argmax() % 2) else "round 0"
              for t in range(300) for c in range(4)}
    return joined(votes, votes_of(gold)), owners


@pytest.fixture(scope="module")
def rendered() -> tuple[FeedbackSummary, str]:
    found = summary(*crowd())
    return found, str(HumanFeedback().fill(found=found))


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("circle", "line", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "line", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_was_planted_is_on_the_page(rendered: tuple[FeedbackSummary, str]) -> None:
    found, page = rendered
    reader = Words()
    reader.feed(page)
    assert not reader.open and "<b>first</b>" in reader.text and "<b>" not in page
    noted = {voter.name: voter for voter in found.annotators}
    assert "position: " in noted["<b>first</b>"].findings
    assert "0 of 12 gold tasks right" in noted["guesser"].findings and noted["guesser"].weight == "set aside"
    assert noted["guesser"].share == "0%" and not noted["honest0"].findings
    assert dict(found.left_out)["gold tasks"] == 12 and found.figure is not None
    assert reader.text.index("round 1") < reader.text.index("round 0")  # the better model stands first
    assert [row[0] for row in found.without] == ["blue", "red"]


def test_the_shares_of_all_annotators_sum_to_one(rendered: tuple[FeedbackSummary, str]) -> None:
    total = sum(float(voter.share.rstrip("%")) for voter in rendered[0].annotators)
    assert total == pytest.approx(100, abs=0.5 * len(rendered[0].annotators))


def test_one_annotator_who_decides_too_much_is_a_warning() -> None:
    rows = [{"person": p, "task": f"t{t}", "shown": (f"{t}a", f"{t}b"), "ranks": (1, 0) if t % 2 else (0, 1)}
            for t in range(30) for p in (("much", "little") if t < 5 else ("much",))]
    found = summary(votes_of(rows))
    assert any(line.startswith("much: 92% of what trains") for line in found.warnings)
    assert "are needed" in found.agreement[0][1]  # five tasks of two people say nothing of agreement


def test_one_vote_gives_little_output() -> None:
    found = summary(votes_of([{"shown": ("a", "b"), "ranks": (1, 0)}]), {"a": "x", "b": "y"})
    assert found.figure is None and found.notes and np.all([v.weight == "1" for v in found.annotators])
    assert HumanFeedback().fill(found=found)


def test_ratings_of_one_at_a_time_count() -> None:
    """Forty candidates, each rated by three: 120 votes of three people, who agree or do not."""
    rng = np.random.default_rng(0)
    rows = [
        {"person": f"p{p}", "task": f"t{t}", "mode": "rate", "shown": (f"c{t}",),
         "scores": (float(rng.integers(3, 7) + t % 4),)}
        for t in range(40) for p in range(3)
    ]
    found = summary(votes_of(rows))
    assert found.lead.startswith("120 votes of 3 annotators count.") and "3.0 annotators of equal weight" in found.lead
    assert [mode for mode, *_ in found.agreement] == ["rate"] and "[" in found.agreement[0][2]
    assert len(found.annotators) == 3 and not found.warnings
