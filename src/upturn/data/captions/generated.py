"""Captions that a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from upturn.data.caption_fields import with_captions
from upturn.data.captions import _captioner as captioner
from upturn.data.captions._store import Store
from upturn.protocols import Caption
from upturn.types import Samples, content_id, objects

BY = "captioned_by"  # the field of samples that names the model: such a text is no person's


@dataclass(frozen=True)
class Generated(Caption):
    """What an image-to-text model of ``transformers`` says of each picture, asked once and then kept.

    Greedy words, so that a picture has one caption. What is kept is named by model, weights, prompt and the picture's
    own hash; it is read the next time, and anything that has changed is told and made anew. The field "captioned_by"
    names the model.

    folder, hub  the model: exactly one of them; BLIP, GIT, an encoder with a decoder, or one that chats (Qwen-VL, …)
    prompt       what a chatting model is asked, or how a caption begins that the model goes on with; "" for nothing
    max_tokens   longest caption; 40 holds the two sentences that text encoders of 77 tokens read
    batch        pictures at a time
    """

    folder: str | None = None
    hub: str | None = None
    prompt: str = ""
    max_tokens: int = 40
    batch: int = 16

    expensive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of 'folder' and 'hub': the image-to-text model")
        if self.max_tokens < 1 or self.batch < 1:
            raise ValueError("max_tokens and batch must be 1 or more")

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Raises UserError where the model cannot be loaded. ``folder`` holds the store; None keeps nothing."""
        import transformers

        place = str(self.folder or self.hub)
        where = "captions.folder" if self.folder else "captions.hub"
        store = Store(folder, {
            "model": Path(place).expanduser().name if self.folder else place,
            "weights": captioner.weights_id(place, self.folder is not None, where), "prompt": self.prompt,
            "max_tokens": self.max_tokens, "transformers": transformers.__version__,
        })
        notes = store.stale()
        names = [content_id(row) for row in samples.content]
        fresh = [row for row, name in enumerate(names) if name not in store.known]
        first = {names[row]: row for row in reversed(fresh)}  # of equal pictures one is asked about
        if first:
            self._write(samples, sorted(first.values()), names, store, place, where)
        read = len(samples) - len(fresh)
        if read:
            notes.append(f"{read:,} captions of {len(samples):,} were in the store, {len(fresh):,} are new")
        by = f"{store.lineage['model']}@{str(store.lineage['weights'])[:12]}"
        captioned = with_captions(samples, [(store.known[name],) for name in names])
        return captioned.with_fields(**{BY: objects([by] * len(samples))}), tuple(notes)

    def _write(
        self, samples: Samples, rows: Sequence[int], names: Sequence[str], store: Store, place: str, where: str
    ) -> None:
        model = captioner.load(place, where)
        for part in captioner.chunks(len(rows), self.batch):
            here = rows[part]
            said = model.write(samples.content[list(here)], self.prompt, self.max_tokens)
            store.add({names[row]: text for row, text in zip(here, said, strict=True)})
