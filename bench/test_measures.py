"""Metrics at full size: 50,000 features of 2,048 numbers in 4 GB; against the reference packages at 10,000."""

from __future__ import annotations

import pytest
from common import once, say

_MOST, _GIGABYTES = 50_000, 4.0  # issue 6, item 6
_BESIDE = 10_000
_AGREES = {"frechet": 1e-6, "prdc": 1e-9}  # relative, absolute; prdc's own distances are sums in float32 of blocks


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("what", ["frechet", "prdc"])
def test_fifty_thousand_fit(what: str) -> None:
    found = once("measures.py", what, "ours", str(_MOST))
    say(f"{what} at {_MOST:,} x 2,048: peak, GB; above the features, GB; seconds",
        (round(found["peak"] / 1e3, 2), round(found["above"] / 1e3, 2), round(found["seconds"])))
    assert found["peak"] / 1e3 <= _GIGABYTES


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("what", ["frechet", "prdc"])
def test_beside_the_reference(what: str) -> None:
    ours, theirs = (once("measures.py", what, whose, str(_BESIDE)) for whose in ("ours", "theirs"))
    say(f"{what} at {_BESIDE:,}: seconds, ours and theirs", (round(ours["seconds"], 1), round(theirs["seconds"], 1)))
    say(f"{what} at {_BESIDE:,}: theirs / ours in time", f"{theirs['seconds'] / ours['seconds']:.2f}")
    say(f"{what} at {_BESIDE:,}: MB above the features, ours and theirs",
        (round(ours["above"]), round(theirs["above"])))
    for name in ("frechet",) if what == "frechet" else ("precision", "recall", "density", "coverage"):
        say(f"{name} at {_BESIDE:,}: ours, theirs", (ours[name], theirs[name]))
        if what == "frechet":
            assert ours[name] == pytest.approx(theirs[name], rel=_AGREES[what])
        else:
            assert ours[name] == pytest.approx(theirs[name], abs=_AGREES[what])
    assert ours["seconds"] < theirs["seconds"]


@pytest.mark.timeout(7200)
def test_fld_at_ten_thousand() -> None:
    """Samples, held-out data and both halves of the training data are 10,000 each."""
    found = once("measures.py", "fld", "ours", str(_BESIDE))
    say(f"fld at {_BESIDE:,} x 2,048: value; seconds; peak, GB; above the features, GB",
        (round(found["fld"], 2), round(found["seconds"]), round(found["peak"] / 1e3, 2),
         round(found["above"] / 1e3, 2)))
    assert found["peak"] / 1e3 <= _GIGABYTES
