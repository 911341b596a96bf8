"""The options of ``upturn serve``: which samples are voted on, how, by whom, and where the page listens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# what is voted on
Modes = Annotated[
    list[str], typer.Option("--mode", help="pick, compare, rate, rank or edit; may be repeated. "
                            "Default: the polls that are open, else pick.")
]
Rounds = Annotated[
    list[int], typer.Option("--round", help="Samples of this round; repeated: the evaluations of several rounds side "
                            "by side. Default: the newest round that has samples.")
]
Unit = Annotated[str, typer.Option("--unit", help="Samples of any unit, such as rounds/001, instead of a round.")]
Candidates = Annotated[int, typer.Option("--candidates", help="Candidates per task, for pick and rank.")]
Attributes = Annotated[list[str], typer.Option("--attribute", help="An attribute to rate; may be repeated.")]

# how many votes, and checks of annotators
Overlap = Annotated[int, typer.Option("--overlap", min=1, help="Votes per task, each of another annotator.")]
Quota = Annotated[int | None, typer.Option("--quota", min=0, help="Votes in total. Default: overlap x tasks.")]
Gold = Annotated[
    Path | None, typer.Option("--gold", metavar="FILE", help="Tasks with known answers, as JSON lines: "
                              "{candidates: [ids], right: id}.")
]
GoldShare = Annotated[float, typer.Option("--gold-share", help="Share of tasks from --gold.")]
RepeatShare = Annotated[float, typer.Option("--repeat-share", help="Share of tasks that an annotator gets twice.")]

# who votes, and what the page offers
AnnotatorsFile = Annotated[
    Path | None, typer.Option("--people", metavar="FILE", help="Annotators, as YAML or CSV: name, role, team, quota. "
                              "New ones get a link, which is printed once.")
]
NewLinks = Annotated[
    list[str], typer.Option("--new-link", metavar="NAME", help="Print a new link for this annotator; may be repeated.")
]
WithStudio = Annotated[bool, typer.Option("--studio/--no-studio", help="Whether annotators may prompt the model.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Render texts as markdown. Default: plain text.")]
Database = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="A Postgres database. Default: votes.db in the run.")
]

# where it listens
Host = Annotated[str, typer.Option("--host", help="The address to listen on. Default: this machine only.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535)]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", metavar="FILE", help="TLS certificate (PEM), for https.")
]
CertificateKey = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Key of the certificate (PEM).")]
Continue = Annotated[bool, typer.Option("--continue", help="Resume the run as soon as all votes are in.")]
