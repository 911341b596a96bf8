"""Tokenizers, trained on a source or the model's own, and their special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, BOS, EOS, UNKNOWN = "<|pad|>", "<|bos|>", "<|eos|>", "<|unknown|>"
KINDS = ("characters", "bpe")
_TRANSIENT = ("is_local", "local_files_only", "name_or_path", "_commit_hash")  # where it was read from


def check(spec: Mapping[str, Any]) -> None:
    """ValueError unless ``spec`` is {kind: characters | bpe, size: N}; bpe needs the size."""
    unknown = set(spec) - {"kind", "size"}
    if unknown:
        raise ValueError(f"tokenizer has no key '{min(unknown)}': it has kind and size")
    if spec.get("kind") not in KINDS:
        raise ValueError(f"tokenizer.kind is {spec.get('kind')!r}: known are {' and '.join(KINDS)}")
    size = spec.get("size")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"tokenizer.size is {size!r}: a positive whole number of tokens")
    if spec["kind"] == "bpe" and (size is None or size < 256 + 3):
        raise ValueError("a bpe tokenizer needs a size of at least 259: every byte and three special tokens")


def train(spec: Mapping[str, Any], texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """A ``transformers`` tokenizer trained on ``texts``: the same texts give the same tokenizer.

    characters: one token per character, the most frequent ``size`` of them where a size is given, one more for others.
    bpe: byte-level byte-pair encoding (Sennrich et al. 2016; bytes as GPT-2), so that no text is unknown.
    """
    from transformers import PreTrainedTokenizerFast

    raw = _characters(texts, spec.get("size")) if spec["kind"] == "characters" else _bpe(texts, int(spec["size"]))
    unknown = {"unk_token": UNKNOWN} if spec["kind"] == "characters" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False,
        padding_side="left", **unknown,
    )


def _characters(texts: Iterable[str], size: int | None) -> PreTrainedTokenizerBase:
    from collections import Counter

    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(sorted(counts), key=lambda c: -counts[c])[:size]
    vocabulary = {token: i for i, token in enumerate([PAD, BOS, EOS, UNKNOWN, *sorted(kept)])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return raw


def _bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(texts, trainer)
    return raw


@dataclass(frozen=True)
class Codec:
    """A tokenizer with its special tokens settled. ``pad`` fills rows, where masks leave it out.

    ``bos`` is ``eos`` only where the model was pre-trained so (GPT-2) or has no BOS at all (Qwen).
    ``unknown`` is None where every text can be written in tokens.
    """

    tokenizer: Any
    pad: int
    bos: int
    eos: int
    unknown: int | None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, none added; a special token's name inside a text is plain text, never that token."""
        raw = self.tokenizer.backend_tokenizer
        raw.encode_special_tokens = True
        return [found.ids for found in raw.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row, special tokens left out."""
        texts: list[str] = self.tokenizer.backend_tokenizer.decode_batch(list(tokens), skip_special_tokens=True)
        return texts

    def save(self, folder: Path) -> None:
        """Files that ``AutoTokenizer.from_pretrained`` opens, the same bytes wherever the tokenizer came from."""
        raw = self.tokenizer.backend_tokenizer
        raw.encode_special_tokens = False
        raw.no_padding()
        raw.no_truncation()
        self.tokenizer.save_pretrained(str(folder))
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        for transient in _TRANSIENT:
            settings.pop(transient, None)
        path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def settle(tokenizer: PreTrainedTokenizerBase, where: str, *, padded: bool = False) -> tuple[Codec, bool]:
    """The codec of a tokenizer that was given, and whether the vocabulary grew.

    Where its pad token is missing or also the end, the codec's is the unknown token if there is one, else the end: it
    is filler that masks leave out, and the tokenizer stays as it was given. ``padded``, for a head that is read before
    the padding: such a tokenizer's pad token becomes the unknown token if there is one, else a new one.
    """
    raw = getattr(tokenizer, "backend_tokenizer", None)
    if raw is None:
        raise UserError(
            "the tokenizer cannot be read by `tokenizers`", where=where, fix="Give a folder that has a tokenizer.json."
        )
    raw.no_padding()  # saved with a tokenizer.json, either would change the tokens of every text
    raw.no_truncation()
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError(
            "the tokenizer has no end token, so no text could ever end", where=where,
            fix="Set eos_token in its tokenizer_config.json.",
        )
    bos = eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    before = len(tokenizer)
    pad, unknown = tokenizer.pad_token_id, tokenizer.unk_token_id
    if pad in (None, eos, bos):
        spare = unknown not in (None, eos, bos)
        if padded:
            tokenizer.add_special_tokens({"pad_token": tokenizer.unk_token if spare else PAD})
            pad = tokenizer.pad_token_id
        else:
            pad = unknown if spare else eos
    return Codec(tokenizer, pad, bos, eos, unknown), len(tokenizer) > before
