"""The page: what each part found, put into the template."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from upturn.report import asked, bars, choices, rounds, samples, words
from upturn.report.facts import DATA, Facts
from upturn.report.verdict import verdict
from upturn.store.run import Run

if TYPE_CHECKING:
    from jinja2 import Template


def render(run: Run) -> str:
    """The whole page as text."""
    return _template().render(context(Facts(run)))


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("upturn.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def context(facts: Facts) -> dict[str, Any]:
    """All that the template shows; what a model wrote is text in it, never markup."""
    script = _resource("report.js")
    policy_losses, judge_losses = rounds.loss_cards(facts)
    pairs_of, pairs = rounds.nearest_pairs(facts)
    gallery = samples.gallery(facts)
    identity, run_text = facts.run.identity, facts.run.recipe_text  # stored with every default written out
    return {
        "name": facts.status.run, "run_id": facts.run.id, "forked_from": identity.get("forked_from"),
        "created": str(identity.get("created", ""))[:16].replace("T", " "), "verdict": verdict(facts),
        "asked": asked.summary(facts.recipe),
        "recipe": words.visible(run_text), "data": bars.data_counts(facts),
        "notes": [str(note) for note in facts.info(DATA, "load").get("notes", ())],
        "gallery": gallery, "metrics": rounds.metric_cards(facts), "columns": facts.columns, "kept": facts.kept,
        "figures": rounds.figures(facts), "judged": rounds.verdicts(facts), "shares": bars.class_shares(facts),
        "fractions": bars.real_fraction(facts), "choices": choices.choices(facts), "losses": policy_losses,
        "judge_losses": judge_losses, "times": bars.times(facts), "lineage": rounds.lineage(facts),
        "pairs": pairs, "pairs_of": pairs_of, "fingerprint": facts.run.fingerprint, "number": words.number,
        "script": script, "style": _resource("report.css"), "script_hash": _hash(script),
    }


def _resource(name: str) -> str:
    return resources("upturn.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """As a content security policy names a script: nothing else in the page may run, whatever a model wrote."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
