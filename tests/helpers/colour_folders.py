"""Folders of plain-coloured images for tests of search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from helpers.dual_encoders import COLOURS, coloured


def folder_of_colours(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(4)
    names = list(COLOURS) * 12
    lines = []
    for i, (name, picture) in enumerate(zip(names, coloured(names, rng, 16, 40), strict=True)):
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
        lines.append(json.dumps({"file_name": f"{i:02d}.png", "name": f"{name} square <b>{i}</b>"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder
