"""A training by epoch: its metrics, the plateau, how much the images still change, and the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upturn.report import curves, titles
from upturn.report.cards import Card, direction
from upturn.report.facts import Column, Facts
from upturn.store import files

FILE = "epochs.json"
RULE = (
    "The plateau is the earliest checkpoint that is not worse than the best beyond chance: one-sided tests at 5% in "
    "all, paired by prompt and noise if the metric has a value for each sample, else by intervals. It holds for these "
    "weights; another training seed may have another plateau."
)


@dataclass(frozen=True)
class TrainingCost:
    """Of the training of one unit, without its evaluations."""

    epochs: float
    seconds: float
    samples: int  # of the mixture, each used once per epoch
    usd_per_hour: float

    @property
    def usd(self) -> float:
        return self.seconds / 3600 * self.usd_per_hour

    @property
    def per_epoch(self) -> float:
        return self.seconds / self.epochs

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples * self.epochs / self.seconds

    def until(self, epoch: float) -> str:
        """Time and price of training up to an epoch."""
        seconds = self.per_epoch * epoch
        price = f", {titles.usd(seconds / 3600 * self.usd_per_hour)}" if self.usd_per_hour else ""
        return f"{titles.duration(seconds)}{price}"


@dataclass(frozen=True)
class EpochProgress:
    """One training: a column for each checkpoint, in order of epoch."""

    title: str
    columns: tuple[Column, ...]
    sentences: tuple[str, ...]
    cards: tuple[Card, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]  # metric, value at each checkpoint, the plateau
    prices: tuple[str, ...]
    steady: tuple[tuple[str, str, str], ...]  # epochs, ratio with interval, share flipped


def by_epoch(facts: Facts) -> list[EpochProgress]:
    """Of every training whose checkpoints were evaluated."""
    found = [progress(facts, training.title, training.unit) for training in facts.trainings]
    return [one for one in found if one is not None]


def cost(facts: Facts, unit: str) -> TrainingCost | None:
    info, counts = facts.info(unit, "train"), facts.counts(unit, "mix")
    if not info.get("training_seconds") or not info.get("epochs"):
        return None
    samples = counts.get("real", 0) + counts.get("synthetic", 0)
    return TrainingCost(float(info["epochs"]), float(info["training_seconds"]), samples, facts.recipe.usd_per_hour)


def progress(facts: Facts, title: str, unit: str) -> EpochProgress | None:
    path = facts.path(unit, FILE)
    if path is None:
        return None
    stored: Mapping[str, Any] = files.read_json(path)
    columns = tuple(
        Column(f"{unit}@{row['epoch']:g}", f"epoch {row['epoch']:g}", f"{row['epoch']:g}", None, "stage", m)
        for row in stored["epochs"] if (m := row["metrics"]) is not None
    )
    names = [name for name in facts.recipe.metric_names() if any(name in column.metrics for column in columns)]
    spent = cost(facts, unit)
    steady = tuple(
        (f"{row['from']:g} → {row['to']:g}", titles.interval(_ratio(row)), titles.share(row["flipped"]))
        for row in stored["consistency"] or ()
    )
    return EpochProgress(
        title, columns, tuple(_sentences(facts, stored, spent)), tuple(_cards(facts, stored, columns, names)),
        tuple(_row(name, columns, stored["plateau"].get(name), facts) for name in names),
        tuple(spent.until(row["epoch"]) for row in stored["epochs"]) if spent is not None else (), steady,
    )


def _ratio(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": row["ratio"], "low": row["low"], "high": row["high"]}


def _row(
    name: str, columns: Sequence[Column], plateau: Mapping[str, Any] | None, facts: Facts
) -> tuple[str, tuple[str, ...], str]:
    title = titles.term(name, facts.specs.get(name)).title
    where = "–" if plateau is None else f"{plateau['plateau']:g}"
    return title, tuple(titles.interval(column.metrics.get(name)) for column in columns), where


def _cards(
    facts: Facts, stored: Mapping[str, Any], columns: Sequence[Column], names: Sequence[str]
) -> list[Card]:
    cards = []
    for name in names:
        term = titles.term(name, facts.specs.get(name))
        found = stored["plateau"].get(name)
        ring = next((c for c in columns if found is not None and c.short == f"{found['plateau']:g}"), None)
        figure = curves.metric(name, columns, ring, [])
        if figure is not None:
            cards.append(
                Card(term.title, term.meaning, direction(term.better), figure, _note(found, columns[0].short))
            )
    return cards


def _note(found: Mapping[str, Any] | None, first: str) -> tuple[str, ...]:
    if found is None:
        return ()
    if f"{found['plateau']:g}" == first:
        return (f"Ring: no checkpoint is better than the first, epoch {first}, beyond chance.",)
    if found["plateau"] == found["best"]:
        return (f"Ring: epoch {found['best']:g} is the best, and every earlier one is worse.",)
    how = "paired test" if found["how"] == "paired" else "intervals"
    plateau, best = f"{found['plateau']:g}", f"{found['best']:g}"
    return (f"Ring: epoch {plateau} is not worse than the best, epoch {best}, beyond chance ({how}).",)


def _sentences(facts: Facts, stored: Mapping[str, Any], spent: TrainingCost | None) -> list[str]:
    name = stored["headline"]
    out = []
    if name is not None:
        found, last = stored["plateau"][name], stored["epochs"][-1]["epoch"]
        term = titles.term(name, facts.specs.get(name)).title
        known = [(row["epoch"], row["metrics"].get(name)) for row in stored["epochs"]]
        values = {epoch: titles.interval(measured) for epoch, measured in known}
        out.append(
            f"{term}: the earliest checkpoint that is not worse than the best beyond chance is epoch "
            f"{found['plateau']:g} ({values[found['plateau']]}); " + _best(found, values, last)
        )
        if spent is not None and found["plateau"] < last:
            share = titles.share(found["plateau"] / last) if last else ""
            to_there, to_the_end = spent.until(found["plateau"]), spent.until(last)
            out.append(f"Training up to it takes {to_there}, of {to_the_end} in all: {share}.")
        worse = [
            titles.term(other, facts.specs.get(other)).title for other, row in stored["plateau"].items()
            if other != name and found["plateau"] not in row["within"]
        ]
        if worse:
            out.append(f"At that epoch, {titles.listed(worse)} {'is' if len(worse) == 1 else 'are'} worse than at "
                       f"{'its' if len(worse) == 1 else 'their'} own best, beyond chance.")
    if spent is not None:
        price = f" and {titles.usd(spent.usd / spent.epochs)}" if spent.usd_per_hour else ""
        out.append(f"An epoch takes {titles.duration(spent.per_epoch)}{price}, at {titles.number(spent.rate)} samples "
                   f"a second; all {spent.epochs:g} epochs take {spent.until(spent.epochs)}.")
    return out


def _best(found: Mapping[str, Any], values: Mapping[float, str], last: float) -> str:
    if found["plateau"] == found["best"]:
        return "it is the best." if found["best"] < last else "it is the last one, so longer training may still help."
    loss = found["loss"]
    gap = titles.interval({"value": abs(loss["value"]), "low": None, "high": None})
    ends = [abs(end) for end in (loss["low"], loss["high"]) if end is not None]
    most = f", at most {titles.number(max(ends))} with 97.5% confidence" if ends else ""
    return f"the best is epoch {found['best']:g} ({values[found['best']]}), a difference of {gap}{most}."
