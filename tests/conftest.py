"""Test settings: one thread per worker, no network, and no deadlines on a busy machine."""

from __future__ import annotations

import gc
import os
import re
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for offline in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.setdefault(offline, "1")
# Many tests start a process: without compiled files each would compile the whole package again, for 2 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from hypothesis import settings  # noqa: E402 (what it imports reads the environment)

settings.register_profile("shared machine", deadline=None, derandomize=True)
settings.load_profile("shared machine")


# Collecting imports most libraries: a million objects, which stay. Looking for garbage among them costs a quarter more.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: Any) -> bool | None:
    """Files that are slow as a whole are not imported where slow tests are left out: imports take most of a minute."""
    if "not slow" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    marks = re.search(r"^pytestmark = (\[.*?\]|.*?)$", text, re.DOTALL | re.MULTILINE)
    return True if marks and "mark.slow" in marks[1] else None
