"""What every section of the run report must keep: one parametrized run over all files of ``report/sections/``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import Markup

from helpers.report_pages import Page, page_of
from helpers.stored_runs import EVIL, StoredRun
from upturn.config import components
from upturn.report.facts import Facts
from upturn.report.section import Section, all_sections

NAMES = components.names("section")


@pytest.fixture(scope="module", params=["image", "text", "points"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return Facts(StoredRun(tmp_path_factory.mktemp(request.param) / "run", request.param).whole().run)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return Facts(StoredRun(tmp_path_factory.mktemp("empty") / "run", "image").run)


def section(name: str) -> Section:
    found = components.make("section", name)
    assert isinstance(found, Section)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_title_and_anchor_are_declared(name: str) -> None:
    found = section(name)
    assert found.title and found.title == found.title.strip()
    assert re.fullmatch(r"[a-z][a-z0-9-]*", found.anchor)
    assert isinstance(found.order, int)


def test_order_and_anchor_are_unique() -> None:
    every = [section(name) for name in NAMES]
    assert len({one.order for one in every}) == len(NAMES)
    assert len({one.anchor for one in every}) == len(NAMES)
    assert [one.order for one in all_sections()] == sorted(one.order for one in every)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_renders_and_escapes_what_models_write(name: str, finished: Facts) -> None:
    body = section(name).render(finished)
    if body is None:
        return
    assert isinstance(body, Markup) and body.strip()
    page = Page(f"<!doctype html><body>{body}</body>")
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert not any(attribute.startswith("on") for _, attributes in page.tags for attribute in attributes)
    assert EVIL not in body


@pytest.mark.parametrize("name", NAMES)
def test_a_run_without_any_step_renders(name: str, empty: Facts) -> None:
    found = section(name)
    body = found.render(empty)
    assert body is None or (isinstance(body, Markup) and body.strip())
    assert found.warnings(empty) == []


@pytest.mark.slow
def test_the_page_has_each_section_with_its_heading_in_order(finished: Facts) -> None:
    page = page_of(finished.run)
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    links = [a["href"].removeprefix("#") for tag, a in page.tags if tag == "a"]
    expected = [s.anchor for s in all_sections() if not s.in_header and s.render(finished) is not None]
    assert ids == links == expected
    assert len(ids) >= 10
    headings = re.findall(r"<h2>(.*?)</h2>", page.source)
    assert headings == [s.title for s in all_sections() if s.anchor in ids]


def test_a_new_file_is_on_the_page_without_any_other_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Facts
) -> None:
    import upturn.report.sections as package

    (tmp_path / "round_count.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom markupsafe import Markup\n"
        "from upturn.report.facts import Facts\nfrom upturn.report.section import Section\n\n\n"
        "@dataclass(frozen=True)\nclass RoundCount(Section):\n"
        "    '''Number of rounds.'''\n\n"
        "    title: ClassVar[str] = 'Number of rounds'\n    anchor: ClassVar[str] = 'round-count'\n"
        "    order: ClassVar[int] = 65\n"
        "    template: ClassVar[str] = '<p>{{ count }} rounds & {{ name }}</p>'\n\n"
        "    def render(self, facts: Facts) -> Markup | None:\n"
        "        return self.fill(count=len(facts.status.rounds) - 1, name='<b>')\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    page = page_of(finished.run)
    assert '<section id="round-count">\n<h2>Number of rounds</h2>\n<p>3 rounds & &lt;b&gt;</p>' in page.source
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    place = ids.index("round-count")
    assert ids[place - 1] == "rounds"
