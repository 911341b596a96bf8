"""Commented recipes to start from, one a kind of data."""

from __future__ import annotations

from collections.abc import Mapping

_ROUNDS = """
rounds:
  count: 3                # how many times the loop turns
  sample:
    prompts: {prompts}
    candidates: 4         # K a prompt; one is chosen
{score}  mix:
    policy: replace       # or accumulate, accumulate_subsample, fresh
    lambda: 0.5           # synthetic : real, by weight. 0.5 is two thirds real; .inf has no real data at all
  train:
    epochs: {epochs}
    learning_rate: 2.0e-4

evaluate:
  prompts: 300            # fixed prompts and noise, the same in every round
  metrics: [{metrics}]

gate:                     # a round is promoted only if this metric is better beyond chance ...
  metric: {gate}
  alpha: 0.05             # ... at this level over all rounds together
{guards}"""

_IMAGES = """# Your pictures. Look first at what it will cost:   upturn plan {file}
name: my-images
seed: 0

data:
  name: imagefolder
  path: path/to/pictures  # one folder a class, or a metadata.jsonl, or a .txt beside each picture
  size: 16                # pictures are cropped and scaled to this many pixels

models:
  policy:                 # what is trained
    name: pixels
    size: 16
    channels: 3
    network: unet         # mlp is for pictures of 8 pixels

features: pixels          # what distances between pictures are measured on

stages:                   # before the rounds: all the data, then the best of it ('where:' names a field of yours)
  - name: pretrain
    epochs: 100
    ema: 0.999
""" + _ROUNDS.format(
    prompts=200, epochs=20, metrics="held_out_loss, frechet, coverage, precision, memorisation", gate="held_out_loss",
    score="""  curate:                 # here only copies are dropped; add 'score:' and 'choice' to steer by a reward
    - deduplicate
""",
    guards="  guards:\n    coverage: {at_least: 0.9}   # of what it was in round 0\n",
)

_TEXT = """# Your texts. Look first at what it will cost:   upturn plan {file}
name: my-text
seed: 0

data:
  name: corpus
  paths: [path/to/texts]  # files, folders or patterns; without this line: the Python reference inside CPython
  length: 300             # characters a sample

models:
  policy:                 # what is trained: here a small model from nothing; 'folder:' or 'hub:' names one of yours
    name: causal_lm
    config: {model_type: llama, hidden_size: 128, intermediate_size: 256, num_hidden_layers: 2, num_attention_heads: 4}
    tokenizer: {kind: bpe, size: 1000}

stages:
  - name: pretrain
    epochs: 3
    batch_size: 32
    learning_rate: 1.0e-3
""" + _ROUNDS.format(
    prompts=200, epochs=1, metrics="perplexity, distinct", gate="perplexity",
    score="""    settings: {max_tokens: 100}
  curate:                 # here only copies are dropped
    - deduplicate
""",
    guards="",
)

_POINTS = """# Points in the plane, to see what the loop does in half a minute.   upturn run {file}
name: my-points
seed: 0

data:
  name: points
  shape: two_moons
  n: 2000

models:
  policy: points

features: points

stages:
  - name: pretrain
    steps: 800
    batch_size: 256
    learning_rate: 1.0e-2
    ema: 0.99
""" + _ROUNDS.format(
    prompts=500, epochs=20, metrics="reward, coverage, precision", gate="reward",
    score="""  score:                  # what is wanted: points near this one
    - {name: closeness, to: [1.0, 0.0], width: 1.0}
  curate:
    - choice              # one of the K, with probability softmax(reward)
""",
    guards="  guards:\n    coverage: {at_least: 0.9}   # of what it was in round 0\n",
)

STARTERS: Mapping[str, str] = {
    name: text.replace("{file}", "recipe.yaml") for name, text in
    (("images", _IMAGES), ("text", _TEXT), ("points", _POINTS))
}
