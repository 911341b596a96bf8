"""What the promise of the same bytes rests on: machine, threads, processes and versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata

_COUNT = ("torch", "numpy", "accelerate", "diffusers", "transformers", "scikit-learn", "scipy", "upturn")


def fingerprint() -> dict[str, str]:
    """Of this process, here and now."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "processes": os.environ.get("WORLD_SIZE", "1"),
        **{name: metadata.version(name) for name in _COUNT},
    }


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is different, as ``threads was 2 and is 4``."""
    return [
        f"{name} was {then.get(name, 'unknown')} and is {now.get(name, 'unknown')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
