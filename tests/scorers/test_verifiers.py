"""The verifiers of texts: final answers, exact and regular-expression match, JSON by schema."""

from __future__ import annotations

import json
import math
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upturn import seeds
from upturn.config import components
from upturn.errors import UserError
from upturn.scorers._fences import last_fenced
from upturn.scorers._quantities import last_quantity, quantity
from upturn.scorers.exact_match import ExactMatch
from upturn.scorers.final_answer import FinalAnswer
from upturn.scorers.json_schema import JsonSchema
from upturn.scorers.regex_match import RegexMatch
from upturn.types import Prompt, real_samples

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"


def judged(scorer: Any, completion: str, **fields: str) -> tuple[float, str]:
    """One sample's score and explanation."""
    scores = scorer.score(real_samples("text", [completion], [Prompt("?", fields=fields)], "s"))
    assert scores.explanations is not None
    return float(scores.values[0]), str(scores.explanations[0])


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("#### 18", "18"), ("9 * 2 = 18\n#### 18\n", "18"), ("####18", "18"), ("#### $18", "18"), ("#### 18$", "18"),
        ("#### 1,234,567", "1234567"), ("#### 1234567", "1,234,567"), ("#### 1\u202f234\u00a0567", "1234567"),
        ("#### -5", "-5"), ("#### −5", "-5"), ("#### -$5", "-5"), ("#### $-5", "-5"), ("#### +5", "5"),
        ("#### 18.00", "18"), ("#### 0.75", "3/4"), ("#### .75", "3/4"), ("#### 6/8", "0.75"), ("#### ¾", "0.75"),
        ("#### 1 1/2", "1.5"), ("#### 1½", "1.5"), ("#### -1 1/2", "-1.5"), ("#### \\frac{3}{4}", ".75"),
        ("#### 18 dollars", "18"), ("#### 18.", "18"), ("#### **18**", "18"), ("#### 18 eggs a day.", "18"),
        ("#### $1,080.50 in total", "1080.5"), ("#### €7", "7"), ("#### 20%", "20"), ("#### 20", "20%"),
        ("#### 20 percent", "20"), ("#### \\$18", "18"), ("#### 1{,}000", "1000"), ("#### = 18", "18"),
        ("#### 18\nQuestion: what is 3 + 4?\n#### 7", "18"),  # text after it does not count
        ("#### Step by step\n9 * 2 = 18\n#### 18", "18"),  # a heading is no answer
        ("#### 5", "5 km"), ("#### 5 km", "5 km"), ("#### 5 Kilometers", "5 kilometer"), ("#### 18", "2 * 9\n#### 18"),
    ],
)  # fmt: skip
def test_final_answers_that_are_right(completion: str, answer: str) -> None:
    assert judged(FinalAnswer(), completion, answer=answer) == (1.0, "right")


@pytest.mark.parametrize(
    ("completion", "answer", "why"),
    [
        ("#### 19", "18", "it says 19, not 18"), ("18", "18", "#### is not there"), ("", "18", "#### is not there"),
        ("#### 18 or 19", "18", "not one number"), ("#### 9*2=18", "18", "not one number"),
        ("#### 2 + x", "2", "not one number"), ("#### eighteen", "18", "not one number"), ("####", "18", "''"),
        ("####\n18", "18", "''"), ("#### 3.33", "10/3", "it says 333/100, not 10/3"), ("#### 1e3", "1", "not one"),
        ("#### 1,00", "1", "not one"), ("#### 1.234,5", "1.234", "not one"), ("#### 18/0", "18", "not one"),
        ("#### 10:30", "10", "not one"), ("#### 3/4/2024", "3/4", "not one"), ("#### 2^3", "2", "not one"),
        ("#### 5 miles", "5 km", "the unit is 'mile', not 'km'"), ("#### 0.2", "20%", "it says 1/5, not 20"),
        ("#### -18", "18", "it says -18"), ("#### 18\n#### 19", "19", "it says 18"),
        ("#### " + "9" * 600, "9", "not one"), ("#### ٣", "3", "not one"),
    ],
)  # fmt: skip
def test_final_answers_that_are_wrong(completion: str, answer: str, why: str) -> None:
    score, reason = judged(FinalAnswer(), completion, answer=answer)
    assert score == 0.0 and reason.startswith("wrong: ") and why in reason, reason


@pytest.mark.parametrize("answer", ["", " ", "Monday", "x + 2", "10:30", "1 or 2", "no #### here"])
def test_a_prompt_without_a_number_is_unscored(answer: str) -> None:
    score, reason = judged(FinalAnswer(), "#### 18", answer=answer)
    assert math.isnan(score) and reason.startswith("unscored: ")


def test_a_prompt_without_the_field_is_unscored_by_every_verifier() -> None:
    for scorer in (FinalAnswer(), ExactMatch(), RegexMatch()):
        score, reason = judged(scorer, "#### 18", other="18")
        assert math.isnan(score) and "the prompt has no field" in reason


@pytest.mark.parametrize(
    ("fallback", "completion", "right"),
    [
        ([], "The answer is 18.", False),
        (["answer_is"], "The answer is 18. I am sure.", True),
        (["answer_is"], "The answer is 17. No: the final answer is: $18.00", True),
        (["answer_is"], "So it is 18.", False),
        (["boxed"], "so \\boxed{17}, I mean \\boxed{\\frac{36}{2}}.", True),
        (["boxed"], "so \\boxed{18", False),
        (["last_number"], "First 3, then 9 * 2 = $18.", True),
        (["last_number"], "It is 18, not 17.", False),
        (["last_number"], "36-18", True),  # the sign is an operator there
        (["last_number"], "no number", False),
        (["boxed", "last_number"], "\\boxed{18} after 5 steps", True),
        (["last_number"], "#### 17\n18", False),  # a marker that leads to a number comes first
        (["last_number"], "#### eighteen\n18", True),
    ],
)
def test_fallbacks(fallback: list[Any], completion: str, right: bool) -> None:
    assert judged(FinalAnswer(fallback=fallback), completion, answer="18")[0] == float(right)


def test_percent_as_a_hundredth() -> None:
    scorer = FinalAnswer(percent="hundredth")
    assert judged(scorer, "#### 20%", answer="0.2")[0] == 1.0
    assert judged(scorer, "#### 20%", answer="20")[0] == 0.0
    assert judged(scorer, "#### 20%", answer="20%")[0] == 1.0


def test_numbers_are_read_as_written_by_python() -> None:
    """2,000 random numbers in Python's own writings, against Fraction."""
    for n, d, form in seeds.generator(1).integers(1, 10**7, (2000, 3)).tolist():
        exact = [Fraction(n), Fraction(-n), Fraction(n, 1000), Fraction(n, d)][form % 4]
        text = [f"{n:,}", f"-{n:_}".replace("_", ","), f"{n // 1000:,}.{n % 1000:03d}", f"{n}/{d}"][form % 4]
        for written in (text, f"${text}", f" {text} apples.", f"**{text}**"):
            found = quantity(written)
            assert found is not None and found.exact == exact, written
        last = last_quantity(f"in 3 steps, it is {text}.")
        assert last is not None and last.exact == exact


@pytest.mark.slow
@pytest.mark.skipif(not GSM8K.exists(), reason="the GSM8K files are not at hand")
def test_every_reference_of_gsm8k_is_right_by_its_own_solution() -> None:
    """All 8,792; and against the answer plus 1, and without its last line, none."""
    rows = [json.loads(line) for name in ("train", "test")
            for line in (GSM8K / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]  # fmt: skip
    solutions = [row["answer"] for row in rows]
    finals = [re.fullmatch(r"(?s).*\n#### (-?[\d,.]+)\s*", text) for text in solutions]
    plain = [Fraction(final[1].replace(",", "")) for final in finals if final]
    assert len(plain) == len(rows) == 8792

    def mean(texts: list[str], answers: list[str], **settings: Any) -> float:
        prompts = [Prompt(row["question"], fields={"answer": a}) for row, a in zip(rows, answers, strict=True)]
        return float(FinalAnswer(**settings).score(real_samples("text", texts, prompts, "s")).values.mean())

    exact = [str(value) for value in plain]
    assert mean(solutions, exact) == 1.0
    assert mean(solutions, solutions) == 1.0
    assert mean(solutions, [str(value + 1) for value in plain]) == 0.0
    worked = [text.rsplit("\n####", 1)[0] for text in solutions]
    assert mean(worked, exact) == 0.0
    # most solutions end in their number, some in a remark
    assert 0.9 < mean(worked, exact, fallback=["last_number"]) < 1.0


HOSTILE = [
    "#### " + "9" * 90_000, " " * 99_000, "1 " * 49_000, "1 /" * 30_000, "-" * 99_000, "\\boxed{" * 14_000,
    "{" * 99_000, "answer is " * 9_900, "answer" + " " * 90_000, "####" * 24_000, "$" * 99_000, "1," * 49_000,
    "½" * 50_000, "\\frac{1}{" * 11_000, "1" + " " * 90_000 + "/2", "\\text{" * 16_000, "\x00\ufffd\ud800", "9" * 10**7,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_completion_neither_hangs_nor_crashes(text: str) -> None:
    started = time.process_time()
    scorer = FinalAnswer(fallback=["boxed", "answer_is", "last_number"])
    assert judged(scorer, text, answer="18")[0] == 0.0
    assert judged(scorer, "#### 18", answer=text[:5000])[0] != 1.0
    assert judged(ExactMatch(ignore=["space", "case", "punctuation", "articles"]), text, answer="18")[0] == 0.0
    last_fenced(text)
    assert time.process_time() - started < 3.0


def test_exact_match() -> None:
    plain, squad = ExactMatch(), ExactMatch(ignore=["space", "case", "punctuation", "articles"])
    assert judged(plain, " Paris\n", answer="Paris") == (1.0, "right")
    assert judged(plain, "New  York", answer="New York")[0] == 1.0
    assert judged(plain, "Cafe\u0301", answer="Caf\u00e9")[0] == 1.0  # one letter, two writings
    for wrong in ("paris", "Paris.", "the Paris", "", "Paris or Rome"):
        assert judged(plain, wrong, answer="Paris")[0] == 0.0
    assert judged(plain, "Rome", answer="Paris")[1] == "wrong: it is 'Rome', not 'Paris'"
    for right in ("the Paris!", "PARIS", "a paris", "«Paris»"):
        assert judged(squad, right, answer="Paris")[0] == 1.0
    assert judged(squad, "Theparis", answer="Paris")[0] == 0.0
    assert judged(ExactMatch(ignore=[]), "Paris ", answer="Paris")[0] == 0.0
    assert math.isnan(judged(squad, "", answer="...")[0])  # an empty text must not be right


def test_exact_match_with_aliases() -> None:
    scorer = ExactMatch(aliases="others")
    for right in ("Paris", "Lutetia"):
        assert judged(scorer, right, answer="Paris", others='["Lutetia", ""]')[0] == 1.0
    assert judged(scorer, "", answer="Paris", others='["Lutetia", ""]')[0] == 0.0
    assert judged(scorer, "Paris", answer="Paris")[0] == 1.0
    for bad in ("Lutetia", "[1]", '{"a": "b"}', "[" * 100_000):
        assert math.isnan(judged(scorer, "Paris", answer="Paris", others=bad)[0])


def test_regex_match() -> None:
    assert judged(RegexMatch(r"[A-D]"), " B\n") == (1.0, "right")
    assert judged(RegexMatch(r"[A-D]"), "B or C")[0] == 0.0
    assert judged(RegexMatch(r"[A-D]", extent="part"), "it is B")[0] == 1.0
    assert judged(RegexMatch(r"(?i)yes|no"), "YES")[0] == 1.0
    assert judged(RegexMatch(), "2024-01-31", pattern=r"\d{4}-\d\d-\d\d")[0] == 1.0
    assert judged(RegexMatch(), "yesterday", pattern=r"\d{4}-\d\d-\d\d")[0] == 0.0
    score, reason = judged(RegexMatch(), "a", pattern="(")
    assert math.isnan(score) and "is no regular expression" in reason


def test_a_catastrophic_pattern_is_stopped_and_unscored() -> None:
    started = time.process_time()
    score, reason = judged(RegexMatch(r"(x+x+)+y"), "x" * 5_000)
    assert math.isnan(score) and "took longer than 0.2 s" in reason
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("regex_match", {"pattern": "("}, "is no regular expression"),
        ("regex_match", {"seconds": 0}, "seconds must be above 0"),
        ("final_answer", {"marker": " "}, "marker"), ("final_answer", {"fallback": ["boxed", "boxed"]}, "twice"),
        ("final_answer", {"fallback": ["guess"]}, "fallback.0"), ("exact_match", {"ignore": ["accents"]}, "ignore.0"),
        ("json_schema", {"file": "/no/such.json"}, "cannot be read"),
        ("json_schema", {"file": "a", "schema": {}}, "both given"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_when_the_recipe_is_read(name: str, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=re.escape(why)):
        components.make("scorer", {"name": name, **fields}, "rounds.score.0")


def test_samples_that_are_no_text_are_refused() -> None:
    points = real_samples("points", np.zeros((1, 2), dtype=np.float32), [Prompt()], "s")
    for scorer in (FinalAnswer(), ExactMatch(), RegexMatch(), JsonSchema()):
        with pytest.raises(UserError, match="verifies text, and these samples are points"):
            scorer.score(points)


def test_fences() -> None:
    assert last_fenced("no code") is None
    assert last_fenced("a\n```python\nx = 1\n```\nb") == "x = 1\n"
    assert last_fenced("```\n1\n```\n```json\n2\n```") == "2\n"
    assert last_fenced("````\n```\n1\n```\n````") == "```\n1\n```\n"
    assert last_fenced("a\n```py\ncut sho") == "cut sho"
    assert last_fenced("a `x` b ``` c") is None
    assert last_fenced("```") == ""


def test_five_thousand_completions_take_a_quarter_of_a_second() -> None:
    numbers = seeds.generator(4).integers(1, 10**6, 5_000).tolist()
    prompts = [Prompt("?", fields={"answer": str(n)}) for n in numbers]
    texts = [f"First we add, then we take {n} away from it.\n#### {n + n % 2:,} apples" for n in numbers]
    samples = real_samples("text", texts, prompts, "s")
    started = time.process_time()
    values = FinalAnswer().score(samples).values
    assert time.process_time() - started < 2.0  # on a busy machine
    assert (values == (np.array(numbers) % 2 == 0)).all()
