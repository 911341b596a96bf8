"""Test settings: one thread per worker, no network, and no deadlines on a busy machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for offline in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.setdefault(offline, "1")

from hypothesis import settings  # noqa: E402 (what it imports reads the environment)

settings.register_profile("shared machine", deadline=None, derandomize=True)
settings.load_profile("shared machine")
