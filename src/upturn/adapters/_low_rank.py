"""The base of low-rank adapters: target layers, frozen weights, and the model at the entry of a stage."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from upturn import seeds
from upturn.adapter_layers import injection as adapters
from upturn.adapter_layers.heads import trained_whole
from upturn.adapters import _targets
from upturn.adapters._entry import AtEntry
from upturn.errors import UserError
from upturn.protocols import Adapter, Trainable

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# fields that must be equal where a stage continues an adapter
_SAME = ("peft_type", "use_dora", "r", "init_r", "target_r", "lora_alpha", "alpha", "decompose_factor")


@dataclass(frozen=True)
class LowRank(Adapter, ABC):
    """The fields of every low-rank adapter.

    A stage trains the adapter ``adapter_name`` of the base, and heads; a new one begins as the identity. Where the
    model has an adapter of this name, the stage continues it. All other weights are frozen; earlier adapters are on.
    """

    rank: int = 16
    alpha: int | None = None  # the scale is alpha / rank; None: twice the rank (Biderman et al. 2024, appendix)
    dropout: float = 0.0  # of the adapter's input, in training
    modules: list[str] | str = _targets.ALL  # names of layers, "all-linear", or a regular expression for their paths
    adapter_name: str = ""

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and self.alpha < 1):
            raise ValueError("rank and alpha must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must be at least 0 and below 1")
        if not self.modules:
            raise ValueError(f"modules names no layer; leave it out for '{_targets.ALL}'")
        taken = hasattr(nn.ModuleDict, self.adapter_name) or hasattr(nn.ParameterDict, self.adapter_name)
        if not _NAME.fullmatch(self.adapter_name) or taken:
            raise ValueError(
                f"an adapter cannot be called '{self.adapter_name}': use letters, digits, '-' and '_', and no "
                "attribute name of torch's modules"
            )

    # What a kind of adapter adds.

    @abstractmethod
    def kinds(self) -> tuple[type[nn.Module], ...]:
        """The layer classes that it fits."""

    @abstractmethod
    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        """The ``peft`` config of a new adapter; ``common`` holds the shared fields: target modules, …"""

    @property
    def least(self) -> int:
        """The least width of a layer on each side."""
        return 0

    def check(self, module: PreTrainedModel, paths: list[str]) -> None:
        """Raises UserError where the adapter cannot go on these layers of this model."""
        return

    def first(self, module: PreTrainedModel) -> None:
        """The first weights of a new adapter, where they are not those of `peft`; random ones from torch's stream."""
        return

    def continued(self, module: PreTrainedModel) -> None:
        """Prepares an adapter that an earlier stage has trained."""
        return

    def begin(self, module: PreTrainedModel) -> None:
        """Prepares a stage beyond the adapter itself."""
        return

    # The protocol.

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        """The adapter onto the model, new ones random from ``key``; all but it and the heads frozen.

        Raises UserError where no layer fits, or the model has a different adapter of this name.
        """
        module: Any = model.module
        if not (hasattr(module, "config") or hasattr(module, "settings")):
            raise UserError(
                "this model does not support adapters", where="adapter", fix="Train it with 'full'. Adapters go on "
                "causal_lm and diffusion models.",
            )
        paths = _targets.targets(module, self.modules, self.kinds(), self.least)
        seeds.seed_torch(key)
        earlier = adapters.names(module)
        common = {
            "target_modules": adapters.spelled(module, paths),
            "base_model_name_or_path": "../..",  # from the adapter's folder
            "task_type": "CAUSAL_LM" if hasattr(module, "generate") else None,
        }
        new_config = self.config(common, total_steps)
        if self.adapter_name in earlier:
            self._check_same(module, new_config, paths)
            self.continued(module)
        else:
            self.check(module, paths)
            adapters.inject(module, self.adapter_name, new_config)
            self._check_layers(module, paths)
            self.first(module)
        for name in adapters.names(module):
            adapters.dropout(module, name, self.dropout if name == self.adapter_name else 0.0)
        module.requires_grad_(False)
        for parameter in adapters.tensors(module, self.adapter_name).values():
            parameter.requires_grad_(True)
        for head in trained_whole(module).values():
            head.requires_grad_(True)
        own = self.adapter_name + adapters.ENTRY
        module.entry_adapters = [own if n == self.adapter_name else n for n in earlier]
        self.begin(module)

    def _check_same(self, module: PreTrainedModel, new_config: PeftConfig, paths: list[str]) -> None:
        there = module.peft_config[self.adapter_name]
        for field in _SAME:
            old, new = getattr(there, field, None), getattr(new_config, field, None)
            if old != new:
                raise UserError(
                    f"the model has an adapter '{self.adapter_name}' whose {field} is {old}, and this stage requests "
                    f"{new}", where="adapter", fix="Request the same, or give this one another 'adapter_name:'.",
                )
        self._check_layers(module, paths)
        for field in ("tinit", "tfinal", "total_step"):  # of this stage
            if hasattr(there, field):
                setattr(there, field, getattr(new_config, field))

    def _check_layers(self, module: PreTrainedModel, paths: list[str]) -> None:
        """Raises UserError where the adapter is on other layers than requested."""
        on = {path for path, layer in adapters.layers(module) if adapters.has(layer, self.adapter_name)}
        odd = sorted(on ^ set(paths))
        if odd:
            raise UserError(
                f"the model's adapter '{self.adapter_name}' is {'' if odd[0] in on else 'not '}on '{odd[0]}', and this "
                "stage requests otherwise", where=_targets.WHERE,
                fix="Request the same modules, or give this one another 'adapter_name:'.",
            )

    def reference(self, model: Trainable) -> Trainable:
        """The model at the entry: a view that runs with this stage's adapter off, or, of a stage that
        continues one, with a copy of its entry state; everything else is shared."""
        module = adapters.inner(model.module)
        if self.adapter_name + adapters.ENTRY in module.entry_adapters:
            adapters.copy_entry(module, self.adapter_name)
        view = copy.copy(model)
        view.module = AtEntry(module, adapters.names(module), module.entry_adapters)
        return view

    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]:
        return [p for p in model.module.parameters() if p.requires_grad]

    def regulariser(self, model: Trainable) -> torch.Tensor | None:
        return None

    def before_step(self, model: Trainable, step: int, loss: Callable[[int], float]) -> None:
        return None

    def after_step(self, model: Trainable, step: int, learning_rate: float) -> None:
        return None

    def finish(self, model: Trainable) -> None:
        return None

    def merge(self, model: Trainable) -> None:
        """All adapters of the model into its base."""
        adapters.merge(adapters.inner(model.module))
