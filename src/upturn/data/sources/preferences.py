"""Preferences of people or judges: pairs, rankings, labels and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from upturn.data.images import ImageOptions
from upturn.data.json_lines import records
from upturn.data.sources import _preference_layouts as layouts
from upturn.data.sources import _preference_notes as notes
from upturn.data.sources._common import check_fraction, files
from upturn.data.sources._preference_layouts import Example, Layout
from upturn.data.sources._preference_notes import Believe
from upturn.data.sources._preference_rows import divided
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Splits


@dataclass(frozen=True, kw_only=True)
class Preferences(ImageOptions, Source):
    """Human preferences as JSON lines or Parquet: pairs, rankings, scores, labels, attributes.

    The columns of the first row determine the layout:

    - ``prompt, chosen, rejected``, with margin or strength, tie, chosen_score and rejected_score where there are any;
    - ``prompt, response_1, response_2, preference_strength`` as in HelpSteer2: below 0 the first is better, above 0 the
      second, 0 is a tie (HelpSteer3's response1, response2 and overall_preference, too; 'strongest: 3' for both);
    - ``prompt, completions`` (a list) with ``ranks`` (1 is best, equal is a tie, 0 unknown) or ``scores``, or both;
    - ``prompt, completion, label``: good (true, 1) or bad (false, 0), unpaired;
    - ``prompt, completion`` (or response) and the columns that ``attributes`` names, as in HelpSteer.

    Rows of one example have one ``group``. Fields: "rank" int64, "strength" and "score" float64 (NaN: none), and the
    attributes. Prompts and completions are text, or lists of {role, content} (or ShareGPT's {from, value}); dialogues
    as in hh-rlhf ("\\n\\nHuman: …\\n\\nAssistant: …") are messages, too. Without a prompt, the beginning that the
    completions share is it (of one completion: all before the last answer); a prompt that the completions repeat is
    taken out of them. A column of tools goes with the conversation. A note says which layout was read. About
    ``held_out`` of the prompts (of the contents, where there are none) are held out. Repeated examples stay: they may
    be votes of several annotators.

    path       a file, or a glob; .parquet, else JSON lines
    test       the data's own test file; its prompts that are in train are taken out and counted
    content    "image": chosen, rejected and completions are images (Parquet: bytes, or Hugging Face's struct)
    columns    our name -> the file's, where they differ: {chosen: better}
    attributes columns of numbers, each a field of the samples
    believe    where chosen_score and rejected_score contradict chosen and rejected: "order" (the scores are dropped),
               "scores" (the order is turned round) or "neither" (the example is left out)
    rendered   texts in which a chat template is written out (<|im_start|>, [INST], …) are read as its messages
    strongest  of strength or margin in the data, so that "strength" is a share of it (a scale of 0 to 3: 3)
    """

    compares: ClassVar[bool] = True  # its samples are ordered within groups

    path: str
    test: str | None = None
    content: Literal["text", "image"] = "text"
    columns: dict[str, str] = field(default_factory=dict)
    attributes: list[str] = field(default_factory=list)
    strongest: float = 1.0
    believe: Believe = "order"
    rendered: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        self.check_image_options()
        if not self.strongest > 0:
            raise ValueError(f"strongest must be above 0, not {self.strongest}")
        unknown = sorted(set(self.columns) - layouts.KNOWN)
        if unknown:
            raise ValueError(f"columns has no '{unknown[0]}': it has {', '.join(sorted(layouts.KNOWN))}")

    @property
    def kind(self) -> Kind:
        return self.content

    def load(self) -> Splits:
        """Reads the examples. Raises UserError naming file and line, what was found there and what is expected."""
        found = files(self.path, "path")
        train, layout = self._examples(found)
        test = self._examples(files(self.test, "test"))[0] if self.test else []
        every, repeated = notes.without_repeated([*train, *test])
        stated = notes.described(every[: len(train)], layout)
        every, contradicting = notes.settled(every, self.believe)
        own = {example.where for example in train}
        test = [example for example in every if example.where not in own]
        train = [example for example in every if example.where in own]
        splits = divided(
            train, test if self.test else None, self.held_out, f"preferences:{found[0].stem}", self.attributes,
            self if self.content == "image" else None,
        )
        return replace(splits, layout=layout, notes=(*stated, *repeated, *contradicting, *splits.notes))

    def _examples(self, paths: Sequence[Path]) -> tuple[list[Example], Layout]:
        found: list[Example] = []
        layout: Layout | None = None
        for path in paths:
            rows = _parquet(path) if path.suffix == ".parquet" else records(path)
            word = "row" if path.suffix == ".parquet" else "line"
            for number, row in rows:
                where = f"{path}, {word} {number}"
                named = {**row, **{ours: row[theirs] for ours, theirs in self.columns.items() if theirs in row}}
                if layout is None:
                    layout = layouts.layout_of(named, self.attributes, where)
                example = layouts.example(layout, named, self.attributes, self.content, where, self.rendered)
                found.append(replace(example, strength=example.strength / self.strongest))
        if layout is None:
            raise UserError("the data has no rows", where=str(paths[0]), fix="Give data with rows in it.")
        return found, layout


def _parquet(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"this Parquet file cannot be read, it is cut short or damaged ({str(error).splitlines()[0]})",
            where=str(path), fix="Write or download it again.",
        ) from error
    return list(enumerate(rows))
