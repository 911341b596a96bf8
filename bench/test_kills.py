"""SIGKILL at random instants: each run is resumed twice and ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest
from common import ROOT, RUNS, say

from helpers import child_process as children
from upturn.store.checkpoints import tree_hash


def models(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): tree_hash(path) for path in sorted(folder.rglob("model"))}


def whole(text: str, runs: Path) -> float:
    began = time.monotonic()
    process = children.start(text, runs)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - began


@pytest.mark.parametrize(("recipe", "kills"), [("points", 20), ("digits", 5)])
def test_killed_at_random_instants(recipe: str, kills: int) -> None:
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text()
    folder = RUNS / f"kills-{recipe}"
    shutil.rmtree(folder, ignore_errors=True)
    took = whole(text, folder / "whole")
    expected = models(folder / "whole" / recipe)
    dice = random.Random(0)
    same = 0
    for number in range(kills):
        runs = folder / str(number)
        struck = []
        for _ in range(2):  # killed, resumed and killed again, resumed
            process = children.start(text, runs)
            process.join(timeout=dice.uniform(0.0, 0.6 * took))
            struck.append(process.exitcode is None)
            process.kill()
            process.join()
        whole(text, runs)
        equal = models(runs / recipe) == expected
        same += equal
        say(f"{recipe} kill {number}", f"struck {struck}, same bytes {equal}")
        if equal:
            shutil.rmtree(runs)
    say(f"{recipe}: runs with the same bytes", f"{same} of {kills}")
    assert same == kills
