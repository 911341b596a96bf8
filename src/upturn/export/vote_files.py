"""Votes as files: every column of them, for pandas, Hugging Face, Argilla and Label Studio; and back again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from upturn.data.json_lines import records
from upturn.errors import UserError
from upturn.export.card import Exported, write_card, write_lines
from upturn.export.preferences_voted import candidates_of, votes_so_far
from upturn.store import files
from upturn.store.columns import read_table, with_notes, write_table
from upturn.store.run import Run
from upturn.types import Array, Sample, Votes, objects

_NUMBERS = ("strength", "seconds", "moment")
_LISTS = {"shown": str, "ranks": int, "scores": float}
_CHOICE = """<View>
  <Text name="prompt" value="$prompt"/>
{candidates}
  <Choices name="best" toName="prompt" choice="single-radio" required="true">
{values}
  </Choices>
</View>
"""


def write_votes(run: Run, folder: Path) -> Exported:
    """votes.parquet and votes.jsonl: a row a vote, its columns those of ``types.Votes``, prompt and completions beside.

    Of texts argilla.jsonl (dictionaries for ``Dataset.records.log``), label_studio.json (tasks with annotations) and
    label_studio.xml (its labelling configuration), too: what was put first, as the candidates stood on the screen.
    Raises UserError where there are no votes.
    """
    votes = votes_so_far(run)
    if votes is None:
        raise UserError("there are no votes on this run", where=str(run.folder), fix="'upturn serve' collects votes.")
    samples = candidates_of(run)
    rows = vote_rows(votes, samples)
    _write_parquet(folder / "votes.parquet", rows)
    write_lines(folder / "votes.jsonl", rows)
    counts = {"votes": len(rows), "people": len(set(votes.person)), "tasks": len(set(votes.task))}
    left: Counter[str] = Counter()
    flat = [flat_row for row in rows if (flat_row := _flat(row, left)) is not None]
    notes = "A row is one annotator's vote on one task; annotators are pseudonyms. `shown`: ids of samples by their " \
        "position on the screen; `ranks`: 1 is best, equal is a tie, 0 is not ranked; `completions`: texts, null " \
        "for images."
    if flat:
        write_lines(folder / "argilla.jsonl", [_argilla(row) for row in flat])
        tasks = [_label_studio(row) for row in flat]
        (folder / "label_studio.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
        (folder / "label_studio.xml").write_text(_configuration(max(len(r["texts"]) for r in flat)), encoding="utf-8")
        counts["for Argilla and Label Studio"] = len(flat)
        notes += " `argilla.jsonl`, `label_studio.json`: what was put first (`best`: a place, tie or bad)."
    left = +left
    write_card(folder, run, "Votes", counts, left, notes, "votes.parquet")
    return Exported(folder, counts, dict(left))


def vote_rows(votes: Votes, samples: Mapping[str, Sample]) -> list[dict[str, Any]]:
    """``plain_rows`` with the prompt and the completions that stood there."""
    rows = plain_rows(votes)
    for row in rows:
        found = [samples.get(str(name)) for name in row["shown"]]
        row["prompt"] = next((sample.prompt.text for sample in found if sample is not None), None)
        row["completions"] = [s.content if s is not None and isinstance(s.content, str) else None for s in found]
    return rows


def plain_rows(votes: Votes) -> list[dict[str, Any]]:
    """Votes as dictionaries: JSON's types, NaN as None."""
    return [
        {item.name: files.plain(getattr(votes, item.name)[row]) for item in fields(Votes)} for row in range(len(votes))
    ]


def read_votes(path: Path) -> Votes:
    """Votes of such a file, .parquet or JSON lines. Raises UserError naming a column that is not there."""
    table = path.suffix == ".parquet"
    rows = read_table(path).to_pylist() if table else [row for _, row in records(path)]
    for number, row in enumerate(rows, start=1):
        missing = [item.name for item in fields(Votes) if item.name not in row]
        if missing:
            raise UserError(f"a vote has no '{missing[0]}'", where=f"{path}, row {number}",
                            fix="'upturn export RUN --what votes' writes such files.")
        if len(row["ranks"]) not in (0, len(row["shown"])) or len(row["scores"]) not in (0, len(row["shown"])):
            raise UserError("ranks and scores must have one entry per displayed candidate",
                            where=f"{path}, row {number}",
                            fix="Give as many of each, or none.")
    return Votes(**{item.name: _column(item.name, [row[item.name] for row in rows]) for item in fields(Votes)})


def _column(name: str, values: Sequence[Any]) -> Array:
    if name in _NUMBERS:
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    if name in _LISTS:
        kind = _LISTS[name]
        return objects([tuple(np.nan if v is None else kind(v) for v in row) for row in values])
    return objects([str(value) for value in values])


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    lists: dict[str, Any] = {**_LISTS, "completions": str}
    schema = pa.schema([
        (name, pa.list_(kinds[lists[name]]) if name in lists else pa.float64() if name in _NUMBERS else pa.string())
        for name in rows[0]
    ])
    write_table(path, with_notes(pa.Table.from_pylist(list(rows), schema=schema), {"table": "export"}))


def _flat(row: Mapping[str, Any], left: Counter[str]) -> dict[str, Any] | None:
    """The vote as one choice among texts by place, or None, counted by reason."""
    best = {"tie": "tie", "bad": "bad"}.get(row["action"])
    scores = [-np.inf if score is None else score for score in row["scores"]]
    if row["action"] == "said":
        order = row["ranks"] if any(row["ranks"]) else [1 if s == max(scores) else 2 for s in scores]
        first = [place for place, rank in enumerate(order, start=1) if rank == 1]
        best = str(first[0]) if len(first) == 1 else "tie"
    if best is None or len(row["shown"]) < 2:
        left["votes that choose nothing, from Argilla and Label Studio"] += 1
        return None
    if row["prompt"] is None or None in row["completions"]:
        left["votes on what is no text, from Argilla and Label Studio"] += 1
        return None
    return {**row, "best": best, "texts": {f"candidate_{i}": t for i, t in enumerate(row["completions"], start=1)}}


def _argilla(row: Mapping[str, Any]) -> dict[str, Any]:
    """As ``Dataset.records.log`` takes it: fields by name, the answer as "question.response" (docs.argilla.io, 2.x)."""
    return {"id": row["ids"], "prompt": row["prompt"], **row["texts"], "best.response": row["best"],
            "person": row["person"], "task": row["task"]}


def _label_studio(row: Mapping[str, Any]) -> dict[str, Any]:
    """A task with its annotation (labelstud.io/guide/task_format): "data", and "annotations" with a "result" each."""
    result = {"from_name": "best", "to_name": "prompt", "type": "choices", "value": {"choices": [row["best"]]}}
    return {
        "data": {"prompt": row["prompt"], **row["texts"]},
        "meta": {"vote": row["ids"], "person": row["person"], "task": row["task"]},
        "annotations": [{"result": [result], "was_cancelled": False, "lead_time": row["seconds"]}],
    }


def _configuration(most: int) -> str:
    places = range(1, most + 1)
    shown = "\n".join(f'  <Text name="candidate_{i}" value="$candidate_{i}"/>' for i in places)
    values = "\n".join(f'    <Choice value="{value}"/>' for value in [*map(str, places), "tie", "bad"])
    return _CHOICE.format(candidates=shown, values=values)
