"""The steps of the loop: plain functions from what is stored to what is stored, each committed whole or not at all."""

from upturn.stages.base import base
from upturn.stages.checkpoints import checkpoints
from upturn.stages.curate import curate
from upturn.stages.evaluate import evaluate
from upturn.stages.filter import filter_real
from upturn.stages.gate import gate
from upturn.stages.load import load
from upturn.stages.mix import mix_real, mix_round
from upturn.stages.provenance import provenance
from upturn.stages.prune import prune
from upturn.stages.refit import judge, refit
from upturn.stages.sample import sample
from upturn.stages.score import score
from upturn.stages.score_words import score_words
from upturn.stages.train import fit, train
from upturn.stages.vote import edited, vote
from upturn.stages.work import Done, Outcome, Waiting, Work

__all__ = [
    "Done", "Outcome", "Waiting", "Work", "base", "checkpoints", "curate", "edited", "evaluate", "filter_real", "fit",
    "gate", "judge", "load", "mix_real", "mix_round", "provenance", "prune", "refit", "sample", "score", "score_words",
    "train", "vote",
]
