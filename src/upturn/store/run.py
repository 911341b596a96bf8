"""A run's folder: its units, their steps, its state. Everything true about a run is a file in it.

    runs/<name>/  run.json  recipe.yaml  fingerprint.json  state.json  deletions.jsonl  upturn.db  data/  models/  rounds/
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from upturn.errors import RunError, UserError
from upturn.store import commit as commits
from upturn.store import files, retention
from upturn.store.commit import STAGES, Draft, Record
from upturn.store.faults import reach
from upturn.types import content_id

if TYPE_CHECKING:
    from upturn.store.catalog import Catalog

State = Literal["running", "waiting", "done", "failed"]
IDENTITY, RECIPE, FINGERPRINT, STATE, LOCK = "run.json", "recipe.yaml", "fingerprint.json", "state.json", ".lock"
_UNIT = re.compile(r"data|models/[^/]+|rounds/\d{3,}(/[^/]+)?")


@dataclass(frozen=True)
class RunState:
    """What a run says of itself; ``running`` with ``Run.holder() is None`` means that it was killed."""

    state: State
    message: str
    updated: str  # UTC, ISO 8601


class Run:
    """An open run. Any number may read; the first commit (or ``lock``) makes this the one process that writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    @classmethod
    def create(
        cls, folder: Path | str, recipe_text: str, fingerprint: Mapping[str, Any], *, catalog: str | None = None
    ) -> Run:
        """A new run, its recipe and fingerprint on the disk; ``catalog`` is a database URL (SQLite in it by default).

        Raises UserError where the folder holds something already or cannot be written.
        """
        folder = Path(folder)
        with cls._new(folder, recipe_text, fingerprint, {"catalog": catalog}):
            reach("create:written")
        run = cls(folder)
        run.set_state("running")
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """The run in a folder, to read; it is locked and swept by ``lock`` or the first commit.

        Raises UserError where there is none.
        """
        folder = Path(folder)
        if not (folder / IDENTITY).is_file():
            raise UserError("there is no run here", where=str(folder), fix="Give the folder that holds its recipe.yaml.")
        return cls(folder)

    @classmethod
    @contextmanager
    def _new(
        cls, folder: Path, recipe_text: str, fingerprint: Mapping[str, Any], identity: Mapping[str, Any]
    ) -> Iterator[Path]:
        """A temporary folder with what every run has; on leaving it gets its name, whole."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError("this folder is not empty", where=str(folder), fix="Choose another name for the run.")
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        with files.disk_errors(folder):
            files.make_folder(folder.parent)
            draft = folder.with_name(f".{folder.name}.new")
            files.remove(draft)
            draft.mkdir()
            try:
                name = content_id(str(folder.resolve()), created, os.getpid())
                _write(draft / IDENTITY, files.to_json({"id": name, "created": created, **identity}))
                _write(draft / RECIPE, recipe_text)
                _write(draft / FINGERPRINT, files.to_json(fingerprint))
                yield draft
                files.sync_tree(draft)
                os.rename(draft, folder)
                files.sync(folder.parent)
            except BaseException:
                files.remove(draft)
                raise

    @classmethod
    def fork(
        cls, source: Run, round: int, folder: Path | str, recipe_text: str | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> Run:
        """A new run that goes on from ``source`` after its round ``round``: data, helper models and rounds up to it.

        Files are hard links where the disk allows it (nothing kept is ever written again), copies otherwise.
        Raises UserError where the source has no such round, or the weights to go on from were removed.
        """
        known = sorted({unit_round(unit) for unit in source.units()} - {-1})
        if round not in known:
            raise UserError(f"there is no round {round}", where=str(source.folder), fix=f"It has {known}.")
        records = [record for record in source.records() if unit_round(record.unit) <= round]
        incumbent = retention.incumbent(records)
        if incumbent is not None:
            source.model_folder(incumbent)
        folder = Path(folder)
        text = recipe_text if recipe_text is not None else source.recipe_text
        print_ = fingerprint if fingerprint is not None else source.fingerprint
        origin = {"run": str(source.folder.resolve()), "id": source.id, "round": round}
        with cls._new(folder, text, print_, {"catalog": source.identity["catalog"], "forked_from": origin}) as draft:
            kept = {record.unit for record in records}
            lines = [deletion for deletion in source.deletions() if deletion.unit in kept]
            _write(draft / retention.DELETIONS, "".join(line.to_line() for line in lines))
            for record in records:
                path = Path(record.unit, STAGES, f"{record.step}.json")
                for name in (path, *(Path(record.unit, name) for name in record.files)):
                    _link(source.folder / name, draft / name)
            reach("fork:linked")
        run = cls(folder)
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
    def fingerprint(self) -> dict[str, Any]:
        value: dict[str, Any] = files.read_json(self.folder / FINGERPRINT)
        return value

    def unit(self, name: str) -> Path:
        """The folder of a unit: data, models/<name>, rounds/NNN or rounds/NNN/<stage>; ValueError for another name."""
        if not _UNIT.fullmatch(name):
            raise ValueError(f"'{name}' is no unit")
        return self.folder / name

    # steps

    def commit(
        self, unit: str, step: str, info: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Draft]:
        """``with run.commit(unit, step) as out:`` write files into ``out.path``; on leaving the step is done, for good.

        ``out.info``, ``out.counts`` and ``out.seconds`` may be filled until then. See ``upturn.store.commit``.
        """
        self.lock()
        return commits.commit(self.unit(unit), unit, step, info, self._noted)

    def _noted(self, record: Record) -> None:
        self._catalogued(lambda catalog: catalog.put_record(self.id, record))

    def done(self, unit: str, step: str) -> Record | None:
        """The record of a step, None where it is not done."""
        path = commits.record_path(self.unit(unit), step)
        return commits.read_record(path) if path.is_file() else None

    def records(self, unit: str | None = None) -> list[Record]:
        """Every finished step (of one unit), in the order in which they began."""
        where = [self.unit(unit)] if unit is not None else [
            path.parent for pattern in ("data", "models/*", "rounds/*", "rounds/*/*")
            for path in self.folder.glob(f"{pattern}/{STAGES}")
        ]
        found = [commits.read_record(path) for folder in where for path in (folder / STAGES).glob("[!.]*.json")]
        return sorted(found, key=lambda record: (record.started, record.unit, record.step))

    def units(self) -> list[str]:
        """The units with a finished step, in the order in which they began."""
        return list(dict.fromkeys(record.unit for record in self.records()))

    def round_units(self) -> list[str]:
        """The units of rounds, round 0 first: rounds/000/pretrain, rounds/000/finetune, rounds/001, …"""
        return sorted((unit for unit in self.units() if unit_round(unit) >= 0), key=unit_round)

    def verify(self) -> list[str]:
        """Every kept file whose bytes are not those written, named; weights removed on purpose do not count."""
        gone = {(deletion.unit, deletion.name) for deletion in self.deletions()}
        wrong = []
        for record in self.records():
            for name, digest in record.files.items():
                path = self.unit(record.unit) / name
                if not path.exists():
                    if (record.unit, name) not in gone:
                        wrong.append(f"{path}: missing")
                elif files.any_hash(path) != digest:
                    wrong.append(f"{path}: not the bytes that were written")
        return wrong

    # weights

    def incumbent(self) -> str | None:
        """The unit whose model is the best so far: the last promoted round, else the last stage of round 0."""
        return retention.incumbent(self.records())

    def model_folder(self, unit: str) -> Path:
        """``model/`` of a unit; UserError where it was removed, or was never made."""
        path = self.unit(unit) / "model"
        for deletion in self.deletions():
            if deletion.unit == unit and deletion.name == "model":
                raise UserError(
                    f"these weights were removed ({deletion.reason}) at {deletion.at}", where=str(path),
                    fix="Set 'keep: all' in the recipe to keep them all.",
                )
        if not path.is_dir():
            raise UserError("this unit has no model", where=str(path))
        return path

    def deletions(self) -> list[retention.Deletion]:
        """What was removed to save room, and why."""
        return retention.read(self.folder)

    def prune(self, keep: str, budget: int | None = None) -> list[retention.Deletion]:
        """Remove weights that ``keep`` ("all", "promoted", "last N") and a budget in bytes do not retain.

        Never the incumbent's, the anchor's (the last stage of round 0), or those of a round that is not gated yet;
        each removal is written down first. Raises UserError for another ``keep``.
        """
        self.lock()
        with files.disk_errors(self.folder):
            return retention.prune(self.folder, self.records(), keep, budget)

    # state

    @property
    def state(self) -> RunState:
        path = self.folder / STATE
        value = files.read_json(path) if path.exists() else {"state": "running", "message": "", "updated": ""}
        return RunState(**value)

    def set_state(self, state: State, message: str = "") -> None:
        if state not in get_args(State):
            raise ValueError(f"'{state}' is no state of a run")
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        with files.disk_errors(self.folder):
            reach("state:before-rename")
            files.write_text(self.folder / STATE, files.to_json(
                {"state": state, "message": message, "updated": updated}))
        self._catalogued(lambda catalog: catalog.put_run(self))

    # one writer

    def lock(self) -> None:
        """Make this the one process that writes, and sweep what a killed one left. Does nothing when held already.

        Raises RunError naming the process that holds it.
        """
        if self._lock is not None:
            return
        with files.disk_errors(self.folder):
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = os.pread(handle, 32, 0).decode().strip() or "unknown"
            os.close(handle)
            raise RunError(
                f"process {other} is at work on this run", where=str(self.folder),
                fix="Wait for it, or end it; what it has finished is kept.",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._lock = handle
        self._sweep()

    def _sweep(self) -> None:
        with files.disk_errors(self.folder):
            for stages in self.folder.glob(f"**/{STAGES}"):
                commits.sweep(stages.parent)
            retention.finish(self.folder)

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if "_catalog" in self.__dict__:
            self._catalog.close()
            del self.__dict__["_catalog"]

    def __enter__(self) -> Run:
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def holder(self) -> int | None:
        """The process that writes this run now, None where there is none."""
        if self._lock is not None:
            return os.getpid()
        try:
            handle = os.open(self.folder / LOCK, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return int(os.pread(handle, 32, 0).decode().strip() or 0) or None
        finally:
            os.close(handle)
        return None

    # catalog

    @cached_property
    def _catalog(self) -> Catalog:
        from upturn.store.catalog import Catalog

        return Catalog(self.catalog_url)

    @property
    def catalog_url(self) -> str:
        return str(self.identity["catalog"] or f"sqlite:///{self.folder.resolve() / 'upturn.db'}")

    def catalog(self) -> Catalog:
        """The catalog of this run, made from the files where there is none yet."""
        if not self._catalog.has(self.id):
            self._catalog.rebuild(self)
        return self._catalog

    def rebuild_catalog(self) -> None:
        """Make this run's part of the catalog anew from the files."""
        self._catalogued(lambda catalog: catalog.rebuild(self))

    def _catalogued(self, act: Callable[[Catalog], None]) -> None:
        """Do something to the catalog; a database that is away or damaged never stops a run: the files are the truth."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            act(self._catalog)
        except SQLAlchemyError as error:
            _warn(self.catalog_url, error)


_warned: set[str] = set()


def _warn(url: str, error: Exception) -> None:
    import warnings

    if url not in _warned:
        _warned.add(url)
        reason = str(error).splitlines()[0]
        warnings.warn(f"the catalog could not be written ({reason}); the run goes on, rebuild it later", stacklevel=3)


def unit_round(unit: str) -> int:
    """The round of a unit, -1 for data and helper models, which come before all rounds."""
    parts = unit.split("/")
    return int(parts[1]) if parts[0] == "rounds" else -1


def round_unit(number: int, stage: str | None = None) -> str:
    """``rounds/003``, or ``rounds/000/pretrain``."""
    return f"rounds/{number:03d}" + (f"/{stage}" if stage else "")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name: a hard link, or a copy; nothing where the source was removed on purpose."""
    import shutil

    if source.is_dir():
        for path in source.rglob("*"):
            if path.is_file():
                _link(path, target / path.relative_to(source))
        return
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
