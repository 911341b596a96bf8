"""What a person, or a program, sees of a run while it works. The command line draws it; by default it is silent."""

from __future__ import annotations

from typing import Any


class Watch:
    """Every method may be overridden; none may fail the run."""

    def begin(self, unit: str, step: str) -> None:
        """A step of a unit begins."""

    def advance(self, done: int, total: int, text: str = "") -> None:
        """Work inside the step: ``done`` of ``total``."""

    def end(self, unit: str, step: str, seconds: float, info: dict[str, Any]) -> None:
        """The step is committed."""

    def skip(self, unit: str, step: str) -> None:
        """The step was done before."""

    def note(self, text: str) -> None:
        """Something a person should know: skipped rows, truncated texts."""
