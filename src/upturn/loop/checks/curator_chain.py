"""Whether what a round chooses with has something to choose among, and to choose by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from upturn.annotation.vote_mode import mode_named
from upturn.config import components
from upturn.config.schema import Rounds
from upturn.errors import UserError
from upturn.protocols import Curator


def curator_classes(specs: Sequence[Mapping[str, Any]]) -> list[tuple[str, type[Curator]]]:
    """(name, class) of each curator of a recipe, for what its class declares."""
    return [(str(spec["name"]), components.find("curator", str(spec["name"]))) for spec in specs]


def refuse_choices(rounds: Rounds, candidates: int, fitted: bool) -> None:
    """Curators and objectives that compare need several candidates, and something to compare them by.

    ``fitted``: a reward model is fitted on the votes.
    """
    curators = curator_classes(rounds.curate)
    rewarded = [name for name, curator in curators if curator.selects == "reward"]
    if rewarded and not rounds.score:
        raise UserError(
            f"the curator '{rewarded[0]}' chooses by reward, but nothing scores", where="rounds.curate",
            fix="Add 'score:' to the rounds.",
        )
    single = [name for name, curator in curators if curator.selects == "reward" and curator.among_candidates]
    if single and candidates < 2:
        raise UserError(
            f"the curator '{single[0]}' chooses among candidates, but there is 1 a prompt",
            where="rounds.sample.candidates", fix="Set at least 2.",
        )
    objectives = [components.make("objective", turn.objective, "rounds.train.objective") for turn in rounds.train]
    compare = [turn.objective["name"] for turn, objective in zip(rounds.train, objectives, strict=True)
               if objective.example == "group"]
    if compare and (candidates < 2 or not (rounds.score or rounds.people)):
        raise UserError(
            f"the objective '{compare[0]}' learns from groups: it needs at least 2 candidates and a score",
            where="rounds.train.objective", fix="Raise 'candidates:' and add 'score:', or 'people:'.",
        )
    _check_people(rounds, candidates, compare, fitted)
    if rewarded and len(compare) == len(objectives):
        raise UserError(
            f"the curator '{rewarded[0]}' chooses among candidates that the objective '{compare[0]}' compares: nothing "
            "would read its choice", where="rounds.curate, rounds.train.objective", fix="Remove the curator.",
        )


def _check_people(rounds: Rounds, candidates: int, compare: Sequence[str], fitted: bool) -> None:
    """Votes must be read by a curator, an objective or a reward model, and no other curator may choose after them."""
    curators = curator_classes(rounds.curate)
    voted = [name for name, curator in curators if curator.selects == "votes"]
    people = rounds.people
    if people is None:
        if voted:
            raise UserError(f"the curator '{voted[0]}' reads annotators' votes, and the rounds ask for none",
                            where="rounds.curate", fix="Add 'people:' to the rounds.")
        return
    again = [name for name, curator in curators if curator.among_candidates and curator.selects != "votes"]
    if voted and again:
        raise UserError(f"'{again[0]}' would select again among what the votes selected", where="rounds.curate",
                        fix=f"Keep one of '{voted[0]}' and '{again[0]}'.")
    if not voted and not compare and not fitted:
        raise UserError("annotators vote, and nothing reads their votes", where="rounds.people",
                        fix="Add the curator 'picked', or an objective that compares, such as dpo.")
    mode = mode_named(people.mode)
    if mode.compares and candidates < 2:
        raise UserError(f"'{people.mode}' chooses among candidates, and there is 1 per prompt",
                        where="rounds.sample.candidates", fix="Set at least 2.")
    if mode.feedback == "correction" and compare:
        raise UserError(f"'{compare[0]}' compares candidates, and annotators who edit compare none",
                        where="rounds.people.mode", fix="Use a mode that compares, such as pick.")
