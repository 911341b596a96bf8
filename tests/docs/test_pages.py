"""Tests of the documentation pages: wrapped prose, navigation and the index of decisions."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from upturn.config import components

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
DATED = re.compile(r"\d{4}-\d\d-\d\d-[a-z0-9-]+\.md")
COLUMNS = 100


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a page that are prose, numbered: no code, no table, no line of a single word such as an address."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not re.match(r"\s*\||    ", line) and not line.startswith("![") and " " in line.strip():
            yield number, line


def navigation(entry: object) -> Iterator[str]:
    """Every file that the navigation names."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from navigation(value)
    elif isinstance(entry, list):
        for item in entry:
            yield from navigation(item)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped(page: Path) -> None:
    long = [(number, len(line)) for number, line in prose(page.read_text(encoding="utf-8")) if len(line) > COLUMNS]
    assert not long, f"lines of more than {COLUMNS} columns (line, columns): {long}"


def test_every_page_is_in_the_navigation() -> None:
    nav = set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if not DATED.fullmatch(page.name)}
    kinds = {f"reference/components/{kind}.md" for kind in components.FOLDERS}
    generated = {"contributing.md", "reference/recipe.md", "reference/command-line.md", "reference/components/index.md"}
    assert nav == written | kinds | generated


def test_every_decision_is_dated_and_listed() -> None:
    folder = DOCS / "decisions"
    files = {path.name for path in folder.glob("*.md")} - {"index.md"}
    undated = [name for name in files if not DATED.fullmatch(name)]
    assert not undated
    assert set(re.findall(r"\]\(([^)]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8"))) == files


def test_links_between_files_of_the_checkout_exist() -> None:
    """README and CONTRIBUTING are read outside the site, too."""
    generated = re.compile(r"docs/reference/(?!python-api)")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        missing = [t for t in targets if "://" not in t and not generated.match(t) and not (ROOT / t).exists()]
        assert not missing, f"{page.name}: {missing}"


def test_every_kind_of_component_has_a_how_to() -> None:
    """The kinds that a user extends; formulations, networks and encoders are described with the models."""
    without = {"caption", "feature", "formulation", "network", "experiment"}
    named = {"report-section": "section"}
    pages = {named.get(path.stem, path.stem.replace("-", "_")) 
             for path in (DOCS / "how-to" / "add-a-component").glob("*.md")} - {"index"}
    assert pages == set(components.FOLDERS) - without


@pytest.fixture
def generators(monkeypatch):
    """scripts/docs, importable."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield
    for name in ("architecture", "command_line", "components", "public_api", "recipe_keys"):
        sys.modules.pop(name, None)


@pytest.mark.long
@pytest.mark.slow
def test_generated_pages_name_every_key_command_and_component(generators) -> None:
    import command_line
    import components as component_pages
    import recipe_keys

    from upturn.config.schema import Rounds

    keys = recipe_keys.page()
    assert all(f"| `{name}` |" in keys for name, _ in recipe_keys.keys(Rounds))
    without = [f"{model.__name__}.{name}" for model, _ in recipe_keys.models()
               for name, field in model.model_fields.items() if not recipe_keys.meaning_of(model, name, field)]
    assert not without, f"keys without a meaning: comment them in the schema: {without}"
    assert "| `lambda` |" in keys  # as it is written in YAML, not as the field is called
    assert "## upturn run\n" in command_line.page() and "`--set`" in command_line.page()
    for kind, page in ((kind, component_pages.page(kind)) for kind in components.FOLDERS):
        assert all(f"## {name} " in page for name in components.names(kind))


@pytest.mark.long
@pytest.mark.slow
def test_drawings_have_a_box_for_every_package(generators) -> None:
    import architecture

    svg = architecture.drawings()["layers.svg"]
    packages = {path.name for path in (ROOT / "src" / "upturn").iterdir() if (path / "__init__.py").is_file()}
    assert packages and all(f">{name}</text>" in svg for name in packages)

def test_the_public_api_has_docstrings(generators) -> None:
    import public_api

    assert public_api.undocumented() == []
