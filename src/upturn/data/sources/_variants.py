"""Names of one thing in several looks -> one name: skin tones and genders taken out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from upturn.data.split import normalised

_PEOPLE = r"(?:wo)?m[ae]ns?|(?:fe)?male|boys?|girls?|persons?|people|child(?:ren)?"
_SHADE = r"(?:(?:medium[- ])?(?:light|dark)|medium)"

# In this order; what a name has become after the last is its group. Written for the names that Unicode (CLDR) and the
# emoji sets give, and harmless elsewhere: a group is only kept on one side of the split.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple((re.compile(pattern), to) for pattern, to in (
    (rf"[,:]?\s*\b{_SHADE}\s+skin\s+tone\b", ""),  # "waving hand: light skin tone"
    (r"\btone\s*[1-6]\b", ""),  # "man tone 3", "tone3"
    (r"\btype-[1-6](?:-[1-6])?\b", ""),  # Fitzpatrick's scale
    (rf"\((?:\s*(?:{_PEOPLE})\s*,?)+\)", ""),  # "kiss (man,man)"
    (rf":(?:\s*(?:{_PEOPLE})\s*,?)+$", ""),  # "family: man, woman, boy"
    (r"\b(?:fe)?male\b", ""),  # "female deer"
    (r"\b(?:wo)?mans?\b", "person"),
    (r"\b(?:wo)?mens?\b", "people"),
    (r"\b(?:boy|girl)\b", "child"),
    (r"\b(?:boys|girls)\b", "children"),
    (r"\bprince(?:ss)?\b", "prince"),
    (r"\b(?:king|queen)\b", "king"),
    (r"\b(?:father|mother)\b", "parent"),
    (r"\b(\w+?)(?:wo)?man\b", r"\1person"),  # "policewoman"
    (r"\bperson and person\b", "two people"),
))


def group_names(names: Sequence[str], patterns: Sequence[str] | None = None) -> list[str]:
    """The group of each name: equal where the names differ only in skin tone, gender, case or white space.

    ``patterns`` are regular expressions that replace this rule: what they match, in the name without
    capitals, is taken out. Raises ``re.error`` for one that is none.
    """
    rules = _RULES if patterns is None else tuple((re.compile(pattern), "") for pattern in patterns)
    known: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = normalised(name)
        for pattern, to in rules:
            plain = normalised(pattern.sub(to, plain))
        known[name] = plain or normalised(name)
    return [known[name] for name in names]
