"""Draws a run as it works: bars with time left on a terminal, a line a step elsewhere, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from upturn.observer import Observer

_QUICK = 0.05  # seconds below which a step is not worth a line of its own
_EVERY = 30.0  # seconds between two lines of progress where there is no terminal


class Progress:
    """How far the current step is: says when a line is due, and estimates the time left."""

    def __init__(self, unit: str = "", step: str = "") -> None:
        self.unit, self.step = unit, step
        self._printed = time.monotonic()
        self._first: tuple[float, int] | None = None  # when progress was first reported, and how much was done then

    def due(self, done: int) -> bool:
        """Whether the last line is 30 seconds ago; it is then printed now."""
        now = time.monotonic()
        self._first = self._first or (now, done)
        if now - self._printed < _EVERY:
            return False
        self._printed = now
        return True

    def seconds_left(self, done: int, total: int) -> float | None:
        """At the mean speed of this step so far; None before there is one."""
        began, first = self._first or (0.0, done)
        return (time.monotonic() - began) / (done - first) * (total - done) if done > first else None


class Lines(Observer):
    """One line a committed step, and one every 30 seconds of a long step, for logs."""

    def __init__(self) -> None:
        self._progress = Progress()

    def begin(self, unit: str, step: str) -> None:
        self._progress = Progress(unit, step)

    def advance(self, done: int, total: int, text: str = "") -> None:
        now = self._progress
        if now.due(done):
            left = now.seconds_left(done, total)
            words = [f"{done:,} of {total:,}", text, "" if left is None else f"{left / 60:.1f} min left"]
            print(f"{now.unit:24} {now.step:9} {', '.join(word for word in words if word)}", flush=True)

    def end(self, unit: str, step: str, seconds: float, info: dict[str, Any]) -> None:
        if seconds >= _QUICK or step == "gate":
            print(f"{unit:24} {step:9} {seconds:7.1f} s  {summary(info)}".rstrip(), flush=True)

    def note(self, text: str) -> None:
        print(f"note: {text}", flush=True)


class Bars(Lines):
    """Rich progress bars above the lines."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), transient=True,
        )
        self.progress.start()
        self.task: Any = None

    def begin(self, unit: str, step: str) -> None:
        self.task = self.progress.add_task(f"{unit} {step}", total=None, text="")

    def advance(self, done: int, total: int, text: str = "") -> None:
        self.progress.update(self.task, completed=done, total=total, text=text)

    def end(self, unit: str, step: str, seconds: float, info: dict[str, Any]) -> None:
        self.progress.remove_task(self.task)
        if seconds >= _QUICK or step == "gate":
            self.progress.console.print(
                f"{unit:24} {step:9} {seconds:7.1f} s  {summary(info)}", highlight=False, markup=False
            )

    def note(self, text: str) -> None:
        self.progress.console.print(f"note: {text}", markup=False)

    def close(self) -> None:
        self.progress.stop()


class Events(Observer):
    """One JSON object a line on standard output; of progress within a step one every 30 seconds."""

    def __init__(self) -> None:
        self._progress = Progress()

    def _say(self, **what: Any) -> None:
        print(json.dumps(what, default=str), flush=True)

    def begin(self, unit: str, step: str) -> None:
        self._progress = Progress(unit, step)
        self._say(event="begin", unit=unit, step=step)

    def advance(self, done: int, total: int, text: str = "") -> None:
        now = self._progress
        if now.due(done):
            self._say(event="progress", unit=now.unit, step=now.step, done=done, total=total, text=text,
                      seconds_left=now.seconds_left(done, total))

    def end(self, unit: str, step: str, seconds: float, info: dict[str, Any]) -> None:
        self._say(event="end", unit=unit, step=step, seconds=seconds, info=info)

    def skip(self, unit: str, step: str) -> None:
        self._say(event="skip", unit=unit, step=step)

    def note(self, text: str) -> None:
        self._say(event="note", text=text)


def observer_for(as_json: bool) -> Observer:
    if as_json:
        return Events()
    return Bars() if sys.stdout.isatty() else Lines()


def close(observer: Observer) -> None:
    if isinstance(observer, Bars):
        observer.close()


def summary(info: dict[str, Any]) -> str:
    """The little of a step's record that a person reads while it runs."""
    if "decision" in info:
        return f"{info['decision']}: {info['reason']}"
    words = []
    for name, form in (("real_fraction", "real {:.0%}"), ("reward", "reward {:.3f}"), ("reward_kept", "kept {:.3f}")):
        if name in info:
            words.append(form.format(info[name]))
    if info.get("stopped"):
        words.append(str(info["stopped"]))
    return ", ".join(words)
