"""The contract of each kind of component, over every component that ships; one example for each is in ``EXAMPLES``.

A component without an example fails, with what to add. The properties are those of every component of its kind; the
numbers of a single component are tested in its own file.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from helpers import metric_cases
from upturn import protocols
from upturn.config import components
from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.diffusion.denoiser import Formulation
from upturn.errors import UserError
from upturn.lab.experiment import Experiment
from upturn.objectives.unpaired import Unpaired
from upturn.report.section import Section
from upturn.types import Array, Batch, Outputs, Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

Fields = Mapping[str, Any]
FROM_SCRATCH: Fields = {"config": {"model_type": "llama"}}
FOLDER: Fields = {"folder": "somewhere"}

# kind -> name -> the fields that the component needs to be created: {} where it has a default for each
EXAMPLES: dict[str, dict[str, Fields]] = {
    "source": {
        "corpus": {"paths": ["a.txt"]}, "digits": {}, "equations": {}, "hub": {"path": "owner/name", "text": "text"},
        "imagefolder": {"path": "images"}, "jsonl": {"path": "a.jsonl", "text": "text"},
        "parquet": {"path": "a.parquet", "text": "text"}, "points": {}, "preferences": {"path": "a.jsonl"},
    },
    "caption": {
        "empty": {}, "file": {"path": "captions.jsonl"}, "fixed": {"text": "a digit"}, "generated": FOLDER,
        "quality": {"of": {"name": "fixed", "text": "a digit"}, "by": "rating", "words": {"good": "good quality"}},
        "tags": {"column": "tags"}, "template": {"template": "the digit ${label}"},
    },
    "mixing_policy": {"accumulate": {}, "accumulate_subsample": {}, "fresh": {}, "replace": {}},
    "feature": {
        "classifier": {}, "encoder": FOLDER, "inception": {"weights": "inception.safetensors"}, "pixels": {},
        "points": {},
    },
    "formulation": {"edm": {}, "epsilon": {}, "flow": {}, "shifted_flow": {}, "velocity": {}},
    "network": {"mlp": {}, "unet": {}},
    "sampler": {"ancestral": {}, "churn": {}, "dpmpp_2m": {}, "euler": {}, "heun": {}},
    "model": {
        "causal_lm": FROM_SCRATCH, "classifier": {}, "dual_encoder": {"config": {}}, "gaussian": {}, "pixels": {},
        "points": {}, "reward_image": {}, "reward_text": FROM_SCRATCH, "text_classifier": FROM_SCRATCH,
        "text_to_image": {"config": {}},
    },
    "adapter": {
        "adalora": {}, "alora": {}, "dora": {}, "dylora": {}, "full": {}, "loha": {}, "lokr": {}, "lora": {},
        "sora": {},
        "textual_inversion": {"tokens": {"<my-cat>": "cat"}},
    },
    "objective": {
        "attributes": {}, "bradley_terry": {}, "contrastive": {}, "davidson": {}, "dpo": {}, "graded": {}, "grpo": {},
        "hinge": {}, "ipo": {}, "kto": {}, "likelihood": {}, "listwise": {}, "mdloo": {}, "orpo": {},
        "plackett_luce": {}, "ppo": {}, "rao_kupper": {}, "reward_weighted": {}, "rloo": {}, "rpo": {}, "simpo": {},
        "unpaired": {}, "vague_raters": {},
    },
    "scorer": {
        "aesthetic": FOLDER | {"head": "head.safetensors"}, "alignment": FOLDER, "classifier": {},
        "closeness": {"to": [0.0, 0.0]}, "coverage_gain": {}, "downstream_gain": {}, "ensemble": {"models": ["a", "b"]},
        "equations": {}, "exact_match": {}, "final_answer": {}, "fld_gain": {}, "ink": {},
        "json_schema": {"schema": {"type": "object"}}, "length": {}, "programs": {}, "regex_match": {"pattern": "a"},
        "reward_model": {}, "safety": FOLDER | {"unsafe": ["nsfw"]},
        "simulated_people": {"taste": {"name": "closeness", "to": [0.0, 0.0]}},
        "zero_shot_safety": FOLDER | {"unsafe": ["blood"], "safe": ["a meadow"]},
    },
    "curator": {
        "best_of_n": {}, "choice": {}, "deduplicate": {"distance": 0.5}, "picked": {}, "subset": {"count": 3},
        "threshold": {"at_least": 0.0}, "top_fraction": {"fraction": 0.3},
    },
    "metric": {
        "authenticity": {}, "balanced_accuracy": {}, "caption_alignment": FOLDER, "class_entropy": {},
        "class_shares": {}, "classifier_two_sample": {}, "copying": {}, "coverage": {}, "density": {}, "distinct": {},
        "downstream_accuracy": {}, "fld": {}, "frechet": {}, "frechet_unbiased": {},
        "gold_reward": {"scorer": {"name": "closeness", "to": [0.0, 0.0]}}, "held_out_loss": {}, "kid": {},
        "label_agreement": {}, "mauve": {}, "memorisation": {}, "nearest_real": {}, "per_class": {"metric": "coverage"},
        "perplexity": {}, "pit": {}, "precision": {}, "preference_accuracy": {}, "prompt_responsiveness": {},
        "recall": {}, "reward": {},
        "reward_accuracy": {"scorer": {"name": "closeness", "to": [0.0, 0.0]}}, "reward_variance": {}, "self_bleu": {},
        "sliced_wasserstein": {}, "tail_coverage": {}, "vendi": {}, "verifier_accuracy": {}, "wasserstein": {},
        "zipf": {},
    },
    "optimizer": {"adamw": {}, "adamw_8bit": {}},
    "schedule": {"constant": {}, "cosine": {}, "linear": {}},
    "section": {
        "class_balance": {}, "data_mixture": {}, "human_feedback": {}, "kept_and_dropped": {}, "loss_curves": {},
        "metric_charts": {}, "model_lineage": {}, "nearest_samples": {}, "recipe_summary": {}, "reward_hacking": {},
        "round_certificates": {}, "round_decisions": {}, "run_verdict": {}, "sample_gallery": {}, "time_and_cost": {},
        "stage_changes": {}, "training_progress": {},
    },
    "vote_mode": {"compare": {}, "edit": {}, "pick": {}, "rank": {}, "rate": {}},
    "experiment": {
        "categorical": {}, "curation": {}, "digits": {}, "downstream": {}, "gaussian": {}, "guidance": {}, "kde": {},
        "mixture": {}, "points": {}, "regression": {}, "sampling": {}, "text": {}, "verifier": {},
    },
}

# kind -> the base class that its components inherit; kinds without one are checked against the methods of METHODS
BASES: dict[str, type] = {
    "source": protocols.Source, "caption": protocols.Caption, "feature": protocols.Features,
    "mixing_policy": BaseMixingPolicy, "model": protocols.Trainable, "adapter": protocols.Adapter,
    "objective": protocols.Objective, "scorer": protocols.Scorer, "curator": protocols.Curator,
    "metric": protocols.Metric, "experiment": Experiment,
    "section": Section,
}
METHODS: dict[str, type] = {
    "formulation": Formulation, "optimizer": protocols.OptimizerFactory, "schedule": protocols.Schedule,
}
KINDS = frozenset({"text", "image", "points"})
SHIPPED = [(kind, name) for kind in components.FOLDERS for name in components.names(kind)]
NAMED = sorted({name for kind, name in SHIPPED if kind == "metric"})


def example(kind: str, name: str) -> Any:
    fields = EXAMPLES.get(kind, {}).get(name)
    assert fields is not None, f"add '{name}': {{its required fields}} to EXAMPLES['{kind}'] in {__file__}"
    return components.make(kind, {"name": name, **fields})


def of_kind(kind: str) -> Any:
    return pytest.mark.parametrize("name", components.names(kind))


def points(count: int, candidates: int = 1) -> Samples:
    return metric_cases.sampled(metric_cases.normal(count, 2, seed=1), candidates, labels=[0] * (count // candidates))


# --- every kind ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_it_is_created_from_its_example_and_has_the_base_class_of_its_kind(kind: str, name: str) -> None:
    made = example(kind, name)
    assert dataclasses.is_dataclass(made)
    if kind in BASES:
        assert isinstance(made, BASES[kind]), f"let {type(made).__name__} inherit {BASES[kind].__name__}"
    for method, _ in inspect.getmembers(METHODS.get(kind, object), inspect.isfunction):
        if not method.startswith("_"):
            assert callable(type(made).__dict__.get(method, inspect.getattr_static(made, method))), method


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_it_is_described_by_one_line_and_its_fields(kind: str, name: str) -> None:
    summary, rows = components.describe(kind, name)
    assert len(summary) > 10 and not summary.startswith(f"{components.find(kind, name).__name__}("), "write a docstring"
    made = example(kind, name)
    assert [row[0] for row in rows] == [item.name for item in dataclasses.fields(made) if item.init]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in SHIPPED if k in BASES and k != "experiment"])
def test_declarations_of_every_component_are_valid(kind: str, name: str) -> None:
    made = example(kind, name)
    if isinstance(made, protocols.Component):
        assert isinstance(made.several_sizes, bool)
        assert isinstance(made.models_used, tuple) and all(isinstance(used, str) for used in made.models_used)


@dataclasses.dataclass(frozen=True)
class WithoutBase:
    """A scorer that declares nothing."""

    def score(self, samples: Samples, tools: Any) -> Any:
        raise AssertionError


def test_a_user_class_without_the_base_class_is_refused_with_a_fix() -> None:
    with pytest.raises(UserError, match=r"class WithoutBase\(Scorer\)"):
        components.find("scorer", f"{__name__}:WithoutBase")


def test_a_component_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="coverage"):
        components.find("metric", "coverag")


def test_a_new_component_without_an_example_fails_with_what_to_add() -> None:
    with pytest.raises(AssertionError, match="add 'brand_new'"):
        example("metric", "brand_new")


def test_an_example_that_belongs_to_no_component_is_removed() -> None:
    for kind, table in EXAMPLES.items():
        assert not set(table) - set(components.names(kind)), kind
    assert set(EXAMPLES) == set(components.FOLDERS)


# --- one law of each kind --------------------------------------------------------------------------------------


@of_kind("source")
def test_a_source_states_its_kind(name: str) -> None:
    source: protocols.Source = example("source", name)
    assert source.kind in KINDS and isinstance(source.compares, bool)


@of_kind("caption")
def test_a_caption_strategy_declares_its_cost_and_whether_empty_captions_are_intended(name: str) -> None:
    strategy: protocols.Caption = example("caption", name)
    assert isinstance(strategy.expensive, bool) and isinstance(strategy.wants_empty, bool)


@of_kind("mixing_policy")
def test_a_mixing_policy_uses_the_newest_round_and_no_negative_number_of_rows(name: str) -> None:
    policy: protocols.MixingPolicy = example("mixing_policy", name)
    for number in (1, 2, 5):
        used = list(policy.rounds_used(number))
        assert used == sorted(set(used)) and used[-1] == number and used[0] >= 1
    real = points(60)
    rows = policy.real_rows(real, None, 3, 2, 7)
    assert len(rows) == policy.real_count(60, None, 3) and set(rows.ids) <= set(real.ids)
    assert all(count >= 0 for count in policy.expected_rows(60, 30, 40, 0.5).values())


@of_kind("model")
def test_a_model_declares_what_its_log_probs_are(name: str) -> None:
    model: protocols.Trainable = example("model", name)
    assert model.kind in KINDS and model.likelihood in {"exact", "elbo", "surrogate", "reward"}
    assert model.family in {"", "gaussian", "categorical"} and model.adapter_formats <= {"peft", "diffusers", "kohya"}
    assert isinstance(model.expensive, bool) and isinstance(model.notes, tuple)
    if isinstance(model, protocols.Policy):
        settings = model.Sampling()
        assert isinstance(settings, protocols.SamplingSettings)
        assert (settings.temperature, settings.guidance, settings.guide, settings.keyed) == (1.0, 1.0, "", True)
        assert settings.batch >= 1 and isinstance(model.conditional, bool)


@of_kind("adapter")
def test_an_adapter_names_the_models_that_it_refuses(name: str) -> None:
    adapter: protocols.Adapter = example("adapter", name)
    assert isinstance(adapter.refuses(example("model", "gaussian")), str)
    assert isinstance(adapter.trains_all, bool)


@of_kind("objective")
def test_an_objective_declares_what_it_reads_and_what_it_is_defined_for(name: str) -> None:
    objective: protocols.Objective = example("objective", name)
    assert objective.example in {"sample", "group", "rollout"}
    assert objective.inputs and objective.inputs <= {"log_probs", "ref_log_probs", "rewards", "values", "logits"}
    assert objective.accepts and objective.accepts <= {"exact", "elbo", "surrogate", "reward"}
    assert objective.before <= {"log_probs", "ref_log_probs", "values"}
    assert objective.candidates in {None, 2} and (objective.candidates is None or objective.example == "group")
    assert not (objective.ties or objective.unrelated) or objective.example == "group"


def prepared_batch(objective: protocols.Objective) -> tuple[Outputs, Batch]:
    """Six examples with everything that an objective may read, of unequal weights, after its ``prepare``."""
    examples, length, gen = 6, 4, torch.Generator().manual_seed(0)
    alone = objective.example == "sample" or isinstance(objective, Unpaired)
    count = objective.candidates or (1 if alone else 3)
    rows = examples * count

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    mask = (torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=gen)).double()
    columns = {
        "attributes": drawn(rows, 2), "caption": torch.tensor([1, 2, 0, 1, 3, 4]).repeat_interleave(count),
        "before_log_probs": -drawn(rows, length).square(), "before_ref_log_probs": -drawn(rows, length).square(),
        "before_values": drawn(rows, length), "before_mask": mask, "behaviour": -drawn(rows, length).square(),
    }
    ranks = torch.stack([torch.randperm(count, generator=gen) + 1 for _ in range(examples)])
    if count == 1:
        ranks = torch.tensor([[1], [2], [1], [1], [2], [2]])
    elif objective.unrelated:
        ranks = torch.tensor([[1, 0], [2, 0], [1, 0], [1, 0], [2, 0], [2, 0]])
    given = {
        "weights": 1 + torch.rand(examples, generator=gen, dtype=torch.float64), "ranks": ranks,
        "strength": torch.rand(examples, generator=gen, dtype=torch.float64), "rewards": drawn(examples, count),
    }
    batch = objective.prepare(Batch(columns, count, given))
    rows = batch.rows  # some objectives leave rows out
    out = Outputs(
        -drawn(rows, length).square(), batch["before_mask"], ref_log_probs=-drawn(rows, length).square(),
        values=drawn(rows, length), rewards=drawn(rows), logits=drawn(rows, 2),
    )
    return out, batch


@of_kind("objective")
@pytest.mark.parametrize("cuts", [(0, 1, 6), (0, 2, 5, 6), (0, 1, 2, 3, 4, 5, 6)], ids=str)
def test_the_loss_of_a_batch_is_the_sum_over_its_parts(name: str, cuts: tuple[int, ...]) -> None:
    """Of a batch that was prepared as a whole, split anywhere: micro-batches and processes change nothing."""
    objective: protocols.Objective = example("objective", name)
    out, batch = prepared_batch(objective)
    whole = objective(out, batch)
    count, parts = len(out.log_probs) // len(batch), []
    for start, stop in itertools.pairwise(cuts):
        rows = {item.name: value[start * count : stop * count] for item in dataclasses.fields(out)
                if isinstance(value := getattr(out, item.name), torch.Tensor)}
        parts.append(objective(dataclasses.replace(out, **rows), batch.take(torch.arange(start, stop))))
    assert float(whole.weight) > 0 and float(whole.sum) != 0
    assert sum(float(part.sum) for part in parts) == pytest.approx(float(whole.sum), rel=1e-6, abs=1e-9)
    assert sum(float(part.weight) for part in parts) == pytest.approx(float(whole.weight), rel=1e-6)


@of_kind("scorer")
def test_a_scorer_states_bounds_that_are_in_order(name: str) -> None:
    scorer: protocols.Scorer = example("scorer", name)
    low, high = scorer.bounds
    assert low < high and not math.isnan(low) and not math.isnan(high)


@of_kind("scorer")
def test_scores_are_one_number_a_sample_and_within_the_bounds(name: str) -> None:
    scorer: protocols.Scorer = example("scorer", name)
    if scorer.models_used or name in {"aesthetic", "alignment", "safety", "zero_shot_safety"}:
        pytest.skip("needs the weights of a model")
    samples = _samples_for(name)
    if samples is None:
        pytest.skip("tested beside the component: it needs a sandbox or fields of a task")
    tools: Any = metric_cases.Tools(points(200), points(200))
    values = np.asarray(scorer.score(samples, tools).values)
    assert values.shape == (len(samples),) and values.dtype == np.float64
    known = values[~np.isnan(values)]
    assert ((known >= scorer.bounds[0]) & (known <= scorer.bounds[1])).all()


def _samples_for(name: str) -> Samples | None:
    if name in {"closeness", "coverage_gain", "fld_gain", "simulated_people"}:
        return points(20, candidates=2)
    if name in {"length", "json_schema", "regex_match"}:
        return real_samples("text", np.array(["a", "{}", "bb"], dtype=object), [Prompt("p")] * 3, "text")
    if name == "ink":
        return real_samples("image", np.zeros((3, 4, 4, 1), np.uint8), [Prompt()] * 3, "images")
    return None


@of_kind("curator")
def test_a_curator_gives_a_reason_for_every_drop_and_depends_on_the_key_alone(name: str) -> None:
    curator: protocols.Curator = example("curator", name)
    assert curator.selects in {"reward", "votes", "random", "content", "none"}
    samples = points(24, candidates=4)
    samples = samples.with_fields(chosen=np.arange(24) % 4 == 0, rank=np.arange(24) % 4 + 1)
    rewards: Array = np.random.default_rng(0).normal(size=24)
    tools: Any = metric_cases.Tools(points(40), points(40))
    try:
        first = curator.curate(samples, rewards, tools, 5)
    except (UserError, KeyError):
        assert curator.selects == "votes"  # it reads votes, which only a round with annotators has
        return
    second = curator.curate(samples, rewards, tools, 5)
    kept = np.asarray(first.kept)
    assert kept.shape == (24,) and kept.dtype == bool and np.array_equal(kept, np.asarray(second.kept))
    assert all(str(reason) for reason, keep in zip(first.reasons, kept, strict=True) if not keep)
    assert 0 <= curator.expected_kept(24, 6) <= 24


@of_kind("metric")
def test_a_metric_declares_title_meaning_and_direction(name: str) -> None:
    metric: protocols.Metric = example("metric", name)
    assert metric.title and metric.title != name and not metric.title.endswith(".")
    assert metric.meaning.endswith(".") and metric.meaning.count(". ") == 0, "one sentence"
    assert metric.better in {"higher", "lower", "neither"} and metric.kinds and metric.kinds <= KINDS
    title, meaning, better = type(metric).described({"name": name, **EXAMPLES["metric"][name]})
    assert title and meaning.endswith(".") and better in {"higher", "lower", "neither"}
    assert metric.reference is None or all(metric.reference)


def test_no_two_metrics_have_one_title() -> None:
    titles = [components.find("metric", name).title for name in NAMED]
    assert len(set(titles)) == len(titles)


@of_kind("metric")
def test_a_metric_of_too_few_samples_is_undefined_with_a_note(name: str) -> None:
    metric: protocols.Metric = example("metric", name)
    if metric.held_out_only or name in {"caption_alignment", "downstream_accuracy"}:
        pytest.skip("looks at a model, not at samples of points")
    if "points" not in metric.kinds:
        pytest.skip("tested beside the component: it measures text")
    alone = points(1)
    shown = metric_cases.evidence(alone, alone.content, alone.content, np.array([np.nan]))
    found = metric.measure(shown)
    assert math.isfinite(found.value) or found.note, "NaN needs a note that says why"


@of_kind("formulation")
def test_a_formulation_has_finite_coefficients_and_positive_weights(name: str) -> None:
    form = example("formulation", name).fitted(1.0)
    low, high = form.noise_range()
    sigma = torch.linspace(max(low, 0.01), min(high, 0.9), 5)
    assert torch.isfinite(form.weight(sigma)).all() and (form.weight(sigma) >= 0).all()


@of_kind("schedule")
def test_a_schedule_never_raises_the_learning_rate_nor_makes_it_negative(name: str) -> None:
    schedule: protocols.Schedule = example("schedule", name)
    factors = [schedule.factor(share / 20) for share in range(20)]
    assert factors[0] == 1.0 and all(0 <= later <= earlier for earlier, later in itertools.pairwise(factors))


@of_kind("optimizer")
def test_an_optimizer_lowers_a_loss_or_names_the_missing_package(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    try:
        optimizer = example("optimizer", name).build([weight], 0.1, 0.0)
    except UserError as error:
        assert "install" in f"{error} {error.fix}".lower()
        return
    weight.square().sum().backward()
    optimizer.step()
    assert float(weight.detach().square().sum()) < 3
