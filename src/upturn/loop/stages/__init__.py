"""The steps of the loop: plain functions from what is stored to what is stored, each committed whole or not at all."""

from upturn.loop.run_context import RunContext
from upturn.loop.stages.curate import curate
from upturn.loop.stages.epoch_checkpoints import checkpoints
from upturn.loop.stages.evaluate import evaluate
from upturn.loop.stages.filter_real import filter_real
from upturn.loop.stages.gate import gate, skip
from upturn.loop.stages.load import load
from upturn.loop.stages.mix import mix_real, mix_round
from upturn.loop.stages.outcome import Done, Outcome, Waiting
from upturn.loop.stages.provenance import provenance
from upturn.loop.stages.prune import prune
from upturn.loop.stages.refit import judge, refit
from upturn.loop.stages.round_zero import base
from upturn.loop.stages.sample import sample
from upturn.loop.stages.score import score
from upturn.loop.stages.score_words import score_words
from upturn.loop.stages.train import as_it_came, fit, train
from upturn.loop.stages.vote import edited, vote

__all__ = [
    "Done",
    "Outcome",
    "RunContext",
    "Waiting",
    "as_it_came",
    "base",
    "checkpoints",
    "curate",
    "edited",
    "evaluate",
    "filter_real",
    "fit",
    "gate",
    "judge",
    "load",
    "mix_real",
    "mix_round",
    "provenance",
    "prune",
    "refit",
    "sample",
    "score",
    "score_words",
    "skip",
    "train",
    "vote",
]
