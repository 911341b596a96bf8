"""Parquet files of conversations, text, points or images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.data.images import ImageOptions
from upturn.data.sources._columns import Columns, Table, check_present, joined
from upturn.data.sources._common import files
from upturn.data.sources._tables import splits
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Splits


@dataclass(frozen=True, kw_only=True)
class Parquet(Columns, ImageOptions, Source):
    """Parquet files of conversations, text, prompts with completions, points, or images; the fields name the columns.

    Content (N,) str, (N, d) float32, or (N, size, size, channels) uint8.

    path   a file, or a glob
    test   the data's own test file; its rows whose content is in train are taken out and counted
    image  column of images: bytes, or Hugging Face's struct of bytes and path
    """

    path: str
    test: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        self.check_columns(self.image)
        self.check_image_options()

    @property
    def kind(self) -> Kind:
        return "image" if self.image else "points" if self.points else "text"

    def load(self) -> Splits:
        """Reads the columns named. Raises UserError naming the file, the row, the columns found and expected."""
        found = files(self.path, "path")
        spec = self.settled(_opened(found[0], lambda file: list(file.schema_arrow.names)), str(found[0]), self.image)
        train = joined([_table(path, spec, self.image) for path in found])
        test = joined([_table(path, spec, self.image) for path in files(self.test, "test")]) if self.test else None
        return splits(train, test, spec, f"parquet:{found[0].stem}", self.image)


def _table(path: Path, spec: Columns, image: str | None) -> Table:
    wanted = spec.wanted(image)

    def columns(file: Any) -> Any:
        check_present(wanted, file.schema_arrow.names, str(path))
        return file.read(columns=sorted(set(wanted.values())))

    read = _opened(path, columns)
    try:
        values = {name: read[name].to_pylist() for name in read.column_names}
    except UnicodeDecodeError as error:
        raise UserError(
            f"a column of text holds bytes that are not UTF-8 ({error})", where=str(path), fix="Write it again."
        ) from error
    return Table(values, lambda row: f"{path}, row {row}")


def _opened(path: Path, read: Callable[[Any], Any]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            return read(opened)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"this Parquet file cannot be read, it is cut short or damaged ({str(error).splitlines()[0]})",
            where=str(path), fix="Write or download it again.",
        ) from error
