"""Autoguidance by an earlier checkpoint: KID on digits and emoji; guide and weight are chosen on other images.

Digits: chosen on training images, measured on held-out ones, with the referee's features. Emoji: of 182 held-out images
half the names, with their variants, are used to choose and the other half to measure, because names in the training
data are drawn differently. The features are those of the dual encoder, as CLIP's are used: for a classifier of eight
categories the unguided images are already nearer to the real ones of the same names (KID 12) than other real ones are
(90), so no improvement is possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from common import run, say
from emoji import EMOJI, run_of

from upturn import seeds
from upturn.config import components, recipe
from upturn.data.sources._variants import group_names
from upturn.loop.assemble import assemble
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.observer import Observer
from upturn.statistics.intervals import subsample_masks
from upturn.store.run import Run
from upturn.types import Array, Samples


@dataclass(frozen=True)
class Case:
    """``steps`` of the sampler; ``tried`` samples for each guide and weight, ``judged`` for the comparison."""

    stage: str
    epochs: tuple[int, ...]
    weights: tuple[float, ...]
    steps: int
    tried: int
    judged: int
    features: str = "referee"  # whose KID


class Drawn:
    """Samples of a stage's model, with equal noise for every guide."""

    def __init__(self, done: Run, case: Case) -> None:
        parts = assemble(recipe.parse(done.recipe_text, "recipe.yaml"))
        self.context, self.case = RunContext(done, parts, Observer()), case
        self.policy = self.context.policy(f"rounds/000/{case.stage}")
        self.seen = components.make("feature", {"name": "classifier", "model": case.features}, "bench")

    def samples(self, of: Samples, count: int, key: str, guide: str = "", weight: float = 1.0) -> Samples:
        spread = max(1, len(of) // count)  # data is often sorted by class
        prompts = [of.prompts[i * spread % len(of)] for i in range(count)]
        settings = components.checked(
            self.policy.Sampling, {"steps": self.case.steps, "guide": guide, "guidance": weight}, "bench", "sampling")
        keys = prompt_keys(seeds.key("autoguidance", key), prompts, 1)
        return self.context.draw(self.policy, prompts, keys, settings)

    def features(self, samples: Samples) -> Array:
        """Embeds again: ``tools.embed`` caches by name, and samples of one noise have equal names under any guide."""
        return np.asarray(self.seen.embed(samples, self.context.tools), dtype=np.float64)


def differences(before: Array, after: Array, real: Array) -> tuple[float, Callable[[Array], Array]]:
    """KID of ``before`` less that of ``after``, (N, D) of one noise each; and the same of subsets, (R, N) bool -> (R,).

    The real images' own term is the same in both, so it falls out.
    """
    own = [_kernel(made, made) for made in (before, after)]
    across = [_kernel(made, real).mean(axis=1) for made in (before, after)]

    def at(masks: Array) -> Array:
        chosen = masks.astype(np.float64)
        n = chosen.sum(axis=1)

        def of(side: int) -> Array:
            pairs = np.einsum("ri,ri->r", chosen @ own[side], chosen) - chosen @ np.diag(own[side])
            return pairs / (n * (n - 1)) - 2 * (chosen @ across[side]) / n

        return of(0) - of(1)

    return float(at(np.ones((1, len(before)), dtype=bool))[0]), at


def _kernel(a: Array, b: Array) -> Array:
    return (a @ b.T / a.shape[1] + 1) ** 3


def improvement(name: str, drawn: Drawn, choosing: Samples, judging: Samples) -> tuple[float, float, float]:
    """KID on ``judging`` without a guide less that with the one that was best on ``choosing``, and its 95% interval."""
    case, real = drawn.case, drawn.features(choosing)
    found: dict[tuple[str, float], float] = {}
    plain = drawn.features(drawn.samples(choosing, case.tried, "chosen"))
    for epoch, weight in product(case.epochs, case.weights):
        guided = drawn.features(drawn.samples(choosing, case.tried, "chosen", f"{case.stage}@{epoch}", weight))
        gain, _ = differences(plain, guided, real)
        found[f"{case.stage}@{epoch}", weight] = gain
        say(f"{name}: KID falls on the choosing images, guide after epoch {epoch}, weight {weight}", f"{gain:+.5g}")
    guide, weight = max(found, key=lambda tried: found[tried])
    say(f"{name}: chosen", (guide, weight))
    before, after = (
        drawn.features(drawn.samples(judging, case.judged, "judged", *led)) for led in (("", 1.0), (guide, weight))
    )
    gain, at = differences(before, after, drawn.features(judging))
    low, high = subsample_masks(at, case.judged, seeds.key("autoguidance", name))
    say(f"{name}: KID on {len(judging)} other images falls by (of {case.judged} samples, one noise)",
        f"{gain:.5g} ({low:.5g} to {high:.5g})")
    return gain, low, high


def halves(samples: Samples) -> tuple[Samples, Samples]:
    """Every second name of each category here, the others there; a name's variants with it."""
    names = group_names([str(prompt.fields["name"]) for prompt in samples.prompts])
    turn: dict[tuple[int, str], int] = {}
    seen: Counter[int] = Counter()
    for label, name in zip(samples.labels.tolist(), names, strict=True):
        if (label, name) not in turn:
            turn[label, name] = seen[label] % 2
            seen[label] += 1
    side = np.array([turn[label, name] for label, name in zip(samples.labels.tolist(), names, strict=True)])
    return samples.take(side == 0), samples.take(side == 1)


@pytest.mark.timeout(3600)
def test_an_earlier_checkpoint_makes_digits_better() -> None:
    done, _ = run("autoguidance-digits", "digits.yaml", "rounds=null", "gate=null", "evaluate.metrics=[coverage]")
    case = Case("pretrain", (5, 15, 30), (1.25, 1.5, 2.0), 20, 2000, 4000)
    drawn = Drawn(done, case)
    assert improvement("digits", drawn, drawn.context.tools.train, drawn.context.tools.held_out)[1] > 0


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not EMOJI.is_dir(), reason="the emoji images are not installed")
def test_an_earlier_checkpoint_makes_emoji_better() -> None:
    case = Case("train", (10, 20), (1.5, 2.0, 3.0), 20, 186, 356, features="reader")
    drawn = Drawn(run_of("emoji-captions.yaml", "template", "empty"), case)
    assert improvement("emoji", drawn, *halves(drawn.context.tools.held_out))[1] > 0
