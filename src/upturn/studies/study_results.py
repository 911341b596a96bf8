"""What a study found, from its runs' folders: figures by variant, which differ beyond chance, the price of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.loop.stages.evaluate import read_measured
from upturn.runs import status
from upturn.runs.status import RunStatus
from upturn.store import files, parquet_tables
from upturn.store.run import Run
from upturn.store.units import model_name
from upturn.studies.differences import Arm, differences, marks, over_seeds
from upturn.studies.study_definition import Study, Variant
from upturn.studies.wordings import wording_effects
from upturn.types import Samples

RESULTS = "results.json"
_WORD = re.compile(r"\w+")


def results(study: Study, folder: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    """JSON-ready; of variants that are done. What the page is made from, beside the runs themselves."""
    done = [variant for variant in study.variants if not any(job.recipe.name in failed for job in variant.jobs)]
    runs = {job.recipe.name: Run.open(folder / job.recipe.name) for variant in done for job in variant.jobs}
    seen = {name: status.read(run) for name, run in runs.items()}
    specs = _metrics([job.recipe for variant in done for job in variant.jobs])
    arms = {variant.name: _arm(variant, runs, seen) for variant in done}
    better = {name: components.find("metric", spec).better for name, spec in specs.items()}
    apart = {name: differences(name, better[name], arms) for name in specs}
    shown = [_variant(variant, arms[variant.name], runs, seen) for variant in done]
    return {
        "name": study.name, "about": study.about, "axes": [[axis, list(labels)] for axis, labels in study.axes.items()],
        "text": study.text, "judges": study.judges, "failed": dict(failed),
        "seeds": sorted({job.seed for variant in study.variants for job in variant.jobs}),
        "variants": shown,
        "metrics": [
            {"name": name, "component": spec, "better": better[name],
             "marks": marks(better[name], _values(shown, name), apart[name])}
            for name, spec in specs.items()
        ],
        "differences": {name: [asdict(one) for one in apart[name]] for name in specs},
        "warnings": [*_warnings(done, runs), *_copiers(arms, specs)],
        "prompts": _prompts(done, runs, seen),
        "wordings": [list(group) for group in study.wordings],
        "wording_effects": {
            variant.name: wording_effects(runs[variant.jobs[0].recipe.name], study.wordings) for variant in done
        } if study.wordings else {},
    }


def _values(shown: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    found = {str(variant["name"]): variant["metrics"].get(metric, {}).get("value") for variant in shown}
    return {name: value for name, value in found.items() if value is not None}


def _metrics(recipes: Sequence[Recipe]) -> dict[str, str]:
    """Name in metrics.json -> component, of all variants, in their order."""
    found: dict[str, str] = {}
    for recipe in recipes:
        parts = [metric for evaluation in recipe.evaluate for metric in evaluation.metrics]
        for name, part in zip(recipe.metric_names(), parts, strict=True):
            found.setdefault(name, str(part["name"]))
    return found


def _arm(variant: Variant, runs: Mapping[str, Run], seen: Mapping[str, RunStatus]) -> Arm:
    """What the variant's runs measured of the model that each stands at."""
    measured, asked = [], []
    for job in variant.jobs:
        run, unit = runs[job.recipe.name], seen[job.recipe.name].incumbent.unit
        measured.append(read_measured(run.unit(unit)))
        asked.append(parquet_tables.read_samples(run.unit(unit) / "evaluation.parquet"))
    policy = {k: v for k, v in variant.jobs[0].recipe.models["policy"].spec.items() if k != "name"}
    return Arm(variant.name, tuple(job.seed for job in variant.jobs), tuple(measured), tuple(asked), str(policy))


def _variant(
    variant: Variant, arm: Arm, runs: Mapping[str, Run], seen: Mapping[str, RunStatus]
) -> dict[str, Any]:
    costs = [_cost(runs[job.recipe.name], seen[job.recipe.name]) for job in variant.jobs]
    return {
        "name": variant.name, "labels": dict(variant.labels), "settings": files.plain(variant.settings),
        "runs": [job.recipe.name for job in variant.jobs],
        "metrics": {name: over_seeds([m[name] for m in arm.measured if name in m]) for name in arm.measured[0]},
        "cost": {key: sum(cost[key] for cost in costs) / len(costs) for key in costs[0]},
    }


def _cost(run: Run, seen: RunStatus) -> dict[str, float]:
    """Of one run: seconds of training the policy, and in all; price of all; samples a second while training."""
    training = seconds = samples = 0.0
    for record in run.records():
        seconds += record.seconds
        if record.step == "train" and record.info.get("training_seconds"):
            mixed = run.done(record.unit, "mix")
            counts = mixed.counts if mixed is not None else {}
            training += float(record.info["training_seconds"])
            samples += (counts.get("real", 0) + counts.get("synthetic", 0)) * float(record.info["epochs"])
    price = seen.recipe.usd_per_hour
    return {
        "training_seconds": training, "seconds": seconds, "usd": seconds / 3600 * price,
        "training_usd": training / 3600 * price, "samples_per_second": samples / training if training else 0.0,
    }


def _warnings(done: Sequence[Variant], runs: Mapping[str, Run]) -> list[str]:
    """What makes the figures of variants not comparable: judges that are not the same weights."""
    judges: dict[str, set[str]] = {}
    for variant in done:
        for record in runs[variant.jobs[0].recipe.name].records():
            if record.step == "fit" and (name := model_name(record.unit)):
                judges.setdefault(name, set()).add(str(record.info.get("model")))
    return [
        f"The helper model '{name}' is not the same in all variants: what it measures differs for that reason, too. "
        "'judges: <variant>' in the study lends one variant's to all."
        for name, ids in judges.items() if len(ids) > 1
    ]


def _copiers(arms: Mapping[str, Arm], specs: Mapping[str, str]) -> list[str]:
    """Variants whose memorisation is flagged, with the share of samples of the first training that is."""
    out = []
    found = ((name, components.installed("metric", component)) for name, component in specs.items())
    for name in (name for name, metric in found if metric is not None and metric.flags_copies):
        for arm in arms.values():
            flagged = [m[name] for m in arm.measured if name in m and m[name].details.get("flagged")]
            for measured in flagged[:1]:
                out.append(
                    f"'{arm.name}' copies training images: {measured.value:.0%} of its samples "
                    f"({measured.low:.0%} to {measured.high:.0%}) lie nearer to one than "
                    "unseen real ones nearly ever do."
                )
    return out


def _prompts(
    done: Sequence[Variant], runs: Mapping[str, Run], seen: Mapping[str, RunStatus]
) -> dict[str, dict[str, Any]]:
    """Text of a prompt of the grids -> "unseen", words of it that no training caption of any variant has, and
    "held_out", the concept in it that was held out on purpose."""
    known: set[str] = set()
    concepts: set[str] = set()
    texts: dict[str, None] = {}
    for variant in done:
        run = runs[variant.jobs[0].recipe.name]
        data = parquet_tables.read_samples(run.unit("data") / "samples.parquet")
        known |= _words(data)
        concepts |= {str(value) for value in data.fields.get("concept", ()) if value}
        grid = parquet_tables.read_samples(run.unit(seen[run.name].incumbent.unit) / "grid.parquet")
        texts |= dict.fromkeys(prompt.text for prompt in grid.prompts)
    out = {}
    for text in texts:
        words = dict.fromkeys(_WORD.findall(text.lower()))
        held_out = max((c for c in concepts if _within(c, text)), key=len, default="")
        out[text] = {"unseen": [word for word in words if word not in known] if known else [], "held_out": held_out}
    return out


def _within(concept: str, text: str) -> bool:
    """As whole words."""
    return re.search(rf"(?<!\w){re.escape(concept.lower())}(?!\w)", text.lower()) is not None


def _words(data: Samples) -> set[str]:
    train = np.flatnonzero(data.fields["split"].astype(str) == "train")
    texts = {data.prompts[row].text for row in train.tolist()}
    for row in train.tolist():
        texts.update(data.fields["captions"][row] if "captions" in data.fields else ())
    return {word for text in texts for word in _WORD.findall(text.lower())}
