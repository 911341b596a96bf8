"""The report of a run as one HTML page: every section that has something to display."""

from __future__ import annotations

from upturn.report.facts import Facts
from upturn.report.jinja import page_template, resource, script_hash
from upturn.report.section import all_sections
from upturn.store.run import Run


def render(run: Run) -> str:
    """The whole page as text."""
    facts, script = Facts(run), resource("report.js")
    rendered = [(section, body) for section in all_sections() if (body := section.render(facts)) is not None]
    return page_template("report.html.j2").render(
        name=facts.status.run, script=script, script_hash=script_hash(script), style=resource("report.css"),
        header=[body for section, body in rendered if section.in_header],
        sections=[(section, body) for section, body in rendered if not section.in_header],
    )
