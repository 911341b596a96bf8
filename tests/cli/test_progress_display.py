"""Tests of what a run prints where there is no terminal."""

from __future__ import annotations

import json

import pytest

from upturn.cli import progress_display
from upturn.observer import Observer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now[0])
    return now


def report(observer: Observer, clock: list[float]) -> None:
    """A step of 100 seconds with progress every second, at one unit of it a second."""
    observer.begin("rounds/000/tune", "train")
    for done in range(1, 101):
        clock[0] += 1
        observer.advance(done, 150, f"loss {done}")


def test_a_long_step_prints_a_line_every_30_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    report(progress_display.Lines(), clock)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        f"rounds/000/tune train {done} of 150, loss {done}, {(150 - done) / 60:.1f} min left".split()
        for done in (30, 60, 90)
    ]


def test_json_events_say_so_too(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    report(progress_display.Events(), clock)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["event"], e.get("done"), e.get("seconds_left")) for e in events] == [
        ("begin", None, None), ("progress", 30, 120.0), ("progress", 60, 90.0), ("progress", 90, 60.0)
    ]
