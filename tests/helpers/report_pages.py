"""Reads a report's page as a browser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from upturn import report
from upturn.store.run import Run


class Page(HTMLParser):
    """Text, tags with their attributes, and tables of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._cell = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "img", "input", "br", "line", "circle", "rect", "use"}:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag in {"td", "th"}:
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in {"script", "style"}:
            return
        self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}

    def row(self, *beginning: str) -> list[str]:
        found = [row for row in self.rows if row[: len(beginning)] == list(beginning)]
        assert len(found) == 1, (beginning, found)
        return found[0][len(beginning) :]

    def pictures(self) -> list[str]:
        return [attributes["src"] for tag, attributes in self.tags if tag == "img"]


def page_of(run: Run) -> Page:
    path = report.write(run)
    assert path == run.folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))
