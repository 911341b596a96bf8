"""Preferences from annotators' votes: pairs, good and bad completions, groups of K with ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from upturn.annotation.statistics.aggregation import ALL_BAD, TIED, Outcomes, by_majority
from upturn.annotation.statistics.gold import weights
from upturn.annotation.statistics.votes import CORRECTIONS
from upturn.errors import UserError
from upturn.export.card import Exported, write_card, write_lines
from upturn.export.chat_rows import completion_value, prompt_value
from upturn.store.columns import content_column, read_table, with_notes, write_table
from upturn.store.parquet_tables import EVALUATION, SAMPLES, read_samples
from upturn.store.run import Run
from upturn.types import Sample, Samples, Votes

_DATABASE = "votes.db"  # looked for before SQLAlchemy is imported: most runs have no votes
_NOTES = (
    "Annotators' votes by majority, weighted by gold and repeated tasks where there are any. "
    "One row of `{pairs}` is the candidate that annotators ranked first and another one (or a correction and "
    "what it corrects: `how`); `strength` is how sure that is, from 0 to 1; rows of one `group` share their chosen "
    "one, and are no independent evidence. "
)
_FURTHER = (
    "`completions.jsonl`: prompt, completion, label (put first: true; not, or all bad: false). `ranked.jsonl`: all "
    "candidates with `ranks`: 1 is best, equal is a tie, 0 is not ranked; a pick has a single 1."
)


def votes_so_far(run: Run) -> Votes | None:
    """All explicit votes, in the database that the recipe names, else in the run's folder; those that rounds
    froze where the database is missing or does not answer. None where there are no votes.
    """
    from upturn.annotation.db.used_votes import votes_of

    url = _database(run)
    if url is None and not (run.folder / _DATABASE).is_file():
        return votes_of(run)
    from upturn.annotation.db.ballots import open_box

    try:
        with open_box(run, url) as box:
            found = box.votes()
    except (UserError, ImportError):
        return votes_of(run)
    return found if len(found) else None


def _database(run: Run) -> str | None:
    """The URL that the recipe names."""
    rounds = (yaml.safe_load(run.recipe_text) or {}).get("rounds") or {}
    url = (rounds.get("people") or {}).get("database")
    return None if url is None else str(url)


def candidates_of(run: Run) -> dict[str, Sample]:
    """All samples of the rounds and of their evaluations by id, which is what votes name them by."""
    return {sample.id: sample for path in _tables(run) for sample in read_samples(path)}


def sources_of(run: Run) -> dict[str, str]:
    """Which model generated each of ``candidates_of``; their contents are not read."""
    found: dict[str, str] = {}
    for path in _tables(run):
        table = read_table(path, ["id", "source"])
        found.update(zip(table.column("id").to_pylist(), table.column("source").to_pylist(), strict=True))
    return found


def _tables(run: Run) -> list[Path]:
    """The tables whose samples annotators may have seen."""
    paths = [run.unit(unit) / name for unit in run.round_units() for name in (SAMPLES, EVALUATION)]
    return [path for path in paths if path.is_file()]


def write_voted(run: Run, votes: Votes, folder: Path) -> Exported:
    """preferences.jsonl, completions.jsonl and ranked.jsonl; for images only preferences.parquet.

    Raises UserError naming what was left out where no pair remains.
    """
    samples = candidates_of(run)
    outcomes = by_majority(votes, weights(votes).of(votes))
    left = Counter({f"votes, {reason}": count for reason, count in outcomes.left_out.items()})
    pairs, labelled, ranked = _rows(outcomes, samples, left)
    pairs += _corrections(votes, samples, left)
    if not pairs:
        why = "; ".join(f"{reason}: {count}" for reason, count in left.items()) or "there are no votes"
        raise UserError(f"there are no preferences in the votes ({why})", where=str(run.folder))
    counts, text = {"pairs": len(pairs)}, not isinstance(pairs[0]["chosen"], Sample)
    name = "preferences.jsonl" if text else "preferences.parquet"
    if text:
        write_lines(folder / name, pairs)
        write_lines(folder / "completions.jsonl", labelled)
        write_lines(folder / "ranked.jsonl", ranked)
        counts |= {"completions": len(labelled), "ranked groups": len(ranked)}
    else:
        _write_pictures(folder / name, pairs)
    left = +left
    write_card(folder, run, "Preferences", counts, left, _NOTES.format(pairs=name) + (_FURTHER if text else ""), name)
    return Exported(folder, counts, dict(left))


def _rows(
    outcomes: Outcomes, samples: Mapping[str, Sample], left: Counter[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    pairs: list[dict[str, Any]] = []
    labelled: list[dict[str, Any]] = []
    ranked: list[dict[str, Any]] = []
    for i, winner in enumerate(outcomes.winner):
        names = [str(name) for name in outcomes.candidates[i]]
        if any(name not in samples for name in names):
            left["groups whose candidates are none of this run's"] += 1
            continue
        own, ranks, kind = [samples[name] for name in names], outcomes.ranks[i], outcomes.kind[i]
        group, strength = outcomes.tasks[i][0], float(outcomes.strength[i])
        judged = [(sample, name == winner) for sample, name in zip(own, names, strict=True)]
        if kind != TIED:
            labelled += [_prompt(s) | {"completion": _body(s), "label": good, "strength": strength, "id": s.id,
                                       "group": group} for s, good in judged]
        if kind == ALL_BAD:
            left["groups that are all bad, from pairs and ranks: in completions alone"] += 1
            continue
        ranked.append(_prompt(own[0]) | {
            "completions": [_body(s) for s in own], "ranks": list(ranks), "scores": list(outcomes.scores[i]),
            "strength": strength, "votes": int(outcomes.votes[i]), "ids": names, "group": group,
        })
        if kind == TIED:
            left["groups that tie, from pairs and completions: in ranks alone"] += 1
            continue
        best = samples[str(winner)]
        for other, good in judged:
            if not good and _same(best, other):
                left["pairs of candidates that are the same"] += 1
            elif not good:
                pairs.append(_pair(best, best, other) | {"strength": strength, "votes": int(outcomes.votes[i]),
                                                         "group": group, "how": "voted"})
    return pairs, labelled, ranked


def _corrections(votes: Votes, samples: Mapping[str, Sample], left: Counter[str]) -> list[dict[str, Any]]:
    """An edited text is better than the original; each counts as the vote of one annotator."""
    found = []
    for row in (votes.action == "edit").nonzero()[0]:
        before = samples.get(str(votes.shown[row][0])) if votes.shown[row] else None
        if before is None or votes.text[row] == before.content:
            left["corrections that change nothing, or of nothing in this run"] += 1
            continue
        found.append(_pair(before, str(votes.text[row]), before) | {
            "strength": 1.0, "votes": 1, "group": str(votes.task[row]), "how": "corrected"})
    left.pop(f"votes, {CORRECTIONS}", None)  # each is a pair, or counted above
    return found


def _pair(of: Sample, chosen: Sample | str, rejected: Sample) -> dict[str, Any]:
    return _prompt(of) | {
        "chosen": _body(chosen) if isinstance(chosen, Sample) else completion_value(of.prompt, chosen),
        "rejected": _body(rejected),
        "chosen_id": chosen.id if isinstance(chosen, Sample) else "", "rejected_id": rejected.id,
    }


def _prompt(sample: Sample) -> dict[str, Any]:
    label = {} if sample.prompt.label is None else {"label_of_prompt": sample.prompt.label}
    return {"prompt": prompt_value(sample.prompt)} | label


def _body(sample: Sample) -> Any:
    """A text or its messages, or the numbers of a point; an image stays a sample, to be written as an image."""
    if isinstance(sample.content, str):
        return completion_value(sample.prompt, sample.content)
    return sample if sample.content.ndim == 3 else sample.content.tolist()


def _same(first: Sample, second: Sample) -> bool:
    if isinstance(first.content, str):
        return bool(first.content == second.content)
    return bool((first.content == second.content).all())


def _write_pictures(path: Path, pairs: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k not in ("chosen", "rejected")} for row in pairs])
    for place, name in enumerate(("chosen", "rejected"), start=1):
        table = table.add_column(place, name, _pictures([row[name] for row in pairs]))
    write_table(path, with_notes(table, {"table": "export"}))


def _pictures(rows: Sequence[Sample]) -> Any:
    """The column of images of these samples."""
    import numpy as np

    from upturn.types import objects

    n = len(rows)
    return content_column(Samples(
        "image", objects([s.id for s in rows]), tuple(s.prompt for s in rows), np.stack([s.content for s in rows]),
        objects([s.origin for s in rows]), objects([s.source for s in rows]), np.arange(n), np.zeros(n, dtype=np.int64),
    ))[0]
