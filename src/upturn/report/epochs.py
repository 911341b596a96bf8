"""What a training did on its way: quality by epoch, where it stops to help, how steady the pictures are, the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upturn.report import curves, titles
from upturn.report.facts import Column, Facts
from upturn.report.rounds import Card
from upturn.store import files

FILE = "epochs.json"
_RULE = (
    "The plateau is the earliest checkpoint that is not worse than the best beyond chance: one-sided tests at 5% in "
    "all, paired by prompt and noise where the metric has a value for each sample, else by intervals. It says what "
    "these weights are worth, not what training again with another seed would give."
)


@dataclass(frozen=True)
class Cost:
    """Of the training of one unit, its evaluations left out; None where it was not recorded."""

    epochs: float
    seconds: float
    samples: int  # of the mixture, each seen once an epoch
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
class Progress:
    """One training: a column for each checkpoint, in order of epoch."""

    title: str
    columns: tuple[Column, ...]
    sentences: tuple[str, ...]
    cards: tuple[Card, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]  # metric, value at each checkpoint, the plateau
    prices: tuple[str, ...]
    steady: tuple[tuple[str, str, str], ...]  # from where to where, ratio with interval, share flipped
    rule: str = _RULE


def by_epoch(facts: Facts) -> list[Progress]:
    """Of every training whose checkpoints were measured."""
    found = [progress(facts, training.title, training.unit) for training in facts.trainings]
    return [one for one in found if one is not None]


def cost(facts: Facts, unit: str) -> Cost | None:
    info, counts = facts.info(unit, "train"), facts.counts(unit, "mix")
    if not info.get("training_seconds") or not info.get("epochs"):
        return None
    seen = counts.get("real", 0) + counts.get("synthetic", 0)
    return Cost(float(info["epochs"]), float(info["training_seconds"]), seen, facts.recipe.usd_per_hour)


def progress(facts: Facts, title: str, unit: str) -> Progress | None:
    path = facts.path(unit, FILE)
    if path is None:
        return None
    said: Mapping[str, Any] = files.read_json(path)
    columns = tuple(
        Column(f"{unit}@{row['epoch']:g}", f"epoch {row['epoch']:g}", f"{row['epoch']:g}", None, "stage", m)
        for row in said["epochs"] if (m := row["metrics"]) is not None
    )
    names = [name for name in facts.recipe.metric_names() if any(name in column.metrics for column in columns)]
    spent = cost(facts, unit)
    steady = tuple(
        (f"{row['from']:g} → {row['to']:g}", titles.interval(_ratio(row)), titles.share(row["flipped"]))
        for row in said["consistency"] or ()
    )
    return Progress(
        title, columns, tuple(_sentences(facts, said, spent)), tuple(_cards(facts, said, columns, names)),
        tuple(_row(name, columns, said["plateau"].get(name), facts) for name in names),
        tuple(spent.until(row["epoch"]) for row in said["epochs"]) if spent is not None else (), steady,
    )


def _ratio(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": row["ratio"], "low": row["low"], "high": row["high"]}


def _row(
    name: str, columns: Sequence[Column], said: Mapping[str, Any] | None, facts: Facts
) -> tuple[str, tuple[str, ...], str]:
    title = titles.term(name, facts.specs.get(name)).title
    where = "–" if said is None else f"{said['plateau']:g}"
    return title, tuple(titles.interval(column.metrics.get(name)) for column in columns), where


def _cards(
    facts: Facts, said: Mapping[str, Any], columns: Sequence[Column], names: Sequence[str]
) -> list[Card]:
    cards = []
    for name in names:
        term = titles.term(name, facts.specs.get(name))
        found = said["plateau"].get(name)
        ring = next((c for c in columns if found is not None and c.short == f"{found['plateau']:g}"), None)
        figure = curves.metric(name, columns, ring, [])
        if figure is not None:
            direction = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[term.better]
            cards.append(Card(term.title, term.meaning, direction, figure, _note(found, columns[0].short)))
    return cards


def _note(found: Mapping[str, Any] | None, first: str) -> tuple[str, ...]:
    if found is None:
        return ()
    if f"{found['plateau']:g}" == first:
        return (f"Ring: no checkpoint is better than the first, epoch {first}, beyond chance.",)
    if found["plateau"] == found["best"]:
        return (f"Ring: epoch {found['best']:g} is the best, and no earlier one is as good.",)
    how = "by pairs" if found["how"] == "paired" else "by intervals"
    return (f"Ring: epoch {found['plateau']:g} cannot be told from the best, epoch {found['best']:g} ({how}).",)


def _sentences(facts: Facts, said: Mapping[str, Any], spent: Cost | None) -> list[str]:
    name = said["headline"]
    out = []
    if name is not None:
        found, last = said["plateau"][name], said["epochs"][-1]["epoch"]
        term = titles.term(name, facts.specs.get(name)).title
        known = [(row["epoch"], row["metrics"].get(name)) for row in said["epochs"]]
        values = {epoch: titles.interval(measured) for epoch, measured in known}
        out.append(
            f"{term}: the cheapest checkpoint within noise of the best is epoch {found['plateau']:g} "
            f"({values[found['plateau']]}); " + _best(found, values, last)
        )
        if spent is not None and found["plateau"] < last:
            share = f"{titles.share(found['plateau'] / last)} of it" if last else ""
            to_there, to_the_end = spent.until(found["plateau"]), spent.until(last)
            out.append(f"Training to there costs {to_there}, to the end {to_the_end}: {share}.")
        worse = [
            titles.term(other, facts.specs.get(other)).title for other, row in said["plateau"].items()
            if other != name and found["plateau"] not in row["within"]
        ]
        if worse:
            out.append(f"There, {titles.listed(worse)} {'is' if len(worse) == 1 else 'are'} worse than at "
                       f"{'its' if len(worse) == 1 else 'their'} own best, beyond chance.")
    if spent is not None:
        price = f" and {titles.usd(spent.usd / spent.epochs)}" if spent.usd_per_hour else ""
        out.append(f"An epoch takes {titles.duration(spent.per_epoch)}{price}, at {titles.number(spent.rate)} samples "
                   f"a second; all {spent.epochs:g} of them {spent.until(spent.epochs)}.")
    return out


def _best(found: Mapping[str, Any], values: Mapping[float, str], last: float) -> str:
    if found["plateau"] == found["best"]:
        return "it is the best itself." if found["best"] < last else "it is the last: training longer may still help."
    loss = found["loss"]
    gap = titles.interval({"value": abs(loss["value"]), "low": None, "high": None})
    ends = [abs(end) for end in (loss["low"], loss["high"]) if end is not None]
    most = f", at most {titles.number(max(ends))} with 97.5% confidence" if ends else ""
    return f"the best is epoch {found['best']:g} ({values[found['best']]}), a difference of {gap}{most}."
