"""What pictures of several sizes change in a plan: more batches an epoch, and steps that are timed on one size."""

from __future__ import annotations

from collections import Counter

from upturn.types import Samples


def more_batches(samples: Samples, size: int) -> int:
    """Batches of at most ``size`` an epoch has more than if all pictures were alike: every size has its last one."""
    counts = _counts(samples)
    return sum(-(-count // size) for count in counts.values()) - -(-len(samples) // size) if counts else 0


def of_one_size(samples: Samples) -> Samples:
    """Those of the most frequent size, which all are of about one area; all of them where content is alike."""
    counts = _counts(samples)
    if len(counts) < 2:
        return samples
    most = counts.most_common(1)[0][0]
    return samples.take([row for row, picture in enumerate(samples.content) if picture.shape == most])


def _counts(samples: Samples) -> Counter[tuple[int, ...]]:
    several = samples.kind == "image" and samples.content.dtype == object
    return Counter(picture.shape for picture in samples.content) if several else Counter()
