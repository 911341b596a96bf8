"""The polls that the options of ``upturn serve`` open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upturn.annotation.content import ContentStore
    from upturn.annotation.db.ballots import BallotBox
    from upturn.annotation.tasks import Question
    from upturn.store.run import Run


@dataclass(frozen=True)
class PollOptions:
    """Options of the command line that describe polls; the defaults are those of the command."""

    modes: Sequence[str] = ()
    rounds: Sequence[int] = ()
    unit: str = ""
    candidates: int = 4
    overlap: int = 1
    quota: int | None = None
    attributes: Sequence[str] = ()
    gold: Path | None = None
    gold_share: float = 0.1
    repeat_share: float = 0.0

    @property
    def describes_a_poll(self) -> bool:
        """Whether an option other than the mode differs from its default."""
        numbers = (self.candidates, self.overlap, self.quota, self.repeat_share) != (4, 1, None, 0.0)
        return bool(self.rounds or self.unit or self.gold or self.attributes or numbers)

    def questions(self, default: bool) -> list[Question]:
        """One for each mode; ``default``: a pick where the options name none."""
        from upturn.annotation.tasks import Question

        modes = list(self.modes) or (["pick"] if default or self.describes_a_poll else [])
        return [
            Question(
                mode, tuple(self.rounds), self.candidates, self.overlap, self.quota,
                tuple(self.attributes) or ("overall",), self.gold_share if self.gold is not None else 0.0,
                self.repeat_share, unit=self.unit,
            )
            for mode in modes
        ]


def open_polls(box: BallotBox, run: Run, contents: ContentStore, options: PollOptions, default: bool) -> None:
    """Open a poll for each question, and print what is left out of it."""
    from upturn.annotation.tasks import tasks_of

    for question in options.questions(default):
        found = tasks_of(run, contents, question, options.gold)
        box.open_poll(
            found.unit, question.mode, found.tasks, overlap=question.overlap, quota=question.quota,
            attributes=question.attributes, golds=question.golds, repeats=question.repeats,
        )
        for why, count in found.left_out.items():
            print(f"left out: {count}, {why}")
