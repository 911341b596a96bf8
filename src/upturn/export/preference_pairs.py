"""Preferences of a run: of every prompt, the candidate of highest reward and the one of lowest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from upturn.errors import UserError
from upturn.export.card import Exported, write_card, write_lines
from upturn.export.chat_rows import completion_value, prompt_value
from upturn.store.columns import content_column, with_notes, write_table
from upturn.store.parquet_tables import SAMPLES, SCORES, read_samples, read_scores
from upturn.store.run import Run
from upturn.types import Array, Samples


def write_preferences(run: Run, folder: Path) -> Exported:
    """Into ``folder``; UserError naming what was left out where no pair remains."""
    left: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[Samples, Array, Array]] = []
    for unit in run.round_units():
        where = run.unit(unit)
        if not ((where / SAMPLES).is_file() and (where / SCORES).is_file()):
            continue
        samples = read_samples(where / SAMPLES)
        rewards = _rewards(run, read_scores(where / SCORES, samples.ids), len(samples))
        best, worst, undefined = _pairs(samples, rewards)
        left += undefined
        pairs.append((samples, best, worst))
        for high, low in zip(best, worst, strict=True):
            rows.append(_pair(samples, int(high), int(low), rewards) | {"unit": unit})
    if not rows:
        why = "; ".join(f"{reason}: {count}" for reason, count in left.items()) or "no round has scores"
        raise UserError(f"there are no preferences ({why})", where=str(run.folder))
    name = "preferences.jsonl"
    if pairs[0][0].kind == "image":
        name = "preferences.parquet"
        _write_pictures(folder / name, rows, pairs)
    else:
        write_lines(folder / name, rows)
    counts = {"pairs": len(rows)}
    notes = "One row a prompt: `chosen` has the highest reward of its candidates, `rejected` the lowest; the reward " \
        "is the sum of the recipe's scorers by their weights."
    write_card(folder, run, "Preferences", counts, left, notes, name)
    return Exported(folder, counts, dict(left))


def _rewards(run: Run, scores: Mapping[str, Any], n: int) -> Array:
    """(N,) the sum of the scores by the recipe's weights, NaN where one of them is undefined."""
    import yaml

    rounds = (yaml.safe_load(run.recipe_text) or {}).get("rounds") or {}
    weights = {
        str(spec.get("as", spec.get("name"))): float(spec.get("weight", 1.0))
        for spec in rounds.get("score") or [] if isinstance(spec, dict)
    }
    total = np.zeros(n) if scores else np.full(n, np.nan)
    for name, scored in scores.items():
        total = total + weights.get(name, 1.0) * scored.values
    return total


def _pairs(samples: Samples, rewards: Array) -> tuple[Array, Array, Counter[str]]:
    """Rows of the best and the worst candidate of each group, and how many groups gave no pair, by reason."""
    scored = np.flatnonzero(~np.isnan(rewards))
    order = scored[np.lexsort((samples.candidate[scored], -rewards[scored], samples.group[scored]))]
    groups, first, size = np.unique(samples.group[order], return_index=True, return_counts=True)
    best, worst = order[first], order[first + size - 1]
    spread = rewards[best] > rewards[worst]
    body = samples.content
    if samples.kind == "text":
        differ = body[best] != body[worst]
    else:
        differ = (body[best] != body[worst]).reshape(len(best), -1).any(axis=1)
    undefined = Counter({
        "prompts with fewer than two scored candidates":
            len(np.unique(samples.group)) - len(groups) + int((size < 2).sum()),
        "prompts whose candidates all have one reward": int(((size > 1) & ~spread).sum()),
        "prompts whose best and worst candidates are the same": int((spread & ~differ).sum()),
    })
    keep = np.asarray(spread & differ, dtype=bool)
    return best[keep], worst[keep], +undefined


def _pair(samples: Samples, high: int, low: int, rewards: Array) -> dict[str, Any]:
    prompt = samples.prompts[high]
    content: dict[str, Any] = {"prompt": prompt_value(prompt)}
    if prompt.label is not None:
        content["label"] = prompt.label
    if samples.kind == "text":
        both = (completion_value(prompt, str(samples.content[row])) for row in (high, low))
        content |= dict(zip(("chosen", "rejected"), both, strict=True))
    elif samples.kind != "image":
        content |= {"chosen": samples.content[high], "rejected": samples.content[low]}
    return content | {
        "chosen_reward": float(rewards[high]), "rejected_reward": float(rewards[low]),
        "chosen_id": samples.ids[high], "rejected_id": samples.ids[low],
    }


def _write_pictures(path: Path, rows: list[dict[str, Any]], pairs: list[tuple[Samples, Array, Array]]) -> None:
    import pyarrow as pa

    def pictures(parts: Sequence[Samples]) -> Any:
        return pa.chunked_array([chunk for part in parts for chunk in content_column(part)[0].chunks])

    table = pa.Table.from_pylist(rows)
    table = table.add_column(1, "chosen", pictures([samples.take(best) for samples, best, _ in pairs]))
    table = table.add_column(2, "rejected", pictures([samples.take(worst) for samples, _, worst in pairs]))
    write_table(path, with_notes(table, {"table": "export"}))
