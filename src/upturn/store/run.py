"""A run directory: its units, their steps, its state. Everything about a run is a file in it.

    runs/<name>/  run.json  recipe.yaml  fingerprint.json  state.json  deletions.jsonl  upturn.db
                  data/  models/<name>/  rounds/NNN/  rounds/000/<stage>/
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from upturn.errors import UserError
from upturn.store import bases, files, retention, units, verification
from upturn.store import commit as commits
from upturn.store.commit import STAGES, Draft, Record
from upturn.store.crash_points import reach
from upturn.store.lock import Lock
from upturn.store.new_run import FINGERPRINT, IDENTITY, RECIPE, new_folder, take_along
from upturn.store.units import unit_round
from upturn.store.verification import Verification

if TYPE_CHECKING:
    from upturn.config.recipe import Recipe
    from upturn.store.catalog import Catalog

State = Literal["running", "waiting", "done", "failed"]
STATE, DATABASE = "state.json", "upturn.db"


@dataclass(frozen=True)
class RunState:
    """The state that a run records; ``running`` with ``Run.holder() is None`` means that it was killed."""

    state: State
    message: str
    updated: str  # UTC, ISO 8601


class Run:
    """An open run. Any number of processes may read; the first write (or ``lock``) makes this the only writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = Lock(folder)

    @classmethod
    def create(
        cls, folder: Path | str, recipe_text: str, fingerprint: Mapping[str, Any], *, catalog: str | None = None
    ) -> Run:
        """A new, locked run, its recipe and fingerprint on the disk; ``catalog`` is a database URL (SQLite otherwise).

        Raises UserError where the folder holds something already or cannot be written.
        """
        folder = Path(folder)
        with new_folder(folder, recipe_text, fingerprint, {"catalog": catalog}):
            pass
        bases.sweep(folder.parent)
        run = cls(folder)
        run.set_state("running")
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """The run in a folder, to read; it is locked and swept by the first write, or ``lock``.

        Raises UserError where there is none.
        """
        folder = Path(folder)
        if not (folder / IDENTITY).is_file():
            raise UserError("there is no run here", where=str(folder), fix="Give a folder that 'upturn run' created.")
        return cls(folder)

    @classmethod
    def fork(
        cls, source: Run, round: int, folder: Path | str, recipe_text: str | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> Run:
        """A new, locked run that continues ``source`` after its round ``round``, with everything before.

        Recipe and fingerprint are the source's unless given; files are hard links where the disk allows it.
        Raises UserError where the source has no such round, or the weights to continue from were removed.
        """
        known = sorted({unit_round(unit) for unit in source.units()} - {-1})
        if round not in known:
            raise UserError(f"there is no round {round}", where=str(source.folder), fix=f"It has {known}.")
        records = [record for record in source.records() if unit_round(record.unit) <= round]
        incumbent = retention.incumbent(records)
        if incumbent is not None:
            source.model_folder(incumbent)  # raises where it was removed
        identity = {
            "catalog": source.identity["catalog"],
            "forked_from": {"run": str(source.folder.resolve()), "id": source.id, "round": round},
        }
        text = source.recipe_text if recipe_text is None else recipe_text
        described = source.fingerprint if fingerprint is None else fingerprint
        with new_folder(Path(folder), text, described, identity) as draft:
            take_along(source.folder, draft, records, source.deletions())
            reach("fork:linked")
        run = cls(Path(folder))
        run.set_state("running")
        run.rebuild_catalog()
        return run

    # what it is

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """``run.json``: id, created, catalog (a URL or null), and for a fork ``forked_from`` {run, id, round}."""
        value: dict[str, Any] = files.read_json(self.folder / IDENTITY)
        return value

    @property
    def id(self) -> str:
        """16 hexadecimal digits that no other run has, whatever folder it is moved to."""
        return str(self.identity["id"])

    @cached_property
    def recipe_text(self) -> str:
        try:
            return (self.folder / RECIPE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the recipe cannot be read: {error}", where=str(self.folder / RECIPE)) from error

    @cached_property
    def recipe(self) -> Recipe:
        """The run's recipe, parsed. UserError where this version cannot read it."""
        from upturn.config import recipe

        return recipe.parse(self.recipe_text, str(self.folder / RECIPE))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        value: dict[str, Any] = files.read_json(self.folder / FINGERPRINT)
        return value

    def unit(self, name: str) -> Path:
        """The folder of a unit: data, models/<name>, rounds/NNN or rounds/NNN/<stage>; ValueError for another name."""
        return self.folder / units.checked(name)

    # steps

    def commit(self, unit: str, step: str, info: Mapping[str, Any] | None = None) -> AbstractContextManager[Draft]:
        """``with run.commit(unit, step) as out:`` write files into ``out.path``; on leaving the step is done, for good.

        ``out.info``, ``out.counts`` and ``out.seconds`` may be filled until then. See ``upturn.store.commit``.
        """
        self.lock()
        return commits.commit(self.unit(unit), unit, step, info, self._noted)

    def done(self, unit: str, step: str) -> Record | None:
        """The record of a step, None where it is not done."""
        path = commits.record_path(self.unit(unit), step)
        return commits.read_record(path) if path.is_file() else None

    def records(self, unit: str | None = None) -> list[Record]:
        """Every finished step (of one unit), in the order in which they began."""
        where = units.FOLDERS if unit is None else (units.checked(unit),)
        paths = [path for pattern in where for path in self.folder.glob(f"{pattern}/{STAGES}/[!.]*.json")]
        found = [commits.read_record(path) for path in paths]
        return sorted(found, key=lambda record: (record.started, record.unit, record.step))

    def units(self) -> list[str]:
        """The units with a finished step, in the order in which they began."""
        return list(dict.fromkeys(record.unit for record in self.records()))

    def round_units(self) -> list[str]:
        """The units of rounds, round 0 first, those of one round as they began."""
        return sorted((unit for unit in self.units() if unit_round(unit) >= 0), key=unit_round)

    def verify(self) -> Verification:
        """Compare every recorded file with its hash; weights that were removed on purpose do not count as damage."""
        return verification.verify(self.folder)

    # weights

    def incumbent(self) -> str | None:
        """The unit whose model is the best so far: the last promoted round, else round 0; None before there is one."""
        return retention.incumbent(self.records())

    def model_folder(self, unit: str) -> Path:
        """``model/`` of a unit; UserError where it was removed or never written."""
        path = self.unit(unit) / "model"
        for deletion in self.deletions():
            if deletion.unit == unit and deletion.name == "model":
                raise UserError(
                    f"these weights were removed ({deletion.reason}) at {deletion.at}", where=str(path),
                    fix="Choose a round whose weights are there, or keep more in the recipe ('keep:').",
                )
        if not path.is_dir():
            raise UserError("this unit has no model", where=str(path))
        return path

    def prune_checkpoints(self, unit: str, kept: Collection[str], why: str) -> list[retention.Deletion]:
        """Remove the weights of a training's checkpoints but those named; each removal is written down first."""
        self.lock()
        with files.disk_errors(self.folder):
            return retention.prune_checkpoints(self.folder, unit, kept, why)

    def deletions(self) -> list[retention.Deletion]:
        """What was removed to save disk space, and why."""
        return retention.read(self.folder)

    def prune(self, keep: str, budget: int | None = None) -> list[retention.Deletion]:
        """Remove weights that ``keep`` ("all", "promoted", "last N") and a budget in bytes do not retain.

        Never the incumbent's, those of round 0, or those of a round that is not gated yet; each removal is written
        down first. Raises UserError for another ``keep``.
        """
        self.lock()
        with files.disk_errors(self.folder):
            removed = retention.prune(self.folder, self.records(), keep, budget)
            if removed:
                bases.sweep(self.folder.parent)
            return removed

    # state and the one writer

    @property
    def state(self) -> RunState:
        path = self.folder / STATE
        value = files.read_json(path) if path.exists() else {"state": "running", "message": "", "updated": ""}
        return RunState(**value)

    def set_state(self, state: State, message: str = "") -> None:
        """Record the state of the run; only the process that writes may."""
        if state not in get_args(State):
            raise ValueError(f"'{state}' is no state of a run")
        self.lock()
        recorded = {"state": state, "message": message, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
        with files.disk_errors(self.folder):
            reach("state:before-rename")
            files.write_text(self.folder / STATE, files.to_json(recorded))
        self._catalogued(lambda catalog: catalog.put_run(self))

    def lock(self) -> None:
        """Make this the one process that writes, and sweep what a killed one left. Does nothing when held already.

        Raises RunError naming the process that holds it.
        """
        if self._lock.held:
            return
        self._lock.acquire()
        with files.disk_errors(self.folder):
            for pattern in units.FOLDERS:
                for stages in self.folder.glob(f"{pattern}/{STAGES}"):
                    commits.sweep(stages.parent)
            retention.finish(self.folder)

    def holder(self) -> int | None:
        """The process that writes this run now, None where there is none."""
        return self._lock.holder()

    def close(self) -> None:
        """Let another process write."""
        self._lock.release()
        if "_catalog" in self.__dict__:
            self.__dict__.pop("_catalog").close()

    def __enter__(self) -> Run:
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # catalog

    @property
    def catalog_url(self) -> str:
        return str(self.identity["catalog"] or f"sqlite:///{self.folder.resolve() / DATABASE}")

    @cached_property
    def _catalog(self) -> Catalog:
        from upturn.store.catalog import Catalog

        return Catalog(self.catalog_url)

    def catalog(self) -> Catalog:
        """The catalog, with this run's part rebuilt from the files where it is missing, behind or damaged.

        Raises UserError for a database elsewhere that does not answer.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._renew()
        except SQLAlchemyError as error:
            if self.identity["catalog"]:
                reason = str(error).splitlines()[0]
                raise UserError(f"the catalog does not answer: {reason}", where="catalog") from error
            self._catalog.close()
            del self.__dict__["_catalog"]
            for path in self.folder.glob(f"{DATABASE}*"):
                path.unlink()
            self._renew()
        return self._catalog

    def _renew(self) -> None:
        if self._catalog.count(self.id) != len(self.records()):
            self._catalog.rebuild(self)

    def rebuild_catalog(self) -> None:
        """Rebuild this run's part of the catalog from the files."""
        self._catalogued(lambda catalog: catalog.rebuild(self))

    def _noted(self, record: Record) -> None:
        def note(catalog: Catalog) -> None:
            if catalog.count(self.id) is None:
                catalog.rebuild(self)
            else:
                catalog.put_record(self.id, record)

        self._catalogued(note)

    def _catalogued(self, act: Callable[[Catalog], None]) -> None:
        """Do something to the catalog; a database that is away or damaged stops no run: the files are the truth."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            act(self._catalog)
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            message = f"the catalog could not be written ({reason}); the run continues, and it can be rebuilt later"
            warnings.warn(message, stacklevel=3)
