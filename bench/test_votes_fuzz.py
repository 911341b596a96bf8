"""At least 5,000 generated requests, with and without a token: no 5xx, on SQLite and Postgres."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
from common import say

from helpers import postgres as databases
from helpers.api_fuzzing import fuzz
from helpers.voting_server_cases import sampled_run, text_samples, voting_state
from upturn.annotation.tasks import Question

EACH = 80  # requests to each of some 28 operations


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_generated_requests(kind: str, tmp_path: Path) -> None:
    if kind == "postgres" and databases.why_not():
        pytest.skip(databases.why_not())
    run = sampled_run(tmp_path / "run", text_samples(40))
    total: Counter[int] = Counter()
    with databases.postgres() if kind == "postgres" else nullcontext(None) as url:
        for role in (None, "voter", "admin"):
            with voting_state(run, Question("pick"), Question("edit"), url=url) as state:
                token = state.box.add_person(f"fuzz {role}", role)[1] if role else None  # type: ignore[arg-type]
                statuses = fuzz(state, token, EACH, 1)
            say(f"votes fuzz {kind}, as {role or 'nobody'}", dict(sorted(statuses.items())))
            total += statuses
    say(f"votes fuzz {kind}: requests, of these 5xx",
        f"{sum(total.values())}, {sum(n for status, n in total.items() if status >= 500)}")
    assert sum(total.values()) >= 5000 and all(status < 500 for status in total)
