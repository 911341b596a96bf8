"""Single samples prepared for display: an image, a text, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upturn.report import image_data
from upturn.report.text_changes import shortened
from upturn.report.titles import number, visible
from upturn.types import Prompt, Sample

_TEXT = 260  # characters of a text
_SHORT = 40  # characters of a text that fits a narrow box
_PROMPT = 300  # characters of a prompt
_COORDINATES = 4  # of a point


@dataclass(frozen=True)
class SampleView:
    """``source`` is the data URI of an image, else ``body`` is a text; ``reason``: why a curator dropped it."""

    source: str
    body: str
    prompt: str
    reward: str
    reason: str
    kept: bool
    crisp: bool = False

    @property
    def short(self) -> bool:
        return len(self.body) <= _SHORT


def sample_view(
    sample: Sample, classes: Sequence[str], reward: str = "", reason: str = "", kept: bool = True
) -> SampleView:
    prompt = prompt_label(sample.prompt, classes)
    if isinstance(sample.content, str):
        body, more = shortened(sample.content, _TEXT)
        return SampleView("", body + ("…" if more else ""), prompt, reward, reason, kept)
    if sample.content.ndim == 3:
        image = sample.content[None]
        return SampleView(image_data.strip(image), "", prompt, reward, reason, kept, image_data.crisp(image))
    numbers = ", ".join(number(float(x), 2) for x in sample.content[:_COORDINATES])
    body = f"({numbers}{', …' if len(sample.content) > _COORDINATES else ''})"
    return SampleView("", body, prompt, reward, reason, kept)


def prompt_label(prompt: Prompt, classes: Sequence[str], position: int | None = None) -> str:
    """The text of a prompt, or the name of its class; of a prompt without either, its position."""
    if prompt.text:
        return visible(prompt.text[:_PROMPT]) + ("…" if len(prompt.text) > _PROMPT else "")
    if prompt.label is not None:
        return visible(classes[prompt.label]) if 0 <= prompt.label < len(classes) else str(prompt.label)
    return "" if position is None else f"#{position + 1}"
