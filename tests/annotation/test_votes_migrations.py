"""An old database is upgraded with all it holds, a newer one is refused, the tables are those that the code means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from helpers import postgres as databases
from upturn.annotation.db import tables as t
from upturn.annotation.db import upgrade
from upturn.annotation.db.ballots import BallotBox
from upturn.annotation.db.engine import engine_for
from upturn.annotation.db.record import record
from upturn.annotation.db.upgrade import HEAD, version
from upturn.annotation.db.validation import Answer, Task
from upturn.errors import UserError

pytestmark = pytest.mark.slow

KEY, SCHEMA = b"k" * 32, "upturn_migrations"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.database)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'votes.db'}"
        return
    if databases.why_not():
        pytest.skip(databases.why_not())
    with databases.postgres() as there:
        yield there


@pytest.mark.slow
def test_an_old_database_is_upgraded_with_its_votes(url: str) -> None:
    """A database of the first revision, with a vote in it that was written then."""
    engine = engine_for(url, SCHEMA, writes=True)
    assert upgrade.upgrade(engine, SCHEMA, "0001") is None
    with engine.begin() as db:
        assert not inspect(db).has_table("requests")
        db.execute(t.people.insert().values(
            id="p", name="ada", role="voter", team="", paused=False, token="t", epoch=0, given=0, made=0.0
        ))
        db.execute(t.polls.insert().values(
            id="q", unit="rounds/001", mode="pick", overlap=1, settings={}, active=True, load=1, given=0, made=0.0
        ))
        db.execute(t.tasks.insert().values(
            id="k", poll="q", prompt={}, candidates=["a", "b"], places=["x", "x"], gold="", place=0, covered=0, load=1
        ))
        db.execute(t.showings.insert().values(
            id="s", person="p", task="k", shown=["b", "a"], check="", state="open", again=False, moment=0.0, expires=9e9
        ))
        record(db, Answer("v", "p", "s", "said", (0, 1)), 1.0)
    engine.dispose()
    for _ in range(2):  # the second time there is nothing to do
        with BallotBox(url, SCHEMA, KEY) as box:
            votes = box.votes()
            assert votes.ids.tolist() == ["v"] and votes.shown[0] == ("b", "a") and len(box.implicit()) == 0
            assert box.read(version) == HEAD
    with engine.begin() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        assert compare_metadata(context, t.metadata) == []
    engine.dispose()


@pytest.mark.slow
def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    with BallotBox(url, SCHEMA, KEY) as box:
        box.add_person("ada")
        box.submit(lambda db: db.execute(text("UPDATE alembic_version SET version_num = '9001'"))).result()
    with pytest.raises(UserError, match=r"written by a newer upturn \(revision 9001, this one knows"):
        BallotBox(url, SCHEMA, KEY)
    engine = engine_for(url, SCHEMA, writes=False)
    with engine.connect() as db:
        assert version(db) == "9001" and db.execute(text("SELECT count(*) FROM people")).scalar() == 1
    engine.dispose()


@pytest.mark.slow
def test_several_that_open_at_once_make_one_database(url: str) -> None:
    start, boxes, errors = threading.Barrier(4), [], []

    def opens() -> None:
        start.wait()
        try:
            boxes.append(BallotBox(url, SCHEMA, KEY))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=opens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(boxes) == 4
    boxes[0].add_person("ada")
    assert [len(box.people()) for box in boxes] == [1] * 4
    for box in boxes:
        box.close()


@pytest.mark.slow
@pytest.mark.database
def test_runs_in_one_postgres_do_not_see_each_other() -> None:
    if databases.why_not():
        pytest.skip(databases.why_not())
    with databases.postgres() as url, BallotBox(url, "upturn_a", KEY) as a, BallotBox(url, "upturn_b", KEY) as b:
        a.add_person("ada")
        a.open_poll("rounds/001", "pick", [Task({}, ("x", "y"), ("f", "f"))])
        assert len(a.people()) == 1 and b.people() == [] and b.polls() == []


def test_the_newest_revision_is_the_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert [one.revision for one in scripts.walk_revisions()] == sorted(
        (one.revision for one in scripts.walk_revisions()), reverse=True
    ), "revisions are numbered in order: 'newer' is decided by the number"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be opened"),
        ("mysql+pymysql://u:secret@h/d", "cannot be opened"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "does not answer"),
        ("sqlite:////no/such/folder/votes.db", "does not answer"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_message(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        BallotBox(url, SCHEMA, KEY)
    assert "secret" not in str(told.value)


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "votes.db").write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(UserError, match="does not answer"):
        BallotBox(f"sqlite:///{tmp_path / 'votes.db'}", SCHEMA, KEY)
