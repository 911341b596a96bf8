"""The interface for programs, and the pages as a browser without scripts sees them: every mode, and who may do what."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.voting_server_cases import EVIL, FREE, Caller, image_samples, keys, sampled_run, text_samples, voting_state
from upturn.annotation.content import ContentStore
from upturn.annotation.tasks import Question, tasks_of
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Prompt, synthetic_samples
from upturn.web.server import running
from upturn.web.server_state import ServerState
from upturn.web.sessions import Rates, RequestRate

pytestmark = pytest.mark.slow

MODES = (
    Question("pick"), Question("compare"), Question("rate", attributes=("clear", "true")), Question("rank"),
    Question("edit"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    texts = [EVIL, *[f"text {i}" for i in range(31)]]
    return sampled_run(tmp_path_factory.mktemp("http") / "run", text_samples(8, 4, texts))


@pytest.fixture
def state(run: Run) -> Iterator[ServerState]:
    with voting_state(run, *MODES) as made:
        yield made
    for path in run.folder.glob("votes.db*"):
        path.unlink()


@pytest.fixture
def address(state: ServerState) -> Iterator[str]:
    with running(state) as found:
        yield found


def caller(state: ServerState, address: str, name: str = "ada", role: Any = "voter") -> Caller:
    return Caller(address).sign_in(state.box.add_person(name, role)[1])


ANSWERS: dict[str, dict[str, Any]] = {
    "pick": {"pick": 2}, "compare": {"ranks": [2, 1], "strength": 1.0}, "rank": {"ranks": [4, 1, 3, 2]},
    "rate": {"scores": {"clear": 9, "true": 2}}, "edit": {"action": "edit", "text": "better"},
}


@pytest.mark.parametrize("mode", ANSWERS)
def test_every_mode_by_program(state: ServerState, address: str, mode: str) -> None:
    ada = caller(state, address)
    task = ada.json("GET", f"/api/task?mode={mode}")["task"]
    assert task["mode"] == mode and task["prompt"]["text"].startswith("Write the first sentence")
    assert ada.json("GET", f"/api/task?mode={mode}")["task"] == task, "a second look is the same task"
    told = ada.vote(task, **ANSWERS[mode])
    assert told["again"] is False and told["next"]["task"]["showing"] != task["showing"]
    votes = state.box.votes()
    assert set(votes.mode) == {mode} and set(votes.person) == {ada.person}
    shown = tuple(one["sample"] for one in task["candidates"])
    assert votes.shown[0] == shown
    if mode == "pick":
        assert votes.ranks[0] == (0, 1, 0, 0)
    elif mode == "rate":
        assert sorted(zip(votes.ids, votes.scores, strict=True)) == [
            (f"{told['id']}:clear", (9.0,)), (f"{told['id']}:true", (2.0,)),
        ]
    elif mode == "edit":
        assert votes.text[0] == "better" and votes.action[0] == "edit"
    else:
        assert list(votes.ranks[0]) == ANSWERS[mode]["ranks"]
    assert ada.json("POST", "/api/undo", {"id": "undo-it-once"})["next"]["task"]["candidates"] == task["candidates"]
    assert len(state.box.votes()) == 0


FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "pick": ({"pick": 3}, (0, 0, 1, 0)), "compare": ({"side": "b2"}, (2, 1)),
    "rate": ({"score0": 7, "score1": 10}, None),
    "rank": ({"rank0": 2, "rank1": 2, "rank2": 4, "rank3": 1}, (2, 2, 3, 1)),
    "edit": ({"action": "edit", "text": "one\r\ntwo"}, None),
}


@pytest.mark.parametrize("mode", FORMS)
def test_every_mode_without_a_script(state: ServerState, address: str, mode: str) -> None:
    """The form of the page itself, its hidden fields included."""
    ada = caller(state, address)
    fields = form_of(ada.call("GET", f"/?mode={mode}")[2].decode())
    status, headers, _ = ada.call("POST", "/vote", form=fields | FORMS[mode][0])
    assert status == 303 and headers["location"].startswith(f"/?mode={mode}&note=")
    votes = state.box.votes()
    if mode == "rate":
        assert sorted(votes.scores) == [(7.0,), (10.0,)]
    elif mode == "edit":
        assert votes.text[0] == "one\ntwo"
    else:
        assert votes.ranks[0] == FORMS[mode][1]
    if mode == "compare":
        assert votes.strength[0] == pytest.approx(2 / 3)
    page = ada.call("GET", headers["location"])[2].decode()
    assert "Saved" in page and form_of(page)["showing"] != fields["showing"]
    again = ada.call("POST", "/vote", form=fields | FORMS[mode][0])
    assert again[0] == 303 and "note=" in again[1]["location"], "the same form sent twice is the same vote"
    assert len({name.split(":")[0] for name in state.box.votes().ids}) == 1
    undone = ada.call("POST", "/undo", form={"csrf": ada.csrf, "id": "undo-by-form", "mode": mode})
    assert undone[1]["location"] == "/?note=undo" and len(state.box.votes()) == 0


def form_of(page: str) -> dict[str, str]:
    body = page.split('id="vote"')[1].split("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', body))


def test_nothing_without_signing_in(state: ServerState, address: str) -> None:
    nobody = Caller(address)
    for path in ("/", "/progress", "/admin", "/studio", "/pictures/0/1", "/admin/votes.jsonl"):
        assert nobody.call("GET", path)[:2][1].get("location", "") in ("/signin", ""), path
        assert nobody.call("GET", path)[0] in (303, 422), path
    for path in ("/api/task", "/api/progress", "/api/votes", "/api/people", "/api/session"):
        assert nobody.call("GET", path)[0] == 401
    assert nobody.call("POST", "/api/votes", {"id": "x" * 8, "showing": "0"})[0] == 401
    assert nobody.call("POST", "/api/session", {"token": "guess"})[0] == 403
    nobody.cookie = "upturn=WyJhIiwwLCJiIl0.forged.signature"
    assert nobody.call("GET", "/api/session")[0] == 401


def test_a_voter_sees_their_own_and_nothing_else(state: ServerState, address: str) -> None:
    ada, bob = caller(state, address), caller(state, address, "bob")
    task = ada.json("GET", "/api/task?mode=pick")["task"]
    ada.vote(task, pick=1)
    assert bob.json("GET", "/api/votes") == [] and len(ada.json("GET", "/api/votes")) == 1
    bob.vote(task, expect=404, pick=1)
    assert bob.call("GET", f"/pictures/{task['showing']}/1")[0] == 404
    for method, path in (("GET", "/admin"), ("GET", "/admin/votes.jsonl"), ("GET", "/api/people"),
                         ("POST", "/api/people"), ("PATCH", f"/api/people/{ada.person}"),
                         ("POST", f"/api/people/{ada.person}/token"), ("POST", "/admin/people"),
                         ("POST", f"/admin/people/{ada.person}/token"), ("PATCH", "/api/polls/0")):
        status, _, body = bob.call(method, path, {"name": "x"} if method != "GET" else None)
        assert status == 403 and b"admins" in body, (method, path, status)
    assert b">ada<" not in bob.call("GET", "/progress")[2]
    for path in ("/static/../votes.key", "/static/%2e%2e/votes.key", "/static/..%2f..%2fapp.py", "/static/votes.key",
                 "//etc/passwd", "/votes.db", "/static/voting.css/../app.py"):
        assert bob.call("GET", path)[0] == 404, path


def test_what_changes_something_needs_the_token_of_its_own_page(state: ServerState, address: str) -> None:
    ada = caller(state, address, role="admin")
    task, csrf = ada.json("GET", "/api/task?mode=pick")["task"], ada.csrf
    said = {"id": "x" * 12, "showing": task["showing"], "pick": 1}
    for wrong in ("", "guess", csrf[:-1], caller(state, address, "bob").csrf):
        ada.csrf = wrong
        assert ada.call("POST", "/api/votes", said)[0] == 403
        forms = (("/vote", said), ("/undo", {"id": "x" * 12}), ("/signout", {}), ("/admin/people", {"name": "m"}))
        for path, form in forms:
            assert ada.call("POST", path, form=form | {"csrf": wrong})[0] == 403, path
    ada.csrf = csrf
    for headers in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert ada.call("POST", "/api/votes", said, headers=headers)[0] == 403
    assert len(state.box.votes()) == 0
    assert ada.call("POST", "/api/votes", said, headers={"Origin": address, "Sec-Fetch-Site": "same-origin"})[0] == 200


def test_every_answer_carries_the_policy_and_no_path(state: ServerState, address: str, run: Run) -> None:
    ada = caller(state, address, role="admin")
    task = ada.json("GET", "/api/task?mode=pick")["task"]
    ada.vote(task, pick=1)
    paths = ["/", "/?mode=rank", "/progress", "/admin", "/studio", "/openapi.json", "/api/task", "/api/progress",
             "/api/votes", "/api/people", "/admin/votes.jsonl", "/pictures/0/1", "/pictures/0/99", "/nothing",
             "/api/nothing", "/static/voting.js", "/static/voting.css", "/signin", "/api/studio/0"]
    for path in paths:
        status, headers, body = ada.call("GET", path)
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and status < 500
        for secret in (str(run.folder), str(run.folder.parent), "/root", "site-packages", state.box.key.hex()):
            assert secret.encode() not in body, (path, secret)
        page = body.decode()
        if "<html" in page:
            assert not re.search(r"<script(?![^>]*\bsrc=\"/static/)", page) and " style=" not in page
            assert not re.search(r"\son\w+=", re.sub(r"&lt;.*?&gt;", "", page)), "an inline handler"
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page), "something from elsewhere"


def test_what_a_model_wrote_is_text(state: ServerState, address: str) -> None:
    ada = caller(state, address)
    page = ""
    while EVIL[:8] not in page.replace("&lt;", "<"):
        page = ada.call("GET", "/?mode=pick")[2].decode()
        if "&lt;script" in page:
            break
        ada.call("POST", "/vote", form=form_of(page) | {"pick": 1})
    assert "&lt;script&gt;document.title" in page and "<script>document.title" not in page and "<img src=x" not in page


def test_markdown_is_cleaned(run: Run) -> None:
    from upturn.web.markup import rendered

    html = str(rendered(
        "**bold** [a](javascript:alert(1)) [b](https://x.example) ![p](https://x.example/p.png)\n\n"
        "<script>alert(1)</script>\n\n<b onclick=x>raw</b>\n\n```\ncode\n```", "markdown",
    ))
    assert "<strong>bold</strong>" in html and "<pre><code>code" in html
    assert 'href="https://x.example" rel="noopener noreferrer nofollow"' in html
    for bad in ("<script", "<img", 'href="javascript', "<b ", "<b>"):
        assert bad not in html, html
    assert "&lt;script&gt;" in html


def test_admins_add_pause_and_renew(state: ServerState, address: str) -> None:
    boss = caller(state, address, "boss", "admin")
    made = boss.json("POST", "/api/people", {"name": "bob", "team": "b", "quota": 1}, expect=201)
    bob = Caller(address).sign_in(made["token"])
    task = bob.json("GET", "/api/task?mode=pick")["task"]
    person = made["id"]
    boss.json("PATCH", f"/api/people/{person}", {"paused": True})
    bob.vote(task, expect=403, pick=1)
    assert b"paused" in bob.call("GET", "/")[2]
    boss.json("PATCH", f"/api/people/{person}", {"paused": False})
    assert bob.vote(task, pick=1)["next"] == {"task": None, "why": "quota"}
    assert b"all 1 answers" in bob.call("GET", "/")[2]
    newer = boss.json("POST", f"/api/people/{person}/token")["token"]
    assert bob.call("GET", "/api/session")[0] == 401, "the old session went on"
    assert Caller(address).call("POST", "/api/session", {"token": made["token"]})[0] == 403
    bob.sign_in(newer)
    status, _, body = boss.call("POST", "/admin/people", form={"csrf": boss.csrf, "name": "cyd", "quota": "3"})
    token = re.search(r'value="/signin#([\w-]{43})"', body.decode())
    assert status == 200 and token is not None and Caller(address).sign_in(token[1]).person
    assert b"There is a &#39;cyd&#39; already" in boss.call(
        "POST", "/admin/people", form={"csrf": boss.csrf, "name": "cyd"})[2]
    assert boss.call("POST", f"/admin/people/{boss.person}", form={"csrf": boss.csrf, "role": "voter"})[0] == 422
    poll = next(one for one in state.box.polls() if one.mode == "rank")
    boss.call("POST", f"/admin/polls/{poll.id}", form={"csrf": boss.csrf, "overlap": 5, "active": ""})
    after = next(one for one in state.box.polls() if one.mode == "rank")
    assert after.overlap == 5 and not after.active
    lines = boss.call("GET", "/admin/votes.jsonl")[2].decode().splitlines()
    assert [json.loads(line)["person"] for line in lines] == [person] and "bob" not in lines[0]


def test_limits(run: Run) -> None:
    slow = Rates(
        requests=RequestRate(0.001, 12), votes=RequestRate(0.001, 2), failures=RequestRate(0.001, 3), studio=FREE.studio
    )
    with voting_state(run, Question("pick"), rates=slow) as state, running(state) as address:
        token = state.box.add_person("limited")[1]
        ada = Caller(address).sign_in(token)
        task = ada.json("GET", "/api/task")["task"]
        for _ in range(2):
            task = ada.vote(task, pick=1)["next"]["task"]
        status, headers, _ = ada.call("POST", "/api/votes", {"id": "x" * 8, "showing": task["showing"], "pick": 1})
        assert status == 429 and int(headers["retry-after"]) > 1
        statuses = [ada.call("GET", "/api/session")[0] for _ in range(12)]
        assert statuses.count(200) == 8 and statuses[-1] == 429
        guesses = [Caller(address).call("POST", "/api/session", {"token": f"guess {i}"})[0] for i in range(5)]
        assert guesses == [403, 403, 403, 429, 429]
    for path in run.folder.glob("votes.db*"):
        path.unlink()


def test_large_and_odd_requests(state: ServerState, address: str) -> None:
    ada = caller(state, address)
    task = ada.json("GET", "/api/task?mode=edit")["task"]
    ada.vote(task, expect=422, action="edit", text="x" * 100_001)
    ada.vote(task, expect=422, action="edit", text="nul \0")
    assert ada.call("POST", "/api/votes", {"id": "y" * 8, "text": "x" * (2 << 20)})[0] == 413
    line = Caller(address)
    line.cookie = ada.cookie
    line._line.putrequest("POST", "/api/votes")
    for name, value in (("Cookie", ada.cookie), ("X-CSRF-Token", ada.csrf), ("Transfer-Encoding", "chunked"),
                        ("Content-Type", "application/json")):
        line._line.putheader(name, value)
    line._line.endheaders()
    try:
        for _ in range(40):
            line._line.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        line._line.send(b"0\r\n\r\n")
    except OSError:
        pass  # it may close the line before all is sent
    else:
        assert line._line.getresponse().status == 413
    for body in ("\ud800", "\x00" * 9, "id"):
        assert ada.call("POST", "/api/votes", {"id": "z" * 8, "showing": "0", "text": body})[0] in (404, 422)
    assert Caller(address).call("GET", "/signin", headers={"Host": "evil.example"})[0] == 200
    state.hosts = frozenset({"127.0.0.1"})
    with running(state) as strict:
        assert Caller(strict).call("GET", "/signin", headers={"Host": "evil.example"})[0] == 400
        assert Caller(strict).call("GET", "/signin")[0] == 200


def test_images_are_encoded_again_and_belong_to_an_assignment(tmp_path: Path) -> None:
    import io

    from PIL import Image

    samples = image_samples(70, 2)
    run = sampled_run(tmp_path / "run", samples)
    with voting_state(run, Question("compare")) as state, running(state) as address:
        ada = caller(state, address)
        task = ada.json("GET", "/api/task")["task"]
        assert task["prompt"]["label"].startswith("digit ")
        for one in task["candidates"]:
            status, headers, body = ada.call("GET", one["picture"])
            assert status == 200 and headers["content-type"] == "image/png" and "private" in headers["cache-control"]
            row = samples.ids.tolist().index(one["sample"])
            assert (np.asarray(Image.open(io.BytesIO(body))) == samples.content[row][..., 0]).all()
        assert ada.call("GET", task["candidates"][0]["picture"][:-1] + "3")[0] == 404


def test_conversations_are_turns(tmp_path: Path) -> None:
    prompt = Prompt("user: What is two and two?\nassistant: Four.\nuser: And three?")
    exact = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "user: is a word"}]
    texts = ["Five.", "assistant: Seven.\nuser: Sure?\nassistant: Yes.",
             "user: What is two and two?\nassistant: Four.\nuser: And three?\nassistant: Five, I think.",
             json.dumps(exact)]
    run = sampled_run(tmp_path / "run", synthetic_samples("text", texts, [prompt], keys(1, 4), "m"))
    with voting_state(run, Question("pick")) as state, running(state) as address:
        ada = caller(state, address)
        task = ada.json("GET", "/api/task")["task"]
        assert [turn["role"] for turn in task["prompt"]["turns"]] == ["user", "assistant", "user"]
        said = sorted(one["text"] for one in task["candidates"])
        assert said == sorted(["Five.", texts[1], "assistant: Five, I think.", "user: Hi\nassistant: user: is a word"])
        page = ada.call("GET", "/")[2].decode()
        assert page.count('class="bubble') == 3 + 1 + 3 + 1 + 2
        ada.vote(task, pick=1)
        assert state.box.votes().shown[0] == tuple(one["sample"] for one in task["candidates"])


def test_rounds_side_by_side(tmp_path: Path) -> None:
    for number in (0, 2):
        samples = synthetic_samples(
            "text", [f"{number} {i}" for i in range(5)], [Prompt(f"p{i}") for i in range(5)], keys(5, 1), f"m{number}"
        )
        run = sampled_run(tmp_path / "run", samples, f"rounds/{number:03d}", "evaluation.parquet")
    asked = tasks_of(run, ContentStore(run), Question("compare", rounds=(0, 2)))
    assert asked.unit == "rounds/000 rounds/002" and len(asked.tasks) == 5
    for task in asked.tasks:
        assert sorted(task.places) == ["rounds/000/evaluation.parquet", "rounds/002/evaluation.parquet"]
    with voting_state(run, Question("compare", rounds=(0, 2))) as state, running(state) as address:
        texts = [one["text"] for one in caller(state, address).json("GET", "/api/task")["task"]["candidates"]]
        assert sorted(text[0] for text in texts) == ["0", "2"] and texts[0][1:] == texts[1][1:]


def test_unusable_candidates_are_counted_or_a_message(tmp_path: Path) -> None:
    from upturn.errors import UserError

    texts = ["same"] * 4 + ["a", "b", "b", "a"]
    run = sampled_run(tmp_path / "run", text_samples(2, 4, texts))
    asked = tasks_of(run, ContentStore(run), Question("pick"))
    assert len(asked.tasks) == 1 and len(asked.tasks[0].candidates) == 2
    assert asked.left_out == {"prompts whose candidates are all the same": 1}
    assert len(tasks_of(run, ContentStore(run), Question("rate")).tasks) == 8
    (tmp_path / "gold.jsonl").write_text(json.dumps({
        "candidates": list(asked.tasks[0].candidates), "right": asked.tasks[0].candidates[0]}) + "\n")
    gold = tasks_of(run, ContentStore(run), Question("pick"), tmp_path / "gold.jsonl").tasks[-1]
    assert gold.gold == asked.tasks[0].candidates[0]
    for question, said in (
        (Question("pick", rounds=(7,)), "round 7 has no samples"), (Question("pick", unit="data"), "no samples"),
        (Question("pick", rounds=(0, 1)), "was not evaluated"),
    ):
        with pytest.raises(UserError, match=said):
            tasks_of(run, ContentStore(run), question)
    pictures = sampled_run(tmp_path / "pictures", image_samples(2))
    with pytest.raises(UserError, match="cannot ask about content of kind 'image'"):
        tasks_of(pictures, ContentStore(pictures), Question("edit"))
    assert parquet_tables.SAMPLES == "samples.parquet"


def test_votes_from_many_at_once(state: ServerState, address: str) -> None:
    """Ten people, all tasks, whatever the order: nobody sees one twice, nothing is doubled."""
    people = [caller(state, address, f"p{i}") for i in range(10)]
    sent: list[str] = []

    def votes(one: Caller) -> None:
        task = one.json("GET", "/api/task?mode=pick")["task"]
        while task is not None and task["mode"] == "pick":
            told = one.vote(task, pick=1)
            sent.append(told["id"])
            task = told["next"]["task"]

    threads = [threading.Thread(target=votes, args=(one,)) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    picks = state.box.votes(modes=["pick"])
    assert sorted(picks.ids) == sorted(sent) and len(picks) == len(set(picks.task)) == 8


def test_the_studio_queue(run: Run) -> None:
    """A model that needs a moment: places in the queue, votes meanwhile, what is taken apart from what was asked."""
    from upturn.annotation.db import studio
    from upturn.annotation.db.studio import StudioSample

    class Slow:
        ready, trouble, unit = (True, ()), "", "rounds/001"

        def wake(self) -> None:
            pass

    with voting_state(run, Question("pick"), studio=Slow()) as state, running(state) as address:
        ada, bob = caller(state, address), caller(state, address, "bob")
        first = ada.json("POST", "/api/studio", {"prompt": "a hill"}, expect=202)["request"]
        second = bob.json("POST", "/api/studio", {"prompt": "a lake"}, expect=202)["request"]
        assert ada.json("GET", f"/api/studio/{first}")["place"] == 1
        assert bob.json("GET", f"/api/studio/{second}")["place"] == 2
        assert b"Number 2 in the queue" in bob.call("GET", "/studio")[2]
        assert ada.call("GET", f"/api/studio/{second}")[0] == 404
        assert state.box._now(studio.next_request) == (first, "a hill")
        assert ada.json("GET", f"/api/studio/{first}")["place"] == 0
        assert bob.json("GET", f"/api/studio/{second}")["place"] == 1
        ada.vote(ada.json("GET", "/api/task")["task"], pick=1)  # meanwhile
        made = [StudioSample(i, f"s{i}", "text", f"hill {i} {EVIL}".encode()) for i in range(4)]
        state.box._now(partial(studio.finish, name=first, found=made))
        told = ada.json("GET", f"/api/studio/{first}")
        assert told["state"] == "done" and [one["sample"] for one in told["candidates"]] == ["s0", "s1", "s2", "s3"]
        page = ada.call("GET", "/studio")[2].decode()
        assert "hill 2 &lt;script" in page and "<script>document" not in page
        for _ in range(2):
            status, headers, body = ada.call(
                "POST", f"/studio/{first}/3/download", form={"csrf": ada.csrf, "id": f"taken-{time.monotonic_ns()}"})
            assert status == 200 and body.decode().startswith("hill 2")
            assert "attachment" in headers["content-disposition"]
        assert ada.call("POST", f"/studio/{first}/3/upscale", form={"csrf": ada.csrf, "id": "taken-large"})[0] == 422
        assert bob.call("POST", f"/studio/{first}/3/download", form={"csrf": bob.csrf, "id": "taken-by-bob"})[0] == 404
        taken = state.box.implicit()
        assert taken.mode.tolist() == ["studio"] and taken.action.tolist() == ["download"]
        assert taken.shown[0] == ("s0", "s1", "s2", "s3") and taken.ranks[0] == (0, 0, 1, 0)
        assert len(state.box.votes()) == 1, "what was taken is not among what was asked"
        for _ in range(3):
            ada.call("POST", "/api/studio", {"prompt": "more"})
        assert ada.call("POST", "/api/studio", {"prompt": "more"})[0] == 409
    for path in run.folder.glob("votes.db*"):
        path.unlink()


def test_the_progress_page_has_the_agreement_of_two_annotators(tmp_path: Path) -> None:
    """Counted by hand: of 24 tasks Bob sides with Ada in 18; below 20 there is no figure yet."""
    tasks, sided = 24, 18
    run = sampled_run(tmp_path / "run", image_samples(tasks))
    with voting_state(run, Question("pick", overlap=2)) as state, running(state) as address:
        ada, bob = caller(state, address), caller(state, address, "bob")
        for count in range(tasks):
            for voter, best in ((ada, min), (bob, min if count < sided else max)):
                task = voter.json("GET", "/api/task?mode=pick")["task"]
                shown = [one["sample"] for one in task["candidates"]]
                voter.vote(task, pick=1 + shown.index(best(shown)))
        page = ada.call("GET", "/progress")[2].decode()
        row = re.search(r"<tr><th>pick</th>\s*<td class=\"n\">(\d+)%.*?<td class=\"n\">(\d+)</td>", page, re.S)
        assert row is not None, page
        assert row.groups() == (str(round(100 * sided / tasks)), str(tasks))


def test_the_progress_page_says_what_is_missing_before_agreement_is_known(state: ServerState, address: str) -> None:
    ada = caller(state, address)
    ada.vote(ada.json("GET", "/api/task?mode=pick")["task"], pick=1)
    page = ada.call("GET", "/progress")[2].decode()
    assert "no task was answered by two annotators" in page
