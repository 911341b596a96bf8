"""Score words on real emoji: a model trained with words for the amount of ink draws more of it on request."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from common import run, say
from emoji import EMOJI

from upturn import seeds
from upturn.config import recipe
from upturn.data.score_words import asking
from upturn.loop.assemble import assemble
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.observer import Observer

WORDS = ("dark", "middling", "bright")
SHARES = f"score_words={{score: ink, shares: {{0: {WORDS[0]}, 0.333: {WORDS[1]}, 0.667: {WORDS[2]}}}}}"


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not EMOJI.is_dir(), reason="the emoji images are not installed")
def test_a_model_draws_what_the_words_ask_for() -> None:
    done, _ = run("score-words", "emoji.yaml", f"data.path={EMOJI}", SHARES, "stages.0.epochs=12",
                  "stages.0.checkpoint_epochs=[]", "evaluate.metrics=[prompt_responsiveness]", "evaluate.captions=null")
    parts = assemble(recipe.parse(done.recipe_text, "recipe.yaml"))
    context = RunContext(done, parts, Observer())
    policy = context.policy("rounds/000/train")
    plain = list(context.tools.held_out.prompts)
    keys = prompt_keys(seeds.key("score words"), plain, 2)
    spoken = parts.score_words
    assert spoken is not None
    ink = {
        word: context.judged(
            context.draw(policy, [asking(p, word) for p in plain], keys, parts.evaluators[0].settings), spoken.scorers
        )[1].reshape(keys.shape).mean(axis=1)
        for word in WORDS
    }
    for word in WORDS:
        say(f"emoji: ink of {keys.size} images requested as {word}", f"{ink[word].mean():.4f}")
    for low, high in pairwise(WORDS):
        gap = ink[high] - ink[low]
        half = 1.96 * float(np.std(gap, ddof=1)) / math.sqrt(len(gap))
        say(f"emoji: {high} less {low}, the same prompts and noise", f"{gap.mean():+.4f} +- {half:.4f}")
        assert gap.mean() - half > 0
