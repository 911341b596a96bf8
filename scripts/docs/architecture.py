"""Two drawings of the package, generated from its imports: the layers, and which package imports which."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "upturn"
WIDTH, LABEL, BOX, GAP = 1080, 40, 46, 10  # pixels
FONT = 'font-family="system-ui, sans-serif"'


@dataclass(frozen=True)
class Box:
    """One package or module at the top level of ``upturn``."""

    name: str
    row: int
    modules: int
    components: int


def layer_test() -> ModuleType:
    """tests/project/test_layers.py: the one list of layers, and the reader of imports."""
    path = ROOT / "tests" / "project" / "test_layers.py"
    spec = importlib.util.spec_from_file_location("test_layers", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(ROOT / "tests"))  # its helpers
    spec.loader.exec_module(module)
    return module


def boxes(layers: Any) -> list[Box]:
    """Every package that exists, in the order of the layers."""
    modules = layers.modules(PACKAGE)
    sizes = Counter(name.split(".")[0] for name in modules)
    plug_ins = Counter(name.split(".")[0] for name in modules if layers.is_plug_in(name))
    out = []
    for row, line in enumerate(layers.LAYERS, start=1):
        for name in (word.strip() for part in line.split(";") for word in part.split(",")):
            if name in sizes:
                out.append(Box(name, row, sizes[name], plug_ins[name]))
    return out


def layers_svg(found: list[Box]) -> str:
    """One band a layer; a box a package, with its number of modules."""
    rows = sorted({box.row for box in found})
    height = len(rows) * (BOX + GAP) + GAP
    lines = [header(WIDTH, height, "The layers of upturn")]
    for i, row in enumerate(rows):
        y = GAP + i * (BOX + GAP)
        lines.append(f'<rect x="0" y="{y - 4}" width="{WIDTH}" height="{BOX + 8}" rx="6" fill="#f3f4f8"/>')
        lines.append(text(LABEL / 2, y + BOX / 2 + 5, str(row), 14, "#6b7280"))
        inside = [box for box in found if box.row == row]
        width = min(240, (WIDTH - LABEL - GAP) / len(inside) - GAP)
        for j, box in enumerate(inside):
            x = LABEL + GAP + j * (width + GAP)
            fill, line = ("#dfe7fd", "#3f51b5") if box.components else ("#ffffff", "#9ca3af")
            lines.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX}" rx="5" fill="{fill}" stroke="{line}"/>'
            )
            size = f"{box.modules} module{'s' if box.modules > 1 else ''}"
            if box.components:
                size += f", {box.components} components"
            lines.append(text(x + width / 2, y + 20, label(box.name), 15, "#111827"))
            lines.append(text(x + width / 2, y + 37, size, 11, "#4b5563"))
    return "\n".join([*lines, "</svg>", ""])


def matrix_svg(found: list[Box], imports: Counter[tuple[str, str]]) -> str:
    """A square for each pair of packages: the one in the row imports the one in the column."""
    cell, left, top = 23, 150, 130
    names = [box.name for box in found]
    side = cell * len(names)
    lines = [header(left + side + 10, top + side + 10, "Which package imports which")]
    for i, name in enumerate(names):
        y = top + i * cell
        if i % 2 == 0:
            lines.append(f'<rect x="0" y="{y}" width="{left + side}" height="{cell}" fill="#f3f4f8"/>')
        lines.append(text(left - 8, y + 16, label(name), 12, "#111827", "end"))
        x = left + i * cell + 15
        lines.append(
            f'<text transform="translate({x},{top - 6}) rotate(-60)" {FONT} font-size="12" fill="#111827">'
            f"{escape(label(name))}</text>"
        )
    for i, source in enumerate(names):
        for j, target in enumerate(names):
            x, y = left + j * cell, top + i * cell
            if i == j:
                lines.append(f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="#d1d5db"/>')
            elif count := imports[source, target]:
                lines.append(
                    f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="3" fill="#3f51b5" '
                    f'fill-opacity="{min(1.0, 0.35 + count / 40):.2f}"><title>{label(source)} imports '
                    f"{label(target)} {count} times</title></rect>"
                )
                lines.append(text(x + cell / 2, y + 15, str(count), 9, "#ffffff"))
    return "\n".join([*lines, "</svg>", ""])


def label(name: str) -> str:
    return name or "upturn"


def header(width: float, height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
        f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>'
    )


def text(x: float, y: float, content: str, size: int, fill: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" {FONT} font-size="{size}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def drawings() -> dict[str, str]:
    """The SVG files by name."""
    layers = layer_test()
    found = boxes(layers)
    edges: Counter[tuple[str, str]] = Counter()
    for edge in layers.imports(PACKAGE):
        source, target = edge.source.split(".")[0], edge.target.split(".")[0]
        if source != target:
            edges[source, target] += 1
    return {"layers.svg": layers_svg(found), "imports.svg": matrix_svg(found, edges)}
