"""The page: what each part found, put into the template."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from upturn.report import (
    asked,
    bars,
    certificate,
    choices,
    copies,
    epochs,
    people,
    provenance,
    proxy,
    rounds,
    samples,
    titles,
)
from upturn.report.facts import DATA, Facts
from upturn.report.verdict import verdict
from upturn.store.run import Run

if TYPE_CHECKING:
    from jinja2 import Template


def render(run: Run) -> str:
    """The whole page as text."""
    return template().render(context(Facts(run)))


@cache
def template(name: str = "report.html.j2") -> Template:
    """A page's template, everything escaped that it does not mark itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("upturn.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def context(facts: Facts) -> dict[str, Any]:
    """All that the template shows; what a model wrote is text in it, never markup."""
    script = resource("report.js")
    policy_losses, judge_losses = rounds.loss_cards(facts)
    pairs_of, pairs = rounds.nearest_pairs(facts)
    gallery = samples.gallery(facts)
    against = proxy.against(facts)
    certified = certificate.certificates(facts)
    origins = provenance.provenance(facts)
    warnings = [found.hacked for found in against if found.hacked]
    warnings += [found.warning for found in (certified, origins) if found is not None and found.warning]
    identity, run_text = facts.run.identity, facts.run.recipe_text  # stored with every default written out
    return {
        "name": facts.status.run, "run_id": facts.run.id, "forked_from": identity.get("forked_from"),
        "created": str(identity.get("created", ""))[:16].replace("T", " "),
        "verdict": verdict(facts, [*warnings, *_copies(facts)]), "certified": certified, "origins": origins,
        "asked": asked.summary(facts), "against": against,
        "recipe": titles.visible(run_text), "data": bars.data_counts(facts),
        "notes": [str(note) for note in facts.info(DATA, "load").get("notes", ())],
        "gallery": gallery, "epochs": epochs.by_epoch(facts), "metrics": rounds.metric_cards(facts),
        "columns": facts.columns, "kept": facts.kept,
        "figures": rounds.figures(facts), "judged": rounds.verdicts(facts), "shares": bars.class_shares(facts),
        "fractions": bars.real_fraction(facts), "choices": choices.choices(facts), "losses": policy_losses,
        "people": people.of_run(facts),
        "judge_losses": judge_losses, "times": bars.times(facts), "lineage": rounds.lineage(facts),
        "pairs": pairs, "pairs_of": pairs_of, "fingerprint": facts.run.fingerprint, "number": titles.number,
        "script": script, "style": resource("report.css"), "script_hash": hash_of(script),
    }


def _copies(facts: Facts) -> list[str]:
    if facts.kept is None:
        return []
    specs = {name: str(spec["name"]) for name, spec in facts.specs.items()}
    found = copies.warning(facts.kept.metrics, specs, "The kept model")
    return [found] if found else []


def resource(name: str) -> str:
    """A file of this folder as text."""
    return resources("upturn.report").joinpath(name).read_text(encoding="utf-8")


def hash_of(script: str) -> str:
    """As a content security policy names a script: nothing else in the page may run, whatever a model wrote."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
