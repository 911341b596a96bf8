"""A few requests of each kind that the app describes: none breaks the server. ``make bench`` sends thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.api_fuzzing import fuzz
from helpers.voting_server_cases import sampled_run, text_samples, voting_state
from upturn.annotation.tasks import Question

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize("role", [None, "voter", "admin"])
def test_no_request_breaks_the_server(role: str | None, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(4))
    with voting_state(run, Question("pick"), Question("rate")) as state:
        token = state.box.add_person("fuzz", role)[1] if role else None  # type: ignore[arg-type]
        statuses = fuzz(state, token, 8, 0)
    assert sum(statuses.values()) > 100
    if role == "admin":
        assert statuses[200] and statuses[422]
    if role is None:
        assert statuses[401] and statuses[303]
