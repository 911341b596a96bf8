"""Nearest images of a source in a dual encoder's space, stored on disk until the data or the encoder changes."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn.embeddings.image_text_encoder import ImageTextEncoder
from upturn.errors import UserError
from upturn.store import files
from upturn.types import Array, Samples, content_id

FLAT = 200_000  # images up to which every one is compared: 19 ms per query of 128 dimensions, 56 ms of 512, on one core
_PROBES = 32  # of the lists of an inverted file that are looked into
_FACTS, _VECTORS, _LISTS = "index.json", "vectors.safetensors", "lists.faiss"


@dataclass(frozen=True)
class Hit:
    """One row that was found: its cosine, and the near-duplicates that are hidden with it."""

    row: int
    cosine: float
    hidden: tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """``vectors`` (N, D) float32 of unit length; ``approximate`` where not all of them are compared."""

    vectors: Array
    lists: Any = None  # faiss's inverted file

    @property
    def approximate(self) -> bool:
        return self.lists is not None

    def find(self, query: Array, k: int, near: float) -> tuple[list[Hit], int]:
        """The ``k`` nearest of ``query`` (D,), and how many are hidden: rows whose cosine to a better one reaches
        ``near``.

        Looks at as many as are needed to fill ``k``.
        """
        wanted = min(len(self.vectors), max(4 * k, 64))
        while True:
            rows, cosines = self._nearest(query, wanted)
            found = _sifted(self.vectors, rows, cosines, k, near)
            if len(found) == k or wanted == len(self.vectors) or len(rows) < wanted:
                return found, sum(len(hit.hidden) for hit in found)
            wanted = min(len(self.vectors), 4 * wanted)

    def _nearest(self, query: Array, count: int) -> tuple[Array, Array]:
        """Rows and cosines, the best first; equal cosines in the order of the rows."""
        if self.lists is not None:
            cosines, rows = self.lists.search(query[None].astype(np.float32), count)
            there = rows[0] >= 0
            return rows[0][there], cosines[0][there]
        scores = self.vectors @ query.astype(np.float32)
        rows = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
        order = np.lexsort((rows, -scores[rows]))
        return rows[order], scores[rows][order]


def _sifted(vectors: Array, rows: Array, cosines: Array, k: int, near: float) -> list[Hit]:
    """The first k rows that are not near a better one; each with its near-duplicates."""
    kept: list[int] = []
    behind: list[list[int]] = []
    for place, row in enumerate(rows.tolist()):
        twin = -1
        if kept:
            alike = vectors[rows[kept]] @ vectors[row]
            twin = int(alike.argmax()) if alike.max() >= near else -1
        if twin >= 0:
            behind[twin].append(row)
        elif len(kept) < k:
            kept.append(place)
            behind.append([])
    return [Hit(int(rows[p]), float(cosines[p]), tuple(b)) for p, b in zip(kept, behind, strict=True)]


def opened(
    folder: Path, samples: Samples, encoder: ImageTextEncoder, named: str, flat: int = FLAT
) -> tuple[Index, str]:
    """The index of ``samples`` by ``encoder`` in ``folder``, and a note: read, built, or built again and why.

    ``named`` is the user's name for the encoder. The key is the encoder's id and a hash of all images.
    """
    known = {"encoder": encoder.id, "named": named, "pictures": len(samples), "data": source_hash(samples)}
    before = _facts(folder)
    if before == known:
        vectors = _read(folder)
        if vectors is not None and len(vectors) == len(samples):
            return Index(vectors, _lists(folder, vectors, flat)), f"index of {len(samples):,} images, read from disk"
        before = {}
    vectors = encoder.images(samples.content)
    broken = int((~np.isfinite(vectors).all(axis=1)).sum())
    if broken:
        raise UserError(f"{broken} of {len(samples)} images have vectors that are not finite", where=named,
                        fix="Use another encoder.")
    _write(folder, known, vectors)
    return Index(vectors, _lists(folder, vectors, flat)), _why(before, known)


def source_hash(samples: Samples) -> str:
    """Of all images in their order."""
    return content_id(samples.content) if samples.content.dtype != object else content_id(*samples.content)


def _why(before: dict[str, Any], known: dict[str, Any]) -> str:
    made = f"index of {known['pictures']:,} images"
    if not before:
        return f"{made}, built now"
    changed = []
    if before.get("encoder") != known["encoder"]:
        changed.append(f"the encoder is another one ({before.get('named')} before)")
    if before.get("data") != known["data"]:
        changed.append(f"the images have changed ({before.get('pictures'):,} before)")
    return f"{made}, built again: the stored one is stale, {' and '.join(changed)}"


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / _FACTS
    if not path.is_file():
        return {}
    try:
        return dict(files.read_json(path))
    except (UserError, TypeError, ValueError):
        return {}  # damaged: it is built again


def _read(folder: Path) -> Array | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        vectors: Array = load_file(folder / _VECTORS)["vectors"]
    except (OSError, SafetensorError, KeyError):
        return None
    return vectors


def _write(folder: Path, facts: dict[str, Any], vectors: Array) -> None:
    """The facts last: without them the folder holds no valid index."""
    from safetensors.numpy import save_file

    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_FACTS, _LISTS):
            (folder / name).unlink(missing_ok=True)
        save_file({"vectors": np.ascontiguousarray(vectors)}, folder / _VECTORS)
        files.write_text(folder / _FACTS, files.to_json(facts))


def _lists(folder: Path, vectors: Array, flat: int) -> Any:
    """faiss's inverted file above ``flat`` rows, kept beside the vectors; None where all are compared."""
    if len(vectors) <= flat or importlib.util.find_spec("faiss") is None:
        return None
    faiss: Any = importlib.import_module("faiss")
    path = folder / _LISTS
    if path.is_file():
        lists = faiss.read_index(str(path))
    else:
        cells = round(4 * math.sqrt(len(vectors)))
        lists = faiss.index_factory(vectors.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
        lists.train(vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), 64 * cells)).astype(np.int64)])
        lists.add(vectors)
        faiss.write_index(lists, str(path))
    lists.nprobe = _PROBES
    return lists


def described(samples: Samples) -> Sequence[str]:
    """A description of each image: its fields, and where there are none its prompt's text."""
    return [", ".join(value for value in prompt.fields.values() if value) or prompt.text for prompt in samples.prompts]
