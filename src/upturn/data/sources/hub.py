"""Data sets of the Hugging Face hub, or saved by its library on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.data.images import ImageOptions
from upturn.data.sources._columns import Columns, Table, check_present
from upturn.data.sources._tables import splits
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Splits


@dataclass(frozen=True, kw_only=True)
class Hub(Columns, ImageOptions, Source):
    """A data set of the Hugging Face hub, or a local folder (of save_to_disk, or of files); no remote code is run.

    Content (N,) str, (N, d) float32, or (N, size, size, channels) uint8; the fields name the columns, and without them
    the columns of conversations or text are recognized.

    path      name on the hub ("owner/name"), or a folder
    config    configuration of the data set, where it has several
    revision  commit, tag or branch on the hub; name one to read the same data next year
    split     which split is the data
    test      the split that is held out; without it a share of ``split`` is
    image     column of images
    """

    path: str
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    test: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        self.check_columns(self.image)
        self.check_image_options()
        if self.test == self.split:
            raise ValueError(f"test and split are both '{self.split}': what is trained on cannot be held out")

    @property
    def kind(self) -> Kind:
        return "image" if self.image else "points" if self.points else "text"

    def load(self) -> Splits:
        """Reads the splits. Raises UserError naming the splits and columns found and the one expected, or that the
        data set cannot be reached."""
        found = self._open()
        source = f"hub:{Path(self.path).name if Path(self.path).exists() else self.path}"
        spec = self.settled(self._split(found, self.split, "split").column_names, f"{self.path}, split {self.split}",
                            self.image)
        train = spec._table(found, self.split, "split")
        test = spec._table(found, self.test, "test") if self.test else None
        return splits(train, test, spec, source, self.image)

    def _open(self) -> dict[str, Any]:
        import datasets

        folder = Path(self.path).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            if saved:
                found = datasets.load_from_disk(str(folder))
            else:
                name = str(folder) if folder.exists() else self.path
                found = datasets.load_dataset(name, self.config, revision=self.revision)
        except Exception as error:  # the library raises its own, OSError, ValueError and those of its HTTP client
            here = "this folder cannot be read as a data set" if folder.exists() else "this data set cannot be loaded"
            advice = (
                "Give a folder of save_to_disk, or of Parquet, JSON or CSV files." if folder.exists()
                else "Check the name and the network, or give a local folder."
            )
            raise UserError(f"{here} ({_first_line(error)})", where=self.path, fix=advice) from error
        return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}

    def _split(self, found: dict[str, Any], split: str, key: str) -> Any:
        if split not in found:
            raise UserError(
                f"split '{split}' is expected (field '{key}'); found: {', '.join(found)}", where=self.path,
                fix=f"Set '{key}' to one of the splits found.",
            )
        return found[split]

    def _table(self, found: dict[str, Any], split: str, key: str) -> Table:
        import datasets

        data = self._split(found, split, key)
        wanted = self.wanted(self.image)
        check_present(wanted, data.column_names, f"{self.path}, split {split}")
        named: tuple[str, ...] = ()
        if self.label and isinstance(data.features[self.label], datasets.ClassLabel):
            named = tuple(data.features[self.label].names)
        data = data.select_columns(sorted(set(wanted.values())))
        if self.image and isinstance(data.features[self.image], datasets.Image):
            data = data.cast_column(self.image, datasets.Image(decode=False))
        columns = {name: list(data.with_format(None)[name]) for name in data.column_names}
        if self.image:
            columns[self.image] = [_with_bytes(value) for value in columns[self.image]]
        return Table(columns, lambda row: f"{self.path}, split {split}, row {row}", named)


def _with_bytes(value: object) -> Any:
    """The library keeps images of image folders as paths: read here, so that one reader serves all."""
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        path = Path(value["path"])
        return {**value, "bytes": path.read_bytes()} if path.is_file() else value
    return value


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
