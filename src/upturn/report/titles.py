"""Numbers and terms for readers: what a metric means in one sentence, how a number is rounded, what a step is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Better = Literal["higher", "lower", "neither"]
_PLAIN = 3  # significant digits where no interval says how many there are
_MOST_DECIMALS = 6


@dataclass(frozen=True)
class Term:
    """A metric in plain words. ``reference`` is a number in its details that gives the scale, and what it is."""

    title: str
    meaning: str
    better: Better = "neither"
    reference: tuple[str, str] | None = None


METRICS: dict[str, Term] = {
    "reward": Term("Reward", "Mean score given by the judges that the rounds are curated with.", "higher"),
    "gold_reward": Term(
        "Gold reward", "Mean score by a judge that no training sees: where it falls while the reward rises, the reward "
        "is being hacked.", "higher",
    ),
    "reward_accuracy": Term(
        "Reward accuracy", "Share of pairs of candidates that the reward orders as the gold judge does.", "higher",
    ),
    "reward_variance": Term(
        "Reward variance", "Variance of e^reward: how much a choice by reward can still move the model."
    ),
    "label_agreement": Term(
        "Label agreement", "Share of samples that an independent classifier sees as what the prompt asked for.",
        "higher",
    ),
    "coverage": Term(
        "Coverage", "Share of real held-out samples with a generated one nearby: lost coverage is lost variety.",
        "higher", ("if_equal", "samples from the real distribution"),
    ),
    "precision": Term("Precision", "Share of samples that lie where real samples lie: they look real.", "higher"),
    "recall": Term("Recall", "Share of real samples that lie where generated ones lie.", "higher"),
    "density": Term("Density", "How many real neighbourhoods a sample lies in; 1 is what real samples give.", "higher"),
    "frechet": Term(
        "Fréchet distance", "Distance between the clouds of generated and real samples, by their mean and spread.",
        "lower", ("floor", "real training data"),
    ),
    "vendi": Term(
        "Vendi score", "How many different samples there are, in effect: copies count once.", "higher",
        ("real", "as many real samples"),
    ),
    "memorisation": Term(
        "Memorisation", "Share of samples nearer to a training sample than unseen real ones nearly ever are.", "lower",
        ("baseline", "unseen real samples"),
    ),
    "nearest_real": Term(
        "Distance to the nearest real sample", "Mean distance to the closest training sample: near 0 are copies, far "
        "out is nonsense.", "neither", ("held_out", "unseen real samples"),
    ),
    "class_shares": Term("Largest class", "Share of the most frequent class among the samples."),
    "class_entropy": Term("Class evenness", "How evenly samples fall into the classes: 1 is even, 0 is one class.",
                          "higher"),
    "perplexity": Term(
        "Perplexity", "How surprised the model is by real text that it never trained on, per token.", "lower"
    ),
    "held_out_loss": Term("Held-out loss", "The training loss on real samples that were never trained on.", "lower"),
    "balanced_accuracy": Term(
        "Balanced accuracy", "Share of samples that a classifier sees as what the prompt asked for, every class "
        "counted alike.", "higher",
    ),
    "caption_alignment": Term(
        "Caption alignment", "How well pictures fit the words they were asked for in, to a model that reads both.",
        "higher",
    ),
    "prompt_responsiveness": Term(
        "Prompt responsiveness", "Share of the differences between pictures that the prompts account for: 0 where they "
        "are ignored.", "higher",
    ),
    "kid": Term("Kernel distance", "Distance between the clouds of generated and real samples, without bias at small "
                "numbers.", "lower"),
    "verifier_accuracy": Term("Accuracy", "Share of answers that the verifier finds right.", "higher"),
    "distinct": Term("Distinct phrases", "Share of short word sequences that are not repeats: variety.", "higher"),
    "fld": Term("Feature likelihood divergence", "How much less likely the samples make unseen real data than real "
                "samples would: 0 is as good.", "lower"),
    "frechet_unbiased": Term("Fréchet distance, unbiased", "Distance between the clouds of generated and real samples, "
                             "as it would be of infinitely many.", "lower"),
    "authenticity": Term("Authenticity", "Share of samples that are no noisy copies of training samples.", "higher",
                         ("held_out", "unseen real samples")),
    "copying": Term("Copying test", "Whether samples lie nearer to training data than unseen real data does: far below "
                    "0 they are copies."),
    "classifier_two_sample": Term("Told from real", "How often a classifier tells a sample from a real one: 0.5 is "
                                  "chance.", "lower"),
    "mauve": Term("MAUVE", "How well the samples cover the real data, and only it: 1 is alike.", "higher",
                  ("floor", "real training data")),
    "wasserstein": Term("Wasserstein distance", "How far samples must be moved to become the real ones.", "lower",
                        ("floor", "real training data")),
    "sliced_wasserstein": Term("Sliced Wasserstein distance", "How far samples must be moved to become the real ones, "
                               "along random lines.", "lower", ("floor", "real training data")),
    "self_bleu": Term("Self-BLEU", "How much samples resemble each other: 1 is all alike.", "lower"),
    "zipf": Term("Zipf exponent", "How fast words become rare: about 1 in natural text.", "neither",
                 ("real", "held-out text")),
    "tail_coverage": Term("Rare words kept", "Share of the rare words of unseen text that the samples still use.",
                          "higher", ("if_equal", "as much real text")),
    "pit": Term("Calibration error", "How far its probabilities are from coming true on unseen points.", "lower",
                ("by_chance", "a right model")),
}

STEPS: dict[str, str] = {
    "sample": "sampling", "score": "scoring", "curate": "curation", "mix": "mixing", "train": "training",
    "evaluate": "evaluation", "checkpoints": "measuring checkpoints", "gate": "gate", "load": "loading data",
    "provenance": "searching the real data for synthetic samples", "filter": "filtering real data",
    "score_words": "finding score words", "fit": "fitting helper models", "judge": "labelling for helper models",
    "vote": "voting", "edit": "editing", "base": "linking",
}


def term(name: str, spec: Mapping[str, Any] | None = None) -> Term:
    """The words of a metric of metrics.json; ``spec`` is its part of the recipe, which may have given it another name.

    ``a/b`` is the metric b of the evaluation a. A metric that is not known here keeps its name and has no meaning.
    """
    group, _, last = name.rpartition("/")
    component = str(spec["name"]) if spec is not None else last
    known = METRICS.get(component)
    if known is None:
        return Term(name, "")
    tries = int((spec or {}).get("k", 1))
    if component == "verifier_accuracy" and tries > 1:
        meaning = f"Share of prompts for which at least one of {tries} answers is right."
        known = Term(f"Solved within {tries} tries", meaning, known.better)
    if last != component:
        return replace(known, title=name)
    return replace(known, title=f"{known.title} ({group})") if group else known


def decimals(spread: float) -> int:
    """Digits after the point so that ``spread`` keeps two that count."""
    if not math.isfinite(spread) or spread <= 0:
        return _PLAIN
    return min(max(1 - math.floor(math.log10(spread)), 0), _MOST_DECIMALS)


def number(value: float | None, places: int | None = None) -> str:
    """Rounded, with a true minus and thin groups of thousands; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if places is None:
        size = abs(value)
        if size and (size < 1e-4 or size >= 1e7):
            return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
        places = max(_PLAIN - 1 - math.floor(math.log10(size)), 0) if size else 0
    text = f"{value:,.{places}f}".replace(",", "\u202f").replace("-", "−")
    return text.removeprefix("−") if text.strip("−0.") == "" else text


def places_of(measured: Mapping[str, Any]) -> int | None:
    """How many decimals a measurement deserves: by the half width of its interval."""
    value, low, high = (measured.get(part) for part in ("value", "low", "high"))
    if value is None or low is None or high is None or high <= low:
        return None
    return decimals((high - low) / 2)


def interval(measured: Mapping[str, Any] | None) -> str:
    """``0.93 [0.91, 0.95]``; a dash where it was not measured."""
    if measured is None or measured.get("value") is None:
        return "–"
    places = places_of(measured)
    value = number(measured["value"], places)
    if measured.get("low") is None or measured.get("high") is None:
        return value
    return f"{value} [{number(measured['low'], places)}, {number(measured['high'], places)}]"


def signed(value: float, places: int) -> str:
    text = number(value, places)
    return text if text.startswith("−") or value == 0 else f"+{text}"


def share(value: float | None) -> str:
    """As a percentage without decimals, except near the ends."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if 0 < value < 0.01 or 0.99 < value < 1 else f"{100 * value:.0f}%"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def usd(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 0.1 else f"${amount:.4f}"


def listed(items: list[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def plural(count: int, word: str) -> str:
    return f"{number(count, 0)} {word}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Control characters as their pictures (U+2400 …), so that nothing a model writes is invisible or breaks a page."""
    return text.translate(_CONTROLS)


_CONTROLS: dict[int, int] = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}, 0x7F: 0x2421,
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),  # marks that turn the direction of text
}
