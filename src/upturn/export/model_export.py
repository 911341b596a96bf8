"""Writes a unit's model as plain weights, or its adapters only, for other libraries."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from upturn.adapter_layers import adapter_files, injection
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.store.files import read_json, to_json
from upturn.store.run import Run
from upturn.store.units import model_name
from upturn.store.weights import digest

if TYPE_CHECKING:
    from upturn.adapter_layers.lora_form import Parts

Format = Literal["peft", "lora", "diffusers", "kohya"]

_TOKENIZER = "tokenizer_config.json"
_BESIDE = ("adapters", "tokens")  # folders beside a base that has some
COMBINED = "combined"  # the name of an adapter that several have become
_SUM = "cat"  # how adapters with weights are combined, if nothing else is stated: their weighted sum


@dataclass(frozen=True)
class Chosen:
    """Which adapters are exported, and as what.

    stated   a name in the model, a folder in the format of `peft`, or either with "=" and a weight; all where empty
    combine  how one adapter becomes of them, see :mod:`upturn.adapter_layers.lora_form`; None: they stay apart
    density  the share of values that TIES, DARE and pruning keep
    rank     a layer's ranks at most
    """

    stated: tuple[str, ...] = ()
    combine: str | None = None
    density: float | None = None
    rank: int | None = None

    @property
    def names(self) -> list[str]:
        return [_weighted(each)[0] for each in self.stated]

    @property
    def weights(self) -> list[float]:
        return [_weighted(each)[1] for each in self.stated]

    @property
    def how(self) -> str | None:
        """How adapters are combined; their weighted sum where there are weights."""
        return self.combine or (_SUM if any(weight != 1.0 for weight in self.weights) else None)

    @property
    def changes(self) -> bool:
        """Whether the adapters become others than they are in the run."""
        return self.how is not None or self.rank is not None


def _weighted(stated: str) -> tuple[str, float]:
    name, equals, weight = stated.rpartition("=")
    if equals:
        with suppress(ValueError):
            return name, float(weight)
    return stated, 1.0


def write(run: Run, unit: str, folder: Path, chosen: Chosen = Chosen()) -> None:
    """The model of ``unit`` into ``folder``, without adapters, its own tokens built in: what plain `transformers` or
    `diffusers` opens.

    Log-probs are those of the model with the chosen adapters on, within rounding. Without adapters it is a copy.
    """
    source = run.model_folder(unit)
    if not chosen.stated and not any((source / name).is_dir() for name in _BESIDE):
        shutil.copytree(source, folder)
        return
    from upturn.adapter_layers import lora_form

    policy = _loaded(run, unit, source)
    module = policy.module
    names = adapter_files.add(module, chosen.names) or injection.names(module)
    if chosen.changes:
        lora_form.fold(module, list(_parts(module, names, chosen).values()))
    else:
        injection.merge(module, names)
    if policy.words:
        policy.merge_tokens()
    policy.save(folder)


def write_adapters(
    run: Run, unit: str, folder: Path, form: Format, chosen: Chosen = Chosen(), to: Path | None = None
) -> None:
    """The adapters of ``unit`` into ``folder``, without their base where others can find it.

    peft       each in its folder, and learned tokens in theirs, as in the run; those of a language model with its
               tokenizer and the name of their base, as ``AutoPeftModelForCausalLM`` opens them
    lora       each as plain LoRA of peft, ranks at zero left out: also what is cut to a rank, or combined
    diffusers  what ``load_lora_weights`` and ``load_textual_inversion`` of a text-to-image pipeline open
    kohya      the keys of sd-scripts and LyCORIS, which ComfyUI and A1111 read

    ``to`` is where ``folder``'s parent will be in the end. Raises UserError where there are none, or the format has no
    way to say what they do.
    """
    source = run.model_folder(unit)
    if form not in get_args(Format):
        raise UserError(f"there is no format '{form}'", where="--format", fix=f"One of: {', '.join(get_args(Format))}.")
    beside = [name for name in _BESIDE if (source / name).is_dir()]
    if not beside and not chosen.stated:
        raise UserError(f"the model of '{unit}' has no adapters", where="--what", fix="Export '--what model'.")
    if form == "lora" or (form == "peft" and (chosen.stated or chosen.changes)):
        _write_chosen(_loaded(run, unit, source), folder, form, chosen)
        if (source / _TOKENIZER).is_file():
            alone = bool(chosen.stated) or chosen.changes
            _name_bases(run, unit, source, folder, (to or folder.parent).resolve(), alone)
        return
    if chosen.stated or chosen.changes:
        raise UserError(f"'{form}' writes all adapters as they are", where="--format", fix="Take peft or lora.")
    if form == "peft":
        for name in beside:
            shutil.copytree(source / name, folder / name)
        if (source / adapter_files.FOLDER).is_dir() and (source / _TOKENIZER).is_file():
            _name_bases(run, unit, source, folder, (to or folder.parent).resolve(), alone=False)
        return
    from upturn.export import adapter_formats

    policy = _loaded(run, unit, source)
    if form not in policy.adapter_formats:
        raise UserError(
            f"the format of {form} is for text-to-image models", where="--format", fix="Take '--format peft'."
        )
    adapter_formats.write(policy, form, folder)


def _write_chosen(policy: Any, folder: Path, form: Format, chosen: Chosen) -> None:
    from upturn.adapter_layers import lora_form

    module = policy.module
    names = adapter_files.add(module, chosen.names) or injection.names(module)
    if form == "peft" and not chosen.changes:
        adapter_files.save(module, folder, names)
        return
    parts = _parts(module, names, chosen)
    for name, of in parts.items():
        lora_form.write(module, of, folder / adapter_files.FOLDER / name, module.peft_config[names[0]])
    adapter_files.write_order(folder, list(parts))


def _parts(module: Any, names: Sequence[str], chosen: Chosen) -> dict[str, Parts]:
    """What each of the written adapters does, by its name."""
    from upturn.adapter_layers import lora_form

    if chosen.rank is not None and chosen.rank < 1:
        raise UserError("a rank is at least 1", where="--rank")
    if chosen.how is None:
        return {name: lora_form.parts(module, name, chosen.rank) for name in names}
    if chosen.how not in lora_form.COMBINATIONS:
        raise UserError(
            f"adapters cannot be combined by '{chosen.how}'", where="--combine",
            fix=f"One of: {', '.join(lora_form.COMBINATIONS)}.",
        )
    each = [lora_form.parts(module, name) for name in names]
    weights = chosen.weights or [1.0] * len(names)
    of = lora_form.combined(each, weights, chosen.how, chosen.density, chosen.rank)
    return {COMBINED: of if chosen.rank is None else lora_form.cut(of, chosen.rank)}


def _loaded(run: Run, unit: str, source: Path) -> Any:
    from upturn.loop.assembly import load_model
    from upturn.loop.run_context import RunContext

    return load_model(RunContext.open(run).parts, _name(run, unit), source, unit)


def _name(run: Run, unit: str) -> str:
    """The name in the recipe of the model that a unit holds: a helper's, or the policy."""
    last = unit.rpartition("/")[2]
    model = run.recipe.models.get(last)
    fitted = model is not None and (model_name(unit) is not None or model.refit is not None)
    return last if fitted else "policy"


def _name_bases(run: Run, unit: str, source: Path, folder: Path, to: Path, alone: bool) -> None:
    """In the config of each exported adapter the model that it is on, and its tokenizer beside it.

    The first adapter's base is the model that the recipe names, where that has not been trained; else it is written
    beside the adapters. That of a later one has those before it merged, and is written too; where adapters are chosen
    or changed, each is ``alone`` on the first one's base.
    """
    base = _named_base(run, source)
    order = adapter_files.order(folder)
    for place, name in enumerate(order):
        at = folder / adapter_files.FOLDER / name
        if base is None or (place and not alone):
            written = folder.parent / f"base-of-{name}"
            base = str(to / written.name)
            policy = _loaded(run, unit, source)
            injection.merge(policy.module, order[:place])
            policy.save(written)
        config = read_json(at / adapter_files.CONFIG)
        (at / adapter_files.CONFIG).write_text(to_json({**config, "base_model_name_or_path": base}), encoding="utf-8")
        for path in (*source.glob("tokenizer*"), *source.glob("chat_template*")):
            shutil.copyfile(path, at / path.name)


def _named_base(run: Run, source: Path) -> str | None:
    """The recipe's ``hub:`` or the path of its ``folder:``, where that is the base in ``source``; None elsewhere."""
    from upturn.loop.assembly import load_model
    from upturn.loop.run_context import RunContext

    context = RunContext.open(run)
    spec = run.recipe.models["policy"].spec
    named = spec.get("hub") or spec.get("folder")
    if named is None:
        return None
    try:
        original = context.parts.model("policy")
        original.build(context.tools.train, context.key("build", "policy"))
    except UserError:  # it is not there any more
        return None
    wanted = _base_digest(original)
    del original
    if _base_digest(load_model(context.parts, "policy", source, "")) != wanted:
        return None
    return str(named) if spec.get("hub") else str(Path(str(named)).resolve())


def _base_digest(model: Any) -> str:
    inner = unwrapped(model.module)
    with injection.plain(inner):
        return digest(inner.state_dict())
