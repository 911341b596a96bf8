"""Debian's Chromium driven by Playwright; where it is absent, its tests are skipped with the reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 800}}
PATIENCE = 60_000  # ms: the machine may be busy


def why_not() -> str:
    if not CHROMIUM.exists():
        return "there is no /usr/bin/chromium (apt-get install chromium)"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS), timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def page_of(browser: Any, **settings: Any) -> Iterator[Any]:
    """A page of a fresh profile; every error of the browser fails the test."""
    context = browser.new_context(**(DESK | settings))
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    # a refusal is what some tests are about, and so is a network that is away
    serious = [line for line in complaints if not line.startswith("Failed to load resource")]
    assert not serious, serious


def current_assignment(page: Any) -> str:
    """The identifier of the assignment on the page; "" where there is none."""
    return str(page.evaluate("(document.querySelector('#vote [name=showing]') || {value: ''}).value"))


def moved_on(page: Any, before: str) -> None:
    """Waits until the page has another assignment than ``before``.

    Looked at from here: a function that waits within the page is an eval, which the page's own policy forbids as soon
    as it has to look twice.
    """
    from playwright.sync_api import Error

    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        try:
            if current_assignment(page) != before:
                return
        except Error:  # the page is being changed for the next
            pass
        page.wait_for_timeout(20)
    raise AssertionError(f"the page still asks about {before} after {PATIENCE / 1000:g} seconds")
