"""Tests of score words: a word for the reward is appended to each training caption, the best one to prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn import plan as planning
from upturn.config import recipe
from upturn.data import score_words as words
from upturn.data.caption_fields import CAPTIONS
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.report.page import render
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import REAL, SYNTHETIC, Prompt

pytestmark = pytest.mark.slow

RECIPE = """
name: shining
threads: 1
data: {{name: imagefolder, path: {data}, label: sort, size: 16, held_out: 0.25}}
captions: {{name: template, template: ["a ${{name}}", "the ${{name}}"]}}
score_words: {{score: ink, shares: {{0.5: bright, 0.75: very bright}}}}
models: {{policy: {{name: text_to_image, config: {{channels: [16, 32], head_dim: 8, text_width: 16, text_layers: 1}}}}}}
features: pixels
stages: [{{name: tune, steps: 2, batch_size: 8}}]
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 2, settings: {{steps: 2}}}}
  score: ink
  curate: choice
  train: {{steps: 2, batch_size: 8}}
evaluate: {{prompts: 4, metrics: [reward], settings: {{steps: 2}}}}
grid: {{prompts: 2, per_prompt: 1}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 plain images, each brighter than the one before."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(40):
        Image.fromarray(np.full((16, 16, 3), 6 * i, dtype=np.uint8)).save(folder / "images" / f"{i:02d}.png")
        lines.append(f'{{"file_name": "images/{i:02d}.png", "name": "thing {i}", "sort": "{"ab"[i % 2]}"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe_with(data: Path, *settings: str) -> recipe.Recipe:
    return recipe.parse(RECIPE.format(data=data), "test", settings)


def brightness(content: Any) -> float:
    return float(np.asarray(content, dtype=np.float64).mean()) / 255


def test_words_by_levels_and_by_shares() -> None:
    """Against counting: a share is of the known rewards that are below, ties and NaN as they should be."""
    rewards = np.array([0.1, 0.2, 0.3, 0.4, np.nan, 0.5, 0.6, 0.7, 0.8])
    least = words.thresholds({}, {0.5: "good", 0.75: "best"}, rewards)
    said = words.earned(least, rewards)
    known = rewards[~np.isnan(rewards)]
    below = [float((known < reward).mean()) for reward in rewards]
    known_to_be = [("", "good", "best")[(b >= 0.5) + (b >= 0.75)] for b in below]
    want = ["" if np.isnan(r) else word for r, word in zip(rewards, known_to_be, strict=True)]
    assert said.tolist() == want
    at = np.array([-1, 0.0, 0.49, 0.5])
    assert words.earned({0.5: "good", 0.0: "fair"}, at).tolist() == ["", "fair", "fair", "good"]
    with pytest.raises(ValueError, match="none is better than 60%"):
        words.thresholds({}, {0.6: "good"}, np.array([0.0, 1, 1, 1]))
    with pytest.raises(ValueError, match="no reward is known"):
        words.thresholds({}, {0.5: "good"}, np.array([np.nan]))


def test_words_added_to_a_prompt_can_be_removed() -> None:
    for text in ("a cat", "", "a cat, bright"):
        prompt = words.asking(Prompt(text, fields={"name": "x"}), "bright")
        assert prompt.fields == {"name": "x"} and prompt.text.endswith("bright")
        assert words._without(prompt.text, "bright") == text
        assert words._without(words.asking(Prompt(text), "").text, "") == text
    assert words._without("a list, ", "") == "a list, "


def test_a_run_appends_the_score_word_to_each_caption(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Planted brightness: words by its order in the training part, each synthetic image by its own."""
    heard: list[list[str]] = []
    encoded = type(assemble(recipe_with(data)).model("policy")).encode

    def listening(self: Any, samples: Any, *more: Any) -> Any:
        captions = samples.fields.get(CAPTIONS, [(p.text,) for p in samples.prompts])
        heard.append([text for texts in captions for text in texts])
        return encoded(self, samples, *more)

    monkeypatch.setattr(type(assemble(recipe_with(data)).model("policy")), "encode", listening)
    done = loop.run(recipe_with(data), tmp_path / "runs")
    assert done.state.state == "done"
    record = done.done("data", "score_words")
    assert record is not None
    assert record.info["training_samples"] == {"none": 15, "bright": 8, "very bright": 7}
    least = {word: at for at, word in record.info["least"]}

    def word(content: Any) -> str:
        value = brightness(content)
        return "very bright" if value >= least["very bright"] else "bright" if value >= least["bright"] else ""

    for unit in ("rounds/000/tune", "rounds/001"):
        samples = parquet_tables.read_mixture(done, done.unit(unit) / "mixture.parquet").samples
        assert samples.fields[words.FIELD].tolist() == [word(content) for content in samples.content]
    assert {REAL, SYNTHETIC} == set(samples.origin)
    made = parquet_tables.read_samples(done.unit("rounds/001") / "samples.parquet")
    assert all(prompt.text.endswith(", very bright") for prompt in made.prompts)
    assert all(p.text.endswith(", very bright")
               for p in parquet_tables.read_samples(done.unit("rounds/001") / "evaluation.parquet").prompts)
    # what the trainer read in the round: real captions with their word, the model's own with what they earned
    want = []
    for prompt, content, origin in zip(samples.prompts, samples.content, samples.origin, strict=True):
        text = prompt.text.removesuffix(", very bright") if origin == SYNTHETIC else prompt.text
        other = [text.replace("a ", "the ", 1)] if origin == REAL else []
        want += [", ".join(part for part in (one, word(content)) if part) for one in (text, *other)]
    assert want in heard
    held_out = [texts for texts in heard if len(texts) == 20]  # ten images, two captions each
    assert held_out and any(text.endswith("bright") for text in held_out[0])


def test_a_second_start_finds_it_all_done(data: Path, tmp_path: Path) -> None:
    first = loop.run(recipe_with(data), tmp_path / "runs")
    before = {path: path.read_bytes() for path in first.folder.rglob("*.parquet")}
    again = loop.run(recipe_with(data), tmp_path / "runs")
    page = render(again)
    assert "by ink: “bright” above 50% of the training data and “very bright” above 75% of the training data" in page
    assert "Sampling uses “very bright”." in page and "a ${name} the ${name}" in page
    assert {path: path.read_bytes() for path in again.folder.rglob("*.parquet")} == before


def test_other_words_can_be_configured(data: Path, tmp_path: Path) -> None:
    done = loop.run(recipe_with(data, "score_words.ask=dull", "rounds=null"), tmp_path / "runs")
    shown = parquet_tables.read_samples(done.unit("rounds/000/tune") / "evaluation.parquet")
    assert all(prompt.text.endswith(", dull") for prompt in shown.prompts)


def test_the_plan_counts_the_scoring(data: Path) -> None:
    rows = planning.plan(recipe_with(data)).rows
    assert [(row.unit, row.samples) for row in rows if row.step == "score_words"] == [("data", 40), ("rounds/001", 4)]


def test_impossible_settings_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exactly one of 'levels'"):
        recipe_with(data, "score_words.levels={0.5: bright}")
    with pytest.raises(UserError, match="reads no text"):
        assemble(recipe_with(data, "models.policy={name: pixels, classes: 2}", "captions=null"))
    with pytest.raises(UserError, match="first trained after"):
        assemble(recipe_with(data, "score_words.score={name: alignment, model: policy}"))
    with pytest.raises(UserError, match=r"'judge', which 'models:' does not have"):
        assemble(recipe_with(data, "score_words.score={name: alignment, model: judge}"))


def test_scorers_without_any_score_end_the_run(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from upturn.scorers.ink import Ink
    from upturn.types import Scores

    monkeypatch.setattr(Ink, "score", lambda self, samples, tools: Scores("ink", np.full(len(samples), np.nan)))
    with pytest.raises(RunError, match="of 30 training samples, no reward is known"):
        loop.run(recipe_with(data), tmp_path / "runs")
    assert Run.open(tmp_path / "runs" / "shining").done("data", "load") is not None
