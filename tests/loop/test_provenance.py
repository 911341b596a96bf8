"""Tests of the provenance check: the share of real data is estimated and reported as an interval."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from upturn.config import recipe
from upturn.config.schema import Provenance
from upturn.errors import UserError
from upturn.loop import loop
from upturn.loop.stages.provenance import _likelihood
from upturn.report.page import render
from upturn.store import parquet_tables
from upturn.store.run import Run

pytestmark = pytest.mark.slow

PLANTED = "helpers.planted_source:Planted"
GAUSSIAN = """
name: {name}
threads: 1
data: {{name: "helpers.planted_source:Planted", n: 500, {data}}}
models: {{policy: gaussian}}
features: points
stages: [{{name: fit, steps: 1}}]
rounds:
  count: {rounds}
  sample: {{prompts: 400, candidates: 1}}
  mix: {{policy: replace, lambda: 1.0}}
  train: {{steps: 1}}
evaluate: {{prompts: 50, metrics: [nearest_real]}}
"""


def ran(folder, name: str, data: str = "seed: 1", more: str = "", rounds: int = 1) -> Run:
    text = GAUSSIAN.format(name=name, data=data, rounds=rounds) + more
    return loop.run(recipe.parse(text, f"{name}.yaml"), folder)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("runs"), "earlier")


def test_planted_samples_of_an_earlier_run_are_found_and_reported(earlier, tmp_path):
    share = 0.4
    done = ran(
        tmp_path, "later", f"seed: 2, share: {share}, run: {earlier.folder}",
        f"provenance: {{trusted: {{name: '{PLANTED}', n: 500, seed: 7}}, runs: [{earlier.folder}]}}",
    )
    found = done.done("data", "provenance").info
    # the share of the training part is not the source's own: 400 of 500 rows, so 2.2 points of deviation
    assert found["how"] == "mixture" and found["low"] - 0.05 <= share <= found["high"] + 0.05
    assert found["low"] > 0.1 and found["high"] < 0.7
    page = render(done)
    assert "of the data labelled real is synthetic" in page
    assert "400 samples against 500 trusted real samples" in page
    assert f"real {100 * (1 - found['high']):.0f}% to {100 * (1 - found['low']):.0f}%" in page


def test_real_data_gives_no_warning(earlier, tmp_path):
    asked = f"provenance: {{trusted: {{name: '{PLANTED}', seed: 8}}, runs: [{earlier.folder}]}}"
    found = ran(tmp_path, "clean", "seed: 3", asked).done("data", "provenance").info
    assert found["low"] < 0.05 and found["high"] < 0.3


def covariance(factor: np.ndarray) -> np.ndarray:
    """Of a stored factor: below the diagonal as it is, on it the exponential."""
    root = np.tril(factor.astype(np.float64), -1) + np.diag(np.exp(np.diag(factor).astype(np.float64)))
    return root @ root.T


def test_the_likelihood_is_that_of_the_earlier_runs_policy(earlier, tmp_path):
    """Against scipy's normal density of the run's stored moments; of two runs the likelier speaks; weights that are
    gone say nothing."""
    other = ran(tmp_path, "other", "seed: 9")
    moments = [load_file(run.unit("rounds/001") / "model" / "model.safetensors") for run in (earlier, other)]
    samples = parquet_tables.read_samples(earlier.unit("rounds/001") / "samples.parquet")
    points = np.stack(list(samples.content))
    normals = [stats.multivariate_normal(m["mean"], covariance(m["factor"])) for m in moments]
    want = np.max([normal.logpdf(points) for normal in normals], axis=0)
    found = _likelihood(Provenance(runs=[str(earlier.folder), str(other.folder)]))
    assert found(samples) == pytest.approx(want, abs=1e-4)
    shutil.rmtree(other.unit("rounds/001") / "model")
    assert _likelihood(Provenance(runs=[str(other.folder)])) is None


@pytest.mark.parametrize(("asked", "said"), [
    ("{}", "trusted"),
    ("{runs: [nowhere]}", "no run here"),
    ("{trusted: digits}", "the trusted source gives image"),
])
def test_runs_that_cannot_be_compared_are_refused(asked, said, tmp_path):
    with pytest.raises(UserError, match=said):
        ran(tmp_path, "wrong", more=f"provenance: {asked}")
