"""Builds the documentation: ``python scripts/docs/build.py`` writes build/site, ``--pages`` the sources alone.

The pages of docs/ are copied to build/docs, the generated pages are added, and zensical builds the site, strictly. What
fails the build: a broken link, a part of the public API without a docstring, an address outside the site that a page
would load.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import architecture
import command_line
import components
import public_api
import recipe_keys

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
LOADED = re.compile(  # what a browser fetches when it opens a page
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(https?:[^\"'\s>]+)"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]*\bhref=[\"']?(https?:[^\"'\s>]+)"
    r"|url\([\"']?(https?:[^\"')]+)"
)


def write_pages(folder: Path = SOURCES) -> None:
    """The sources of the site: docs/ and what is generated from the code."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    shutil.copy(ROOT / "CONTRIBUTING.md", folder / "contributing.md")
    generated = {"recipe.md": recipe_keys.page(), "command-line.md": command_line.page(), **components.pages()}
    for name, text in generated.items():
        path = folder / "reference" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, text in architecture.drawings().items():
        (folder / "images" / name).write_text(text, encoding="utf-8")


def loads_from_elsewhere(site: Path) -> list[str]:
    """Addresses outside the site that its pages and styles would load."""
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for match in LOADED.finditer(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(site)}: {next(filter(None, match.groups()))}")
    return found


def missing_anchors(site: Path) -> list[str]:
    """Links to a place in a page that the page does not have."""
    html = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r"\bid=[\"']?([^\"'\s>]+)", text)) for path, text in html.items()}
    found = []
    for path, text in html.items():
        body = text[text.find("<article") : text.find("</article>")]
        for href in re.findall(r"\bhref=[\"']?([^\"'\s>]+)", body):
            target, _, anchor = href.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            other = (path.parent / target).resolve() if target else path
            other = other / "index.html" if other.is_dir() else other
            if not other.exists():
                found.append(f"{path.relative_to(site)}: there is no {href}")
            elif anchor and other in ids and anchor not in ids[other]:
                found.append(f"{path.relative_to(site)}: {href} names no heading of that page")
    return found


def main() -> int:
    write_pages()
    if "--pages" in sys.argv[1:]:
        return 0
    faults = [f"no docstring: {name}" for name in public_api.undocumented()]
    if not faults:
        shutil.rmtree(SITE, ignore_errors=True)
        zensical = Path(sys.executable).with_name("zensical")
        done = subprocess.run([zensical, "build", "--strict", "--clean"], cwd=ROOT, check=False)
        if done.returncode:
            return done.returncode
        faults = loads_from_elsewhere(SITE) + missing_anchors(SITE)
    print("\n".join(faults) or f"The site is in {SITE.relative_to(ROOT)}; open {SITE / 'index.html'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
