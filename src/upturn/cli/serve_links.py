"""Access links that ``upturn serve`` prints: for new annotators, and renewed ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.annotation.db.ballots import BallotBox

SOLE = "you"  # the name of the one annotator where none is configured


def new_links(box: BallotBox, path: Path | None, renewed: list[str], public: bool, host: str) -> list[tuple[str, str]]:
    """Names and new tokens.

    Raises UserError for an address that others can reach while no annotator has a token.
    """
    from upturn.web.annotators_file import people_in

    fresh = [(person.name, token) for person, token in box.add_people(people_in(path))] if path is not None else []
    known = {person.name: person.id for person in box.people()}
    for name in renewed:
        if name not in known:
            raise UserError(f"there is no annotator '{name}'", where="--new-link",
                            fix=f"Annotators: {', '.join(known) or 'none'}.")
        fresh.append((name, box.new_token(known[name])))
    if public and set(known) <= {SOLE}:
        raise UserError(
            f"{host} can be reached by others, and no annotator has an access token", where="--host",
            fix="Name the annotators with --people FILE, or leave --host out.",
        )
    if not known:
        fresh.append((SOLE, box.add_person(SOLE, "admin")[1]))
    elif set(known) == {SOLE} and not fresh:
        fresh.append((SOLE, box.new_token(known[SOLE])))
    return fresh
