"""An open run with its assembled recipe: what every stage receives, and every reader of a stored run opens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from upturn import seeds
from upturn.data.groups import first_of_each
from upturn.data.score_words import asking
from upturn.errors import UserError
from upturn.loop import guides
from upturn.loop.assemble import assemble
from upturn.loop.assembly import Assembly, Evaluator, load_model, models_named
from upturn.loop.tools import Toolbox, fitting
from upturn.observer import Observer
from upturn.protocols import INITIAL_POLICY, Policy, Scorer, Trainable
from upturn.store import parquet_tables
from upturn.store.commit import Draft
from upturn.store.promotion import SKIPPED, newest_promoted
from upturn.store.run import Run
from upturn.store.units import DATA, model_unit, round_unit, within
from upturn.types import Array, Message, Prompt, Samples, Scores, objects

if TYPE_CHECKING:
    from upturn.protocols import SamplingSettings

SHARED = frozenset({"train", "fit"})  # steps that several processes do together
_POLL = 0.05  # seconds between two looks at the disk


@dataclass
class RunContext:
    """A run, the components of its recipe, and access to what earlier stages wrote.

    ``follower`` marks a process that only takes part in training: it waits for what the first process commits.
    """

    run: Run
    parts: Assembly
    observer: Observer
    follower: bool = False
    _policies: dict[str, Policy] = field(default_factory=dict)
    _guides: dict[str, Policy] = field(default_factory=dict)

    @classmethod
    def open(cls, run: Run) -> RunContext:
        """A stored run with the components of its own recipe, to read from.

        Raises UserError where the recipe is invalid in this version, or names a component that does not exist.
        """
        return cls(run, assemble(run.recipe), Observer())

    def key(self, *names: str | int) -> int:
        return seeds.key(self.parts.recipe.seed, *names)

    @contextmanager
    def committing(self, unit: str, step: str) -> Iterator[Draft]:
        """A commit that is reported to the observer; what the body measures goes into its ``info``."""
        self.observer.begin(unit, step)
        began = time.perf_counter()
        with self.run.commit(unit, step) as out:
            yield out
        self.observer.end(unit, step, time.perf_counter() - began, dict(out.info))

    @contextmanager
    def computing(self, out: Draft) -> Iterator[None]:
        """Counts the time inside as sampling, training or measuring: the rest of a stage is the loop's own."""
        began = time.perf_counter()
        try:
            yield
        finally:
            out.info["compute_seconds"] = out.info.get("compute_seconds", 0.0) + time.perf_counter() - began

    def finished(self, unit: str, step: str) -> bool:
        """Whether the step is committed; a follower waits for those that it has no part in."""
        if self.follower and step not in SHARED:
            self.wait_for(unit, step)
        if self.run.done(unit, step) is None:
            return False
        self.observer.skip(unit, step)
        return True

    def skipped(self, unit: str, step: str) -> str:
        """Why the step left nothing for the rest of its round to learn from; "" where it did."""
        record = self.run.done(unit, step)
        return "" if record is None else str(record.info.get(SKIPPED, ""))

    def wait_for(self, unit: str, step: str) -> None:
        """Wait until the first process has committed the step; if that one dies, the launcher ends this one."""
        while self.run.done(unit, step) is None:
            time.sleep(_POLL)

    @cached_property
    def real(self) -> Samples:
        """All real samples as stored, both parts."""
        return parquet_tables.read_samples(self.run.unit(DATA) / "samples.parquet")

    @cached_property
    def tools(self) -> Toolbox:
        record = self.run.done(DATA, "load")
        assert record is not None, "the data is loaded before anything uses it"
        split = self.real.fields["split"].astype(str)
        return Toolbox(
            train=self._used(self.real.take(split == "train")), held_out=self.real.take(split == "held_out"),
            classes=tuple(record.info["classes"]), features=self.parts.features, loader=self._helper,
            fitter=self._another,
        )

    def _used(self, train: Samples) -> Samples:
        """What the recipe's filter kept, once it has run."""
        if self.run.done(DATA, "filter") is None:
            return train
        selections = parquet_tables.read_selections(self.run.unit(DATA) / "selections.parquet", train.ids)
        return train.take(selections[-1].kept)

    def narrow(self) -> None:
        """From here on the training part is what the filter kept; helper models were fitted on all of it."""
        split = self.real.fields["split"].astype(str)
        self.tools.train = self._used(self.real.take(split == "train"))

    @cached_property
    def converses(self) -> bool:
        """Whether the prompts of the real data are conversations."""
        return any(prompt.messages for prompt in self.real.prompts)

    def prompt_of(self, text: str) -> Prompt:
        """A text that a recipe or a person writes, as a prompt of the same form as the data's."""
        return Prompt(text, messages=(Message("user", text),)) if self.converses else Prompt(text)

    def evaluation_prompts(self, evaluator: Evaluator) -> list[Prompt]:
        """The prompts of the held-out part, or of the rows that this evaluation selects, in its own wording.

        A prompt that has several candidates in the data counts once.
        """
        held_out = self.tools.held_out
        rows = np.flatnonzero(fitting(held_out, evaluator.where, f"evaluate.{evaluator.name}"))
        rows = rows[first_of_each(held_out.take(rows))]
        prompts = [held_out.prompts[row] for row in rows]
        if evaluator.captions is None:
            return self.with_score_words(prompts)
        texts = json.loads((self.run.unit(DATA) / "asked.json").read_text(encoding="utf-8"))[evaluator.name]
        return [replace(prompt, text=texts[row]) for prompt, row in zip(prompts, rows, strict=True)]

    def with_score_words(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """With the requested score words, where the recipe has some."""
        spoken = self.parts.score_words
        return list(prompts) if spoken is None else [asking(prompt, spoken.ask) for prompt in prompts]

    def _helper(self, name: str) -> Trainable:
        if name == INITIAL_POLICY:
            policy = self.parts.model("policy")
            policy.build(self.tools.train, self.key("build", "policy"))
            return policy
        if name not in self.parts.recipe.models or name == "policy":
            raise UserError(f"there is no model '{name}'", where="models")
        unit = self.helper_unit(name)
        if unit is None:
            raise UserError(f"the model '{name}' is first fitted in round 1", where="models")
        return load_model(self.parts, name, self.run.unit(unit) / "model", self.model_id(unit, "fit"))

    def _another(self, name: str, samples: Samples, key: int) -> Trainable:
        model = self.parts.recipe.models.get(name)
        if model is None or model.fit is None or model.ready:
            raise UserError(f"the recipe does not say how '{name}' is trained", where="models",
                            fix=f"Write 'models.{name}.fit: {{…}}'.")
        from upturn.training.standalone import trained

        return trained(self.parts.model(name), samples, model.fit, seeds.key(key, "build"), key, f"another '{name}'")

    def helper_unit(self, name: str) -> str | None:
        """Where the newest weights of a helper model are; None before its first round."""
        if self.parts.recipe.models[name].refit is None:
            return model_unit(name)
        rounds = self.parts.recipe.rounds
        for number in range(rounds.count if rounds else 0, 0, -1):
            unit = within(round_unit(number), name)
            if self.run.done(unit, "fit") is not None and not self.skipped(unit, "fit"):
                return unit
        return None

    def forget(self, name: str) -> None:
        """A helper model has newer weights: the next use loads them."""
        self.tools.models.pop(name, None)

    def progress(self, unit: str) -> Path:
        """Where a training keeps the states that it can resume from."""
        return self.run.unit(unit) / ".train-progress"

    def model_id(self, unit: str, step: str = "train") -> str:
        record = self.run.done(unit, step)
        assert record is not None, f"{unit} has no {step}"
        return str(record.info["model"])

    def model_folder(self, unit: str) -> Path:
        return self.run.unit(unit) / "model"

    def policy(self, unit: str) -> Policy:
        """The trained policy of a unit; the last one used stays in memory. ``tools`` know it as ``policy``."""
        step = "base" if unit == round_unit(0) else "train"
        name = self.model_id(unit, step)
        if name not in self._policies:
            loaded: Any = load_model(self.parts, "policy", self.model_folder(unit), name)
            self._policies = {name: loaded}
        self.tools.models["policy"] = self._policies[name]
        return self._policies[name]

    def draw(self, policy: Policy, prompts: Sequence[Prompt], keys: Array, settings: SamplingSettings) -> Samples:
        """Samples of the policy, guided by the model that ``settings`` name as its guide, if they name one.

        The field "guide" is then the id of that model: its training data influences the samples, too.
        """
        name = settings.guide
        if not name:
            return policy.sample(prompts, keys, settings)
        guide = self._guide(name)
        samples = policy.sample(prompts, keys, settings, {name: guide})
        return samples.with_fields(guide=objects([guide.id] * len(samples)))

    def _guide(self, name: str) -> Policy:
        """A model of the recipe, or an earlier version of the policy, read once."""
        version = guides.version(self.parts.recipe, name, "settings.guide")
        if version is None:
            found: Any = self.tools.model(name)
            return cast(Policy, found)
        if name not in self._guides:
            folder = version.folder(self.run)
            loaded: Any = load_model(self.parts, "policy", folder, version.model_id(self.run))
            self._guides[name] = loaded
        return self._guides[name]

    def scores(self, samples: Samples) -> tuple[list[Scores], Array]:
        """The scores of every scorer, and the reward: their weighted sum, NaN where one of them is undefined."""
        return self.judged(samples, self.parts.scorers)

    def judged(
        self, samples: Samples, scorers: Mapping[str, tuple[Scorer, float]]
    ) -> tuple[list[Scores], Array]:
        """The same for any scorers; one whose model is not fitted yet scores NaN."""
        found: list[Scores] = []
        rewards = np.zeros(len(samples)) if scorers else np.full(len(samples), np.nan)
        for name, (scorer, weight) in scorers.items():
            scored = self._unfitted(scorer, samples) or scorer.score(samples, self.tools)
            found.append(Scores(name, scored.values, scored.explanations))
            rewards = rewards + weight * scored.values
        return found, rewards

    def _unfitted(self, scorer: Scorer, samples: Samples) -> Scores | None:
        known = [name for name in models_named(scorer) if name in self.parts.recipe.models]
        late = [name for name in known if name != "policy" and self.helper_unit(name) is None]
        if not late:
            return None
        why = objects([f"'{late[0]}' is first fitted in round 1"] * len(samples))
        return Scores("", np.full(len(samples), np.nan), why)

    def incumbent(self, before: int) -> str:
        """The unit of the newest promoted round before round ``before``; round 0 where there is none."""
        records = ((number, self.run.done(round_unit(number), "gate")) for number in range(1, before))
        decisions = {number: str(record.info["decision"]) for number, record in records if record is not None}
        return round_unit(newest_promoted(decisions))


def prompt_keys(base: int, prompts: list[Prompt], candidates: int) -> Array:
    """(P, K) keys from prompt and its occurrence: they do not depend on the other prompts of the list."""
    seen: dict[str, int] = {}
    rows = []
    for prompt in prompts:
        occurrence = seen.get(prompt.id, 0)
        seen[prompt.id] = occurrence + 1
        rows.append(seeds.fold(seeds.key(base, prompt.id, occurrence), range(candidates)))
    return np.stack(rows)
