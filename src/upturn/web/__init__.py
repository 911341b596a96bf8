"""The voting page: reads prompts and samples of a run, appends votes. A leaf: nothing in training knows of it.

    asking     a run's samples -> tasks of a poll
    contents      what is shown, out of memory until it is
    state      all that a server holds; app puts the pages and the interface for programs over it
    server     listens; simulate answers through the same interface, with a stated taste
"""

from __future__ import annotations

from upturn.errors import UserError


def installed() -> None:
    """UserError where what the page needs is not installed."""
    from importlib.util import find_spec

    needed = {"fastapi": "fastapi", "uvicorn": "uvicorn", "itsdangerous": "itsdangerous", "nh3": "nh3",
              "markdown_it": "markdown-it-py", "multipart": "python-multipart", "alembic": "alembic"}
    missing = [name for module, name in needed.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"voting needs {', '.join(missing)}", fix="pip install upturn[people]")
