"""Runs the variants of a study, one run each; run again, it goes on from what was finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from upturn.config import recipe as recipes
from upturn.config.recipe import Recipe, to_yaml
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.observer import Observer
from upturn.store import files
from upturn.store.fingerprint import fingerprint
from upturn.store.new_run import new_folder, take_along
from upturn.store.run import Run
from upturn.store.units import model_name, model_unit
from upturn.studies.study_definition import Job, Study, Variant
from upturn.studies.study_results import RESULTS, results


def conduct(
    study: Study, root: Path, observer: Observer | None = None, after: Callable[[Run], object] = lambda run: None
) -> Path:
    """Every variant in its own run ``root/<study>/<variant>``; then results.json there. Returns the study's folder.

    ``after`` is called with each run that is done. All recipes are checked before anything is spent: UserError names
    the variant. One that fails later is noted and stops no other; then RunError at the end, which names them.
    """
    observer, folder = observer or Observer(), root / study.name
    for variant in study.variants:
        for job in variant.jobs:
            _checked(study, variant, job.recipe)
    failed: dict[str, str] = {}
    jobs = study.jobs
    for place, (variant, job) in enumerate(jobs, start=1):
        observer.note(f"variant {place} of {len(jobs)}: {job.recipe.name}")
        try:
            if not _finished(folder, job.recipe):
                _lend_judges(study, variant, job, folder)
                loop.run(job.recipe, folder, observer)
            after(Run.open(folder / job.recipe.name))
        except UserError as error:
            failed[job.recipe.name] = str(error)
            observer.note(f"variant '{job.recipe.name}' failed: {error}")
    files.write_text(folder / RESULTS, files.to_json(results(study, folder, failed)))
    if failed:
        raise RunError(
            f"{len(failed)} of {len(jobs)} variants failed: {', '.join(failed)}", where=str(folder),
            fix="Mend them and run the study again: the others are kept.",
        )
    return folder


def _checked(study: Study, variant: Variant, recipe: Recipe) -> None:
    try:
        assemble(recipe)
    except UserError as error:
        where = f"study '{study.name}', variant '{variant.name}'"
        raise UserError(error.what, where=f"{where}: {error.where}" if error.where else where, fix=error.fix) from error


def _finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the run is done with this very recipe; with another one the loop reports what differs."""
    there = folder / recipe.name
    if not (there / "recipe.yaml").exists():
        return False
    run = Run.open(there)
    same = not recipes.differences(run.recipe, recipe)
    return same and run.state.state == "done"


def _lend_judges(study: Study, variant: Variant, job: Job, folder: Path) -> None:
    """A new run begins with the helper models of the judges' variant: all are measured by the same ones.

    They are hard links; ``run.json`` names where they are from.
    """
    if study.judges is None or (folder / job.recipe.name).exists():
        return
    [lender] = [v for v in study.variants if v.name == study.judges]
    first = lender.jobs[0].recipe
    if job.recipe.name == first.name:
        return
    source = folder / first.name
    own, theirs = (_helpers(recipe) for recipe in (job.recipe, first))
    if own != theirs:
        raise UserError(
            f"its helper models are not those of '{study.judges}'", where=f"variant '{variant.name}'",
            fix="Leave 'judges:' out, or vary no helper model.",
        )
    if not (source / "recipe.yaml").exists() or not own:
        return
    lent = Run.open(source)
    records = [record for record in lent.records() if model_name(record.unit) and record.step == "fit"]
    if {record.unit for record in records} != {model_unit(name) for name in own}:
        raise RunError(f"'{study.judges}' has unfitted helper models", where=str(source), fix="Fix that run first.")
    identity = {"catalog": job.recipe.catalog, "judges_from": {"run": str(source.resolve()), "id": lent.id}}
    with new_folder(folder / job.recipe.name, to_yaml(job.recipe), fingerprint(), identity) as draft:
        take_along(source, draft, records, ())


def _helpers(recipe: Recipe) -> dict[str, object]:
    """Those that are fitted before the rounds."""
    return {name: model.model_dump() for name, model in recipe.models.items() if model.fit is not None}
