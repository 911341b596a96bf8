"""Caches results that several metrics of one evaluation need, by a digest of their inputs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
_MOST = 8  # answers kept: neighbours of two sets and what lies between them, at two numbers of neighbours
_known: OrderedDict[tuple[object, ...], object] = OrderedDict()


def remembered(make: Callable[P, R]) -> Callable[P, R]:
    """``make``, a pure function of arrays and plain values, whose last answers are kept and must not be written to.

    The key is a digest of the arrays (under 1 s a GB), so that features which were gathered again are recognised.
    """
    def found(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (make.__module__, make.__qualname__, *map(_digest, args), *sorted(kwargs.items()))
        if key not in _known:
            _known[key] = make(*args, **kwargs)
            if len(_known) > _MOST:
                _known.popitem(last=False)
        _known.move_to_end(key)
        return _known[key]  # type: ignore[return-value]

    return found


def _digest(value: object) -> object:
    if not isinstance(value, np.ndarray):
        return value
    array = np.ascontiguousarray(value)
    return str(array.dtype), array.shape, hashlib.sha256(array.data.cast("B")).digest()
