"""What images of several sizes change in a plan: more batches an epoch, and steps that are timed on one size."""

from __future__ import annotations

from collections import Counter

from upturn.types import Samples


def more_batches(samples: Samples, size: int) -> int:
    """How many more batches an epoch has than if all images had one size: each size has its own last batch."""
    counts = _counts(samples)
    return sum(-(-count // size) for count in counts.values()) - -(-len(samples) // size) if counts else 0


def of_one_size(samples: Samples) -> Samples:
    """Those of the most frequent size, which all are of about one area; all of them where content has one shape."""
    counts = _counts(samples)
    if len(counts) < 2:
        return samples
    most = counts.most_common(1)[0][0]
    return samples.take([row for row, image in enumerate(samples.content) if image.shape == most])


def _counts(samples: Samples) -> Counter[tuple[int, ...]]:
    several = samples.kind == "image" and samples.content.dtype == object
    return Counter(image.shape for image in samples.content) if several else Counter()
