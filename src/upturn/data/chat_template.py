"""A tokenizer's chat template: conversations as tokens, and which of the tokens are learned.

A template is text in which special tokens are written out. What a user or a model wrote may spell a special token,
too, and must stay text. So the tokens that the template writes are marked while it renders (:class:`_Marks`), and only
marked ones become special tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from upturn.data.tokenizers import Codec
from upturn.errors import UserError
from upturn.types.conversations import Message, Messages

TrainOn = Literal["assistant", "last", "completion", "all"]
TRAIN_ON = get_args(TrainOn)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # marks what the assistant says, in templates for training
# two planes of Unicode without a character: special tokens of the template, and their names in messages
_OUT, _IN = 0x40000, 0x50000
_OURS = re.compile("[\U00040000-\U0005FFFF]")
_PROBE = (Message("user", "q"), Message("assistant", "a"))


def named_template(name: str, where: str) -> str:
    """The Jinja text of a template that is named: one of ours, or a file. UserError where there is neither."""
    folder = resources.files("upturn.data") / "chat_templates"
    ours = sorted(item.name.removesuffix(".jinja") for item in folder.iterdir() if item.name.endswith(".jinja"))
    if name in ours:
        return (folder / f"{name}.jinja").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"there is no chat template '{name}'", where=where,
            fix=f"Give a file with a Jinja template, or one of: {', '.join(ours)}.",
        )
    return path.read_text(encoding="utf-8")


def added_tokens(source: str) -> list[str]:
    """The special tokens that a template needs, from its comment {# special tokens: … #}; none where it has no such."""
    found = re.search(r"\{#-?\s*special tokens:(.*?)-?#\}", source)
    return found[1].split() if found else []


@dataclass(frozen=True)
class Encoded:
    """Tokens of a conversation, which of them are learned (0 or 1), and whether one reaches into a learned part.

    Such a token ends what comes before and begins what is learned: it is learned, and sampling never sees it.
    """

    tokens: list[int]
    learned: list[int]
    crossed: bool = False


class ChatTemplate:
    """Renders conversations through the Jinja template ``source`` and turns them into tokens of ``codec``.

    A conversation is ``messages``, of which the first ``given`` are the prompt. Nothing is added to what the template
    renders, except the end token where a template ends an answer with no special token at all.
    """

    def __init__(self, codec: Codec, source: str) -> None:
        self.codec, self.source = codec, source
        self.marks_generation = bool(_GENERATION.search(source))
        self._marks = _Marks(codec.tokenizer)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The special token with which the template ends an answer; None where it ends it with none."""
        prompt, whole = self.render(_PROBE[:1], "", True), self.render(_PROBE, "")
        if not whole.startswith(prompt):
            return None
        return self._marks.special_of(whole[len(prompt) :].partition("a")[2])

    def render(self, messages: Sequence[Message], tools: str, generation_prompt: bool = False) -> str:
        """The text of the template, its special tokens marked."""
        return self._rendered(messages, tools, generation_prompt)[0]

    def _rendered(
        self, messages: Sequence[Message], tools: str, generation_prompt: bool = False, spans: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        given = [self._marks.hidden(message.as_dict()) for message in messages]
        known = self.codec.tokenizer.special_tokens_map
        offered = self._marks.hidden(json.loads(tools)) if tools else None
        try:
            texts, found = render_jinja_template(
                [given], tools=offered, chat_template=self.source, add_generation_prompt=generation_prompt,
                return_assistant_tokens_mask=spans, **known,
            )
        except Exception as error:  # Jinja's own errors, and those that a template raises on purpose
            lines = str(error).strip().splitlines()
            raise UserError(
                f"the chat template refuses this conversation: {lines[0] if lines else repr(error)} "
                f"(roles: {', '.join(message.role for message in messages)})",
                where="chat template", fix="Fix the row, leave it out, or give another 'chat_template:'.",
            ) from error
        marked = self._marks.marked(texts[0])
        return marked, [tuple(span) for span in found[0]] if spans else []

    def prompt(self, messages: Sequence[Message], tools: str) -> list[int]:
        """The tokens of a prompt, up to where the assistant begins to speak."""
        return self._marks.encode([self.render(messages, tools, True)])[0][0]

    def encode(
        self, rows: Sequence[tuple[Messages, str, int]], train_on: TrainOn, where: Callable[[int], str] = str
    ) -> list[Encoded]:
        """Rows of (messages, tools, given) as tokens; ``train_on`` names what of the completion is learned.

        assistant: every turn of the assistant after the prompt; last: the last such turn; completion: all after the
        prompt; all: everything. A turn's end belongs to it. UserError naming the row where the template does not keep
        the beginning of a conversation as it was, so that no turn can be told from the text.
        """
        texts, spans = [], []
        for number, (messages, tools, given) in enumerate(rows):
            try:
                text, found = self._learned(messages, tools, given, train_on)
            except UserError as error:
                raise UserError(error.what, where=f"{where(number)}", fix=error.fix) from error
            texts.append(text)
            spans.append(found)
        encoded = []
        for (tokens, offsets), learned in zip(self._marks.encode(texts), spans, strict=True):
            mask, crossed = np.zeros(len(tokens), dtype=np.int64), False
            for start, stop in learned:
                mask |= (offsets[:, 1] > start) & (offsets[:, 0] < stop)
                crossed |= bool(((offsets[:, 0] < start) & (offsets[:, 1] > start)).any())
            end = [] if self.end_of_turn is not None else [self.codec.eos]
            encoded.append(Encoded([*tokens, *end], [*mask.tolist(), *([1] * len(end))], crossed))
        return encoded

    def _learned(
        self, messages: Messages, tools: str, given: int, train_on: TrainOn
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation and its learned spans (start, stop) in characters."""
        if train_on == "all":
            text = self.render(messages, tools)
            return text, [(0, len(text))]
        if train_on == "completion":
            text = self.render(messages, tools)
            return text, [(self._start(text, messages, tools, given), len(text))]
        turns = [i for i in range(given, len(messages)) if messages[i].role == "assistant"]
        if train_on == "last":
            turns = turns[-1:]
        if self.marks_generation:
            text, found = self._rendered(messages, tools, spans=True)
            before = sum(message.role == "assistant" for message in messages[:given])
            return text, found[-1:] if train_on == "last" else found[before:]
        text = self.render(messages, tools)
        return text, [self._turn(text, messages, tools, turn) for turn in turns]

    def _turn(self, text: str, messages: Messages, tools: str, turn: int) -> tuple[int, int]:
        start = self._start(text, messages, tools, turn)
        through = self.render(messages[: turn + 1], tools) if turn + 1 < len(messages) else text
        if not text.startswith(through):
            raise self._changing(messages, turn + 1)
        return start, len(through)

    def _start(self, text: str, messages: Messages, tools: str, turn: int) -> int:
        """The character at which a turn of the assistant begins."""
        before = self.render(messages[:turn], tools, True)
        if not text.startswith(before):
            before = self.render(messages[:turn], tools)  # a turn that continues one of the assistant has no new header
            if not text.startswith(before) or messages[turn].role == "assistant":
                raise self._changing(messages, turn)
        return len(before)

    def _changing(self, messages: Messages, turn: int) -> UserError:
        return UserError(
            f"the chat template renders the first {turn} of {len(messages)} messages in another way once more follow "
            "(it drops earlier reasoning, say), so what the assistant wrote cannot be found in the text",
            where="chat template",
            fix="Split the conversation so that each row ends at the turn that is to be learned, give a "
                "'chat_template:' with {% generation %} marks, or write 'train_on: all'.",
        )


class _Marks:
    """Keeps the special tokens that a template writes apart from text that spells one.

    Each special token has two other names of its own length, of code points without a character. Where a message
    spells the token, it is replaced by one of them while the template renders (:meth:`hidden`); afterwards the tokens
    that the template wrote are replaced by the other, and the text of messages is restored (:meth:`marked`). A copy of
    the tokenizer in which the special tokens have their marked names reads the result: it knows no other special token.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder
        self._special = [(int(i), str(token)) for i, token in sorted(added.items()) if token.special and str(token)]
        names = sorted(((text, place) for place, (_, text) in enumerate(self._special)), key=lambda it: -len(it[0]))
        self._pattern = re.compile("|".join(re.escape(text) for text, _ in names)) if names else None
        self._place = dict(names)
        self._raw = tokenizer.backend_tokenizer

    def _outer(self, text: str) -> str:
        return chr(_OUT + self._place[text]) * len(text)

    def _inner(self, text: str) -> str:
        return chr(_IN + self._place[text]) * len(text)

    def hidden(self, value: Any) -> Any:
        """``value`` with every special token's name in its texts replaced; UserError for our code points in it."""
        if isinstance(value, str):
            if _OURS.search(value):
                raise UserError(
                    "a text holds code points of planes 4 and 5 of Unicode, where there are no characters; they mark "
                    "special tokens here", where="chat template", fix="Remove them from the row.",
                )
            return self._pattern.sub(lambda found: self._inner(found[0]), value) if self._pattern else value
        if isinstance(value, dict):
            return {self.hidden(key): self.hidden(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.hidden(inner) for inner in value]
        return value

    def marked(self, rendered: str) -> str:
        """A rendered text: the template's special tokens marked, those that a message spells as they were."""
        if self._pattern is None:
            return rendered
        text = self._pattern.sub(lambda found: self._outer(found[0]), rendered)
        return re.sub("([\U00050000-\U0005FFFF])\\1*", self._restored, text)

    def _restored(self, found: re.Match[str]) -> str:
        name = self._special[ord(found[1]) - _IN][1]
        return name * (len(found[0]) // len(name))

    def special_of(self, marked: str) -> int | None:
        """The id of the first marked special token in a text; None where there is none."""
        found = re.search("[\U00040000-\U0004FFFF]", marked)
        return None if found is None else self._special[ord(found[0]) - _OUT][0]

    @cached_property
    def _reader(self) -> tuple[Any, dict[int, int]]:
        """A tokenizer that knows the special tokens by their marked names alone, and its ids where they differ."""
        from tokenizers import Tokenizer

        spec = json.loads(self._raw.to_str())
        spec.update(truncation=None, padding=None, post_processor=None)
        names = {text: self._outer(text) for _, text in self._special}
        for token in spec["added_tokens"]:
            if token["special"]:
                token["content"] = names.get(token["content"], token["content"])
        model = spec["model"]
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, dict):
            model["vocab"] = {names.get(text, text): i for text, i in vocabulary.items()}
        elif isinstance(vocabulary, list):
            model["vocab"] = [[names.get(text, text), score] for text, score in vocabulary]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        raw = Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))
        raw.encode_special_tokens = False
        ids = {raw.token_to_id(names[text]): number for number, text in self._special}
        return raw, {own: number for own, number in ids.items() if own is not None and own != number}

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], Any]]:
        """Tokens of each marked text and (T, 2) their places in it, in characters."""
        raw, other = self._reader
        rows = []
        for found in raw.encode_batch(list(texts), add_special_tokens=False):
            ids = [other.get(i, i) for i in found.ids] if other else found.ids
            rows.append((ids, np.array(found.offsets, dtype=np.int64).reshape(-1, 2)))
        return rows
