"""Parquet files of text, points or images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from upturn.data.images import ImageOptions
from upturn.data.sources._columns import Columns, Table, check_present, joined
from upturn.data.sources._common import files
from upturn.data.sources._tables import splits
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Splits


@dataclass(frozen=True, kw_only=True)
class Parquet(Columns, ImageOptions, Source):
    """Parquet files of text, prompts with completions, points, or images; the fields name the columns.

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
        wanted = self.wanted(self.image)
        found = files(self.path, "path")
        train = joined([_table(path, wanted) for path in found])
        test = joined([_table(path, wanted) for path in files(self.test, "test")]) if self.test else None
        return splits(train, test, self, f"parquet:{found[0].stem}", self.image)


def _table(path: Path, wanted: dict[str, str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            check_present(wanted, opened.schema_arrow.names, str(path))
            read = opened.read(columns=sorted(set(wanted.values())))
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"this Parquet file cannot be read, it is cut short or damaged ({str(error).splitlines()[0]})",
            where=str(path), fix="Write or download it again.",
        ) from error
    return Table({name: read[name].to_pylist() for name in read.column_names}, lambda row: f"{path}, row {row}")
