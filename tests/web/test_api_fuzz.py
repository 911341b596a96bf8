"""A few requests of each kind that the app describes: none breaks the server. ``make bench`` sends thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.api_fuzzing import fuzz
from helpers.voting_server_cases import booth_over, made_run, text_samples
from upturn.annotation.tasks import Question


@pytest.mark.parametrize("role", [None, "voter", "admin"])
def test_no_request_breaks_the_server(role: str | None, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", text_samples(4))
    with booth_over(run, Question("pick"), Question("rate")) as booth:
        token = booth.box.add_person("fuzz", role)[1] if role else None  # type: ignore[arg-type]
        statuses = fuzz(booth, token, 8, 0)
    assert sum(statuses.values()) > 100
    if role == "admin":
        assert statuses[200] and statuses[422]
    if role is None:
        assert statuses[401] and statuses[303]
