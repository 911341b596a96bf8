"""Generated requests from the app's own OpenAPI description (schemathesis)."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from upturn.web.app import create
from upturn.web.server_state import ServerState


def fuzz(state: ServerState, token: str | None, examples: int, seed: int) -> Counter[int]:
    """``examples`` requests to every operation, signed in where there is a token; statuses and how many of each.

    Raises AssertionError for the first answer that is the server's own fault, or that names a path of the server.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import seed as seeded
    from starlette.testclient import TestClient

    app = create(state)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    statuses: Counter[int] = Counter()
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)
    headers = {}
    if token is not None:
        said = client.post("/api/session", json={"token": token})
        headers = {"cookie": said.headers["set-cookie"].split(";")[0], "x-csrf-token": said.json()["csrf"]}
    csrf = headers.get("x-csrf-token", "")
    client.cookies.clear()
    for found in schema.get_all_operations():
        operation: Any = found.ok()

        @seeded(seed)
        @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))
        def sent(case: Any) -> None:
            own = dict(case.headers or {})
            case.headers = {**own, **headers}
            if isinstance(case.body, dict) and "csrf" in case.body and csrf:
                case.body["csrf"] = csrf
            sent_as = case.as_transport_kwargs(base_url="http://127.0.0.1")
            sent_as.pop("cookies", None)
            sent_as.pop("extra_environ", None)
            answer = client.request(**sent_as)
            client.cookies.clear()
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, (case.method, case.path, answer.status_code, answer.text[:500], sent_as)
            assert state.box.key.hex() not in answer.text and "votes.db" not in answer.text

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            operation.as_strategy()
            from hypothesis import given

            given(case=operation.as_strategy())(sent)()
    return statuses
