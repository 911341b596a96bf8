"""The disk cache of a text-to-image model's frozen parts: latents of images and encoder outputs of captions.

An image is keyed by its pixels, a caption by its tokens; the folder is keyed by everything else that the output depends
on: the weights, how they are called, the size, the versions and the machine. So outputs of other
models are never read, and outdated entries are counted, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from upturn.adapter_layers.new_tokens import without
from upturn.diffusion.joint import Read
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.latents import Latents
from upturn.store.shards import Row, Shards
from upturn.store.weights import digest
from upturn.types import Array, Stacks, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMAT = "1"  # of the entries: how pixels become the autoencoder's input, and which outputs are stored
_SIZE = "size"
_READABLE = frozenset({_SIZE, "torch", "transformers", "machine"})  # values that a note gives; others: digests
_TRANSIENT = frozenset({"architectures", "dtype", "torch_dtype", "transformers_version"})  # of how a config was saved


@dataclass(eq=False)
class Cache:
    """One folder, for any number of models and processes."""

    root: Path

    def __post_init__(self) -> None:
        self._notes: list[str] = []
        self._counts: dict[str, list[int]] = {}  # of what was requested: found, and computed
        self._shards: dict[Path, Shards] = {}
        self._digests: dict[int, tuple[int, str]] = {}  # of a module's weights, while they are as they were
        self._outdated: dict[tuple[str, str], int] = {}  # entries that are not read, by reason
        self._reported: set[tuple[str, str]] = set()

    def latents(self, of: Latents, content: Array, sizes: frozenset[str]) -> Stacks:
        """Moments of N images (N, H, W, 3) uint8 of one size; ``sizes`` are all that the data has ("16x16")."""
        shards = self._of("latents", {
            "autoencoder": self._weights(of.vae), "scaling": f"{of.scale:g}, {of.shift:g}",
            _SIZE: size_of(content), **_circumstances(of.vae),
        })
        names = [content_id(row) for row in content]

        def make(rows: Sequence[int]) -> Iterator[Row]:
            for row in rows:
                yield {"moments": of.moments(of.pixels(content[row : row + 1]), at_once=1)}

        return self._filled(shards, names, make, "latents", sizes)["moments"]

    def readings(self, family: Family, name: str, encoder: nn.Module, tokens: Read) -> dict[str, Stacks]:
        """The outputs of a text encoder for N captions' tokens (N, …), by name."""
        import transformers

        shards = self._of(name, {
            "text encoder": self._weights(encoder), "read as": f"{type(family).__name__}'s {name}",
            "transformers": transformers.__version__, **_circumstances(encoder),
        })
        columns = {key: value.numpy() for key, value in sorted(tokens.items())}
        count = len(next(iter(columns.values())))
        names = [content_id(*(column[row] for column in columns.values())) for row in range(count)]
        at = next(encoder.parameters()).device

        def make(rows: Sequence[int]) -> Iterator[Row]:
            for row in rows:
                one = {key: value[row : row + 1].to(at) for key, value in tokens.items()}
                yield {key: value.cpu() for key, value in family.read(name, encoder, one).items()}

        return self._filled(shards, names, make, f"readings of the {name}", frozenset())

    def _of(self, kind: str, made_by: Mapping[str, str]) -> Shards:
        shards = Shards(self.root, kind, made_by)
        return self._shards.setdefault(shards.folder, shards)

    def _filled(
        self, shards: Shards, names: Sequence[str], make: Callable[[Sequence[int]], Iterator[Row]], what: str,
        sizes: frozenset[str],
    ) -> dict[str, Stacks]:
        fresh = shards.missing(names)
        if shards.damaged:
            self._notes.append(
                f"{shards.damaged} damaged {'file' if shards.damaged == 1 else 'files'} of {what} in {self.root} "
                "removed: the contents are computed again"
            )
            shards.damaged = 0
        if fresh:
            self._compare(shards, names, what, sizes)
        counts = self._counts.setdefault(what, [0, 0])
        counts[0] += len(set(names)) - len(fresh)
        counts[1] += len(fresh)
        return shards.filled(names, make)

    def take_notes(self) -> list[str]:
        """Notes since the last call: counts of what was found, computed, stale or damaged."""
        stale = [f"{count:,} {what} in {self.root} are of another {reasons}: computed again"
                 for (what, reasons), count in self._outdated.items()]
        counts = [f"{there:,} of {there + new:,} {what} were in {self.root}" for what, (there, new) in
                  sorted(self._counts.items()) if there]
        notes = [*self._notes, *stale, *counts]
        self._notes, self._outdated, self._counts = [], {}, {}
        return notes

    def _compare(self, shards: Shards, names: Sequence[str], what: str, sizes: frozenset[str]) -> None:
        """Counts the outdated entries of these images or captions, by reason."""
        for made_by, of_these, in_all in shards.elsewhere(names):
            changed = sorted(key for key in shards.made_by if made_by.get(key) != shards.made_by[key])
            was = {key: f" ({made_by[key]})" if key in _READABLE and key in made_by else "" for key in changed}
            reason = what, " and ".join(f"{key}{value}" for key, value in was.items())
            if _SIZE not in changed:
                self._outdated[reason] = self._outdated.get(reason, 0) + of_these
            elif made_by.get(_SIZE) not in sizes and reason not in self._reported:
                self._outdated[reason] = in_all  # another size has other pixels: none of its names are ours
                self._reported.add(reason)
        self._outdated = {reason: count for reason, count in self._outdated.items() if count}

    def _weights(self, module: nn.Module) -> str:
        """Class, configuration and every number of it; without the rows of new tokens, whose captions are not kept."""
        stamp = sum(parameter._version for parameter in module.parameters())
        known = self._digests.get(id(module))
        if known is None or known[0] != stamp:
            inner: Any = module
            with without([module]):
                config = {key: value for key, value in _config(inner).items()
                          if not key.startswith("_") and key not in _TRANSIENT}
                stated = json.dumps(config, sort_keys=True, default=str)
                known = stamp, content_id(type(module).__name__, stated, digest(module.state_dict()))
            self._digests[id(module)] = known
        return known[1]


def size_of(content: Array) -> str:
    """Of images (N, H, W, C): "16x24", the height first."""
    return f"{content.shape[1]}x{content.shape[2]}"


def _config(module: PreTrainedModel) -> dict[str, Any]:
    found = module.config
    return dict(found.to_dict()) if hasattr(found, "to_dict") else dict(found)


def _circumstances(module: nn.Module) -> dict[str, str]:
    """What the last bits of an output depend on besides the weights."""
    at = next(module.parameters()).device
    where = torch.cuda.get_device_name(at) if at.type == "cuda" else f"{at.type} with {torch.get_num_threads()} threads"
    return {"format": _FORMAT, "torch": str(torch.__version__), "machine": where}
