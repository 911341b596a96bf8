"""Images sampled for a rare class, selected by their value to a classifier, or at random.

The shipped recipe, and a control that differs in one line: as many images, selected at random. Both run without a gate,
so that both train on what they selected. Then the selected images themselves: a student trained on the real images and
some of the first round's, ten times each.
"""

from __future__ import annotations

import numpy as np
import pytest
from common import ROOT, run, say
from scipy import stats

from upturn import seeds
from upturn.config import recipe
from upturn.embeddings.inference import forwarded
from upturn.loop.assemble import assemble
from upturn.runs.status import RunStatus
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.training.standalone import trained
from upturn.types import Array, Samples, concatenate

SEEDS = [0, 1]
ARMS = {"chosen by feedback": (), "chosen by chance": ("rounds.curate={name: subset, count: 200}",)}
REPEATS = 10


def arm(seed: int, name: str) -> tuple[Run, RunStatus]:
    return run(f"rare-{name.split()[-1]}-{seed}", "digits-rare.yaml", f"seed={seed}", "gate=null", *ARMS[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_synthetic_images_for_a_rare_class(seed: int) -> None:
    for name in ARMS:
        _, seen = arm(seed, name)
        for r in seen.rounds:
            found = r.metrics["rare/downstream_accuracy"]
            details = found["details"]
            rare = details["recall"]["1"]
            at = f"seed {seed}, {name}, round {r.round}"
            say(f"{at}: recall of the rare class without, with", f"{rare['without']:.3f}, {rare['with']:.3f}, "
                f"difference {_between(rare['difference'])}")
            say(f"{at}: balanced accuracy without, with", f"{details['without']['value']:.4f}, {found['value']:.4f}, "
                f"difference {_between(details['difference'])}")
            say(f"{at}: rare images of the requested class", f"{r.metrics['rare/label_agreement']['value']:.3f}")
        last = seen.rounds[-1].metrics["rare/downstream_accuracy"]["details"]["recall"]["1"]["difference"]
        assert last["low"] > 0, "sampled images no longer help the rare class"


def test_the_gated_recipe() -> None:
    _, seen = run("rare-gated-0", "digits-rare.yaml")
    for r in seen.rounds[1:]:
        assert r.gate is not None
        say(f"gate, round {r.round}", f"{r.gate['decision']}: {r.gate['reason']}")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_chosen_pictures_themselves(seed: int) -> None:
    """The same number of the same candidates, the same beginnings of the student; intervals are over trainings."""
    done, _ = arm(seed, "chosen by feedback")
    unit = done.unit("rounds/001")
    made = parquet_tables.read_samples(unit / "samples.parquet")
    kept = np.flatnonzero(parquet_tables.read_selections(unit / "selections.parquet", made.ids)[-1].kept)
    real = parquet_tables.read_samples(done.unit("data") / "samples.parquet")
    split = real.fields["split"].astype(str)
    train, held_out = real.take(split == "train"), real.take(split == "held_out")
    sizes = np.bincount(train.labels)
    room = int(sizes.max() - sizes[1])
    found: dict[str, list[tuple[float, float]]] = {"without": [], "by chance": [], "by feedback": []}
    for repeat in range(REPEATS):
        rng = np.random.default_rng(repeat)
        rows = {"without": np.zeros(0, dtype=int), "by chance": rng.permutation(len(made))[:room],
                "by feedback": rng.permutation(kept)[:room]}
        for name, some in rows.items():
            found[name].append(_student(concatenate([train, made.take(some)]), held_out, repeat))
    for what, place in (("recall of the rare class", 0), ("balanced accuracy", 1)):
        each = {name: np.array(rows)[:, place] for name, rows in found.items()}
        say(f"seed {seed}, {room} images: {what}", ", ".join(f"{name} {a.mean():.4f}" for name, a in each.items()))
        for one, other in (("by chance", "without"), ("by feedback", "by chance")):
            say(f"seed {seed}: {what}, {one} less {other}", _paired(each[one] - each[other]))


def _student(samples: Samples, held_out: Samples, repeat: int) -> tuple[float, float]:
    asked = recipe.load(ROOT / "recipes" / "digits-rare.yaml")
    spec = asked.models["student"].fit
    assert spec is not None
    model = trained(assemble(asked).model("student"), samples, spec, seeds.key("build", repeat),
                    seeds.key("train", repeat), "bench")
    right = forwarded(model, "student", held_out, "logits").argmax(axis=1) == held_out.labels
    shares = [float(right[held_out.labels == c].mean()) for c in range(10)]
    return shares[1], float(np.mean(shares))


def _between(found: dict[str, float]) -> str:
    return f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def _paired(gaps: Array) -> str:
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return f"{gaps.mean():+.4f} ({gaps.mean() - half:+.4f} to {gaps.mean() + half:+.4f})"
