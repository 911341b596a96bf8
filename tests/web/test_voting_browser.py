"""A real browser: every mode with the mouse and with the keyboard, undo, reload, the end of the quota, a phone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import chromium as browsers
from helpers.voting_server_cases import EVIL, image_samples, keys, sampled_run, text_samples, voting_state
from upturn.annotation.tasks import Question
from upturn.types import Prompt, synthetic_samples
from upturn.web.server import running
from upturn.web.server_state import ServerState

pytestmark = [
    pytest.mark.slow, pytest.mark.browser, pytest.mark.skipif(bool(browsers.why_not()), reason=browsers.why_not()),
]
SHOTS = os.environ.get("UPTURN_SHOTS", "")  # a folder to leave the screenshots in, to look at them


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers.chromium() as found:
        yield found


def sign_in(page: Any, address: str, state: ServerState, role: Any = "voter", **more: Any) -> str:
    person, token = state.box.add_person("Ada", role, **more)
    page.goto(f"{address}/signin#{token}")
    page.wait_for_selector("#vote")
    assert token not in page.url and page.title().startswith("Vote")
    return person.id


def answered(page: Any, act: Any) -> None:
    """Do something that answers, and wait until the page says that it is on the disk."""
    before = browsers.current_assignment(page)
    act()
    browsers.moved_on(page, before)



def looks(page: Any, name: str) -> None:
    """Nothing is cut off at the side, and there is a picture to look at."""
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the screen"
    picture = page.screenshot(full_page=True)
    assert len(picture) > 5000
    if SHOTS:
        Path(SHOTS, f"{name}-{width}.png").write_bytes(picture)


@pytest.mark.long
def test_pick(browser: Any, tmp_path: Path) -> None:
    """Mouse, keys, undo, reload, the quota; small pictures; the help."""
    run = sampled_run(tmp_path / "run", image_samples(20))
    with voting_state(run, Question("pick")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state, quota=8)
        assert page.locator("h1").inner_text() == "Which one do you want?"
        assert "Requested: digit" in page.locator(".prompt").inner_text()
        assert all(page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)"))
        looks(page, "pick")
        answered(page, lambda: page.locator(".card").nth(2).click())
        for key in ("1", "4", "0", "t", "s"):
            answered(page, lambda key=key: page.keyboard.press(key))  # type: ignore[misc]
        votes = state.box.votes()
        assert votes.ranks.tolist()[:3] == [(0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1)]
        assert votes.action.tolist() == ["said", "said", "said", "bad", "tie", "skip"]
        assert (votes.seconds > 0).all() and (votes.seconds < 600).all()
        before = browsers.current_assignment(page)
        page.reload()
        assert browsers.current_assignment(page) == before, "a reload shows the same task"
        answered(page, lambda: page.keyboard.press("u"))
        assert "Undone" in page.locator(".note").inner_text()
        assert state.box.votes().action.tolist() == ["said", "said", "said", "bad", "tie"]
        answered(page, lambda: page.keyboard.press("2"))
        page.keyboard.press("?")
        page.wait_for_selector("dialog[open]")
        looks(page, "keys")
        page.keyboard.press("Escape")
        while page.locator("#vote").count():
            answered(page, lambda: page.keyboard.press("3"))
        assert "You have given all 8 answers" in page.locator("main").inner_text()
        assert len(state.box.votes()) == 8
        looks(page, "thanks")
        page.keyboard.press("u")
        page.wait_for_selector("#vote")
        assert len(state.box.votes()) == 7


@pytest.mark.long
def test_texts_are_texts(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(3, 4, [EVIL] + [f"{EVIL} {i}" for i in range(11)]))
    for style in ("plain", "markdown"):
        with (
            voting_state(run, Question("pick", overlap=3), style=style) as state, running(state) as address,
            browsers.page_of(browser) as page,
        ):
            state.box.add_person(style)
            token = state.box.new_token(state.box.people()[-1].id)
            page.goto(f"{address}/signin#{token}")
            page.wait_for_selector("#vote")
            page.wait_for_timeout(300)
            assert "<script>document.title" in page.locator(".completion").first.inner_text()
            assert page.title().startswith("Vote") and page.locator(".completion script, .completion img").count() == 0
            answered(page, lambda: page.get_by_role("button", name="Pick 2").click())


@pytest.mark.long
def test_compare(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(12))
    with voting_state(run, Question("compare")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        looks(page, "compare")
        answered(page, lambda: page.get_by_role("button", name="A much better").click())
        for key in ("2", "3", "4", "5", "6", "7", "t", "0"):
            answered(page, lambda key=key: page.keyboard.press(key))  # type: ignore[misc]
        votes = state.box.votes()
        assert votes.ranks.tolist()[:7] == [(1, 2)] * 3 + [(1, 1)] + [(2, 1)] * 3
        assert votes.strength[:7].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1])
        assert votes.action.tolist()[7:] == ["tie", "bad"]


def test_rate(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", image_samples(3))
    with voting_state(run, Question("rate")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        looks(page, "rate")
        answered(page, lambda: page.get_by_role("button", name="7", exact=True).click())
        for key in ("1", "0", "b"):
            answered(page, lambda key=key: page.keyboard.press(key))  # type: ignore[misc]
        votes = state.box.votes()
        assert [scores[0] for scores in votes.scores[:3]] == [7.0, 1.0, 10.0] and votes.action[3] == "bad"


def test_rate_by_several_attributes(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(3))
    question = Question("rate", attributes=("helpful", "true", "clear"))
    with voting_state(run, question) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        looks(page, "rate-several")
        for key in ("9", "0", "ArrowUp", "2"):
            page.keyboard.press(key)
        # 9 for helpful, 10 for true, back to true and 2 instead; clear is still empty, so this saves nothing
        before = browsers.current_assignment(page)
        page.keyboard.press("Enter")
        assert browsers.current_assignment(page) == before and len(state.box.votes()) == 0
        page.keyboard.press("5")
        answered(page, lambda: page.keyboard.press("Enter"))
        scores = {name.split(":")[1]: value[0] for name, value in zip(*both(state), strict=True)}
        assert scores == {"helpful": 9.0, "true": 2.0, "clear": 5.0}
        for row in range(3):
            page.locator("fieldset").nth(row).locator("label").nth(row).click()
        answered(page, lambda: page.get_by_role("button", name="Save").click())
        assert sorted(value[0] for value in state.box.votes().scores[3:]) == [1.0, 2.0, 3.0]


def both(state: ServerState) -> tuple[Any, Any]:
    votes = state.box.votes()
    return votes.ids, votes.scores


@pytest.mark.long
def test_rank(browser: Any, tmp_path: Path) -> None:
    """By keys, by the arrow buttons, by arrow keys, by dragging."""
    run = sampled_run(tmp_path / "run", image_samples(8))
    with voting_state(run, Question("rank")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        looks(page, "rank")
        for key in ("3", "1", "4", "2"):
            page.keyboard.press(key)
        answered(page, lambda: page.keyboard.press("Enter"))
        page.get_by_role("button", name="Candidate 1 down").click()
        answered(page, lambda: page.get_by_role("button", name="Save this order").click())
        page.locator(".ranking li").nth(3).focus()
        for _ in range(3):
            page.keyboard.press("ArrowUp")
        answered(page, lambda: page.keyboard.press("Enter"))
        first, last = (page.locator(".ranking li").nth(place).bounding_box() for place in (0, 3))
        page.mouse.move(first["x"] + 200, first["y"] + 20)
        page.mouse.down()
        page.mouse.move(last["x"] + 200, last["y"] + last["height"] - 4, steps=12)
        page.mouse.up()
        answered(page, lambda: page.keyboard.press("Enter"))
        assert state.box.votes().ranks.tolist() == [(2, 4, 1, 3), (2, 1, 3, 4), (2, 3, 4, 1), (4, 1, 2, 3)]
        answered(page, lambda: page.keyboard.press("t"))
        assert state.box.votes().action.tolist()[-1] == "tie"


def test_edit(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(3))
    with voting_state(run, Question("edit")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        looks(page, "edit")
        page.keyboard.press("e")
        page.keyboard.press("Control+A")
        page.keyboard.type("Written 1 by s and t & <b>me</b>.")
        assert len(state.box.votes()) == 0, "keys that are typed into the text answer nothing"
        answered(page, lambda: page.keyboard.press("Control+Enter"))
        page.locator("textarea").fill("By hand.")
        answered(page, lambda: page.get_by_role("button", name="Save my text").click())
        page.keyboard.press("e")
        page.keyboard.press("Escape")
        answered(page, lambda: page.keyboard.press("g"))
        votes = state.box.votes()
        assert votes.text.tolist() == ["Written 1 by s and t & <b>me</b>.", "By hand.", ""]
        assert votes.action.tolist() == ["edit", "edit", "said"]


def test_conversations(browser: Any, tmp_path: Path) -> None:
    prompt = Prompt("user: What boils at 71 °C?\nassistant: Water, on Mount Everest.\nuser: Why so early?")
    long = "assistant: The air is thin.\nuser: How thin?\nassistant: A third."
    replies = ["Less air presses on it.", "It is cold.", long, "No idea."]
    run = sampled_run(tmp_path / "run", synthetic_samples("text", replies, [prompt], keys(1, 4), "m"))
    with voting_state(run, Question("pick")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        assert page.locator(".prompt .bubble").count() == 3 and page.locator(".cards .bubble").count() == 6
        assert page.locator(".prompt .bubble.user").count() == 2
        looks(page, "talk")
        answered(page, page.locator(".cards li").filter(has_text="How thin?").get_by_role("button").click)
        votes = state.box.votes()
        assert dict(zip(votes.shown[0], votes.ranks[0], strict=True))[run_ids(run)[2]] == 1


def run_ids(run: Any) -> list[str]:
    from upturn.store import parquet_tables

    return [str(name) for name in parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet").ids]


@pytest.mark.parametrize("mode", ["pick", "compare", "rate", "rank", "edit"])
def test_on_a_phone(browser: Any, tmp_path: Path, mode: Any) -> None:
    samples = text_samples(4) if mode == "edit" else image_samples(4)
    with (
        voting_state(sampled_run(tmp_path / "run", samples), Question(mode)) as state, running(state) as address,
        browsers.page_of(browser, **browsers.PHONE) as page,
    ):
        sign_in(page, address, state)
        looks(page, f"phone-{mode}")
        small = page.evaluate(
            "[...document.querySelectorAll('main button')].filter(b => b.offsetParent && b.offsetHeight < 44)"
            ".map(b => b.textContent)"
        )
        assert small == [], f"too small to touch: {small}"
        names = {"pick": "Pick 2", "compare": "B better", "rate": "8", "rank": "Save this order", "edit": "Right as"}
        answered(page, lambda: page.get_by_role("button", name=names[mode], exact=mode == "rate").tap())
        assert len(state.box.votes()) == 1


def test_an_answer_is_kept_while_the_network_is_away(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", image_samples(4))
    with voting_state(run, Question("pick")) as state, running(state) as address, browsers.page_of(browser) as page:
        sign_in(page, address, state)
        page.context.set_offline(True)
        page.keyboard.press("2")
        page.wait_for_selector("#trouble", state="visible")  # no function of ours: the page's policy forbids eval
        assert "Not saved yet" in page.locator("#trouble").inner_text() and len(state.box.votes()) == 0
        answered(page, lambda: page.context.set_offline(False))
        assert len(state.box.votes()) == 1 and page.locator("#trouble").is_hidden()


@pytest.mark.long
def test_progress_admin_and_sign_in(browser: Any, tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", image_samples(4))
    with (
        voting_state(run, Question("pick", overlap=2)) as state, running(state) as address,
        browsers.page_of(browser) as page,
    ):
        page.goto(address)
        assert page.url.endswith("/signin")
        page.fill("#token", "guess")
        page.keyboard.press("Enter")
        page.wait_for_selector(".wrong")
        assert "not known" in page.locator(".wrong").inner_text()
        sign_in(page, address, state, "admin")
        answered(page, lambda: page.keyboard.press("1"))
        page.get_by_role("link", name="Progress").click()
        assert "7 answers are missing" in page.locator("h1").inner_text()
        looks(page, "progress")
        page.get_by_role("link", name="Admin").click()
        page.fill(".adds [name=name]", "Bob <b>")
        page.get_by_role("button", name="Add a person").click()
        page.wait_for_selector(".secret")
        link = page.locator("#link").input_value()
        assert link.startswith(f"{address}/signin#") and "Bob <b>" in page.locator(".secret").inner_text()
        looks(page, "admin")
        with browsers.page_of(browser, **browsers.PHONE) as other:
            other.goto(link)
            other.wait_for_selector("#vote")
            answered(other, lambda: other.locator(".card").first.tap())
            assert other.get_by_role("link", name="Admin").count() == 0
            for name in ("progress", "admin"):
                other.goto(f"{address}/{name}")
                looks(other, f"phone-{name}")
            assert "for admins" in other.locator("main").inner_text()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_selector("#signin")
        page.goto(address)
        assert page.url.endswith("/signin")
        assert len(state.box.votes()) == 2
