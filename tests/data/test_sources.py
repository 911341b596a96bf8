"""Tests of every source: what it reads, how it is split, and that no held-out row is in the training data."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upturn.config import components
from upturn.data.sources._arithmetic_steps import decimal, tokens, work_out
from upturn.data.sources._chunks import pieces
from upturn.data.sources.equations import different_equations
from upturn.data.split import assert_no_leak, check_leakage, content_keys, normalised, shares, split_by_content
from upturn.errors import UserError
from upturn.types import Prompt, Splits, concatenate, real_samples, synthetic_samples

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")


def load(name: str, **fields: Any) -> Splits:
    found: Splits = components.make("source", {"name": name, **fields}).load()
    return found


def python_value(text: str) -> Fraction:
    """Python's own arithmetic with exact numbers: the independent truth for worked steps."""
    exact = re.sub(r"\d+\.?\d*|\.\d+", lambda m: f"Fraction('{m.group()}')", text)
    return Fraction(eval(exact, {"Fraction": Fraction, "__builtins__": {}}))


# --- the split -------------------------------------------------------------------------------------------------


def test_equal_content_is_in_one_part_whatever_its_case_and_spaces() -> None:
    base = [f"Sentence number {i}" for i in range(300)]
    other = [f"  SENTENCE\tnumber \n{i} " for i in range(300)]
    side = split_by_content(content_keys("text", base + other), 0.3)
    assert (side[:300] == side[300:]).all()
    # 300 independent keys: standard deviation of the share is sqrt(.3 * .7 / 300) = 0.026; four of them
    assert abs(side.mean() - 0.3) < 4 * 0.0265


def test_sides_do_not_change_when_data_is_added() -> None:
    few = content_keys("points", np.arange(200, dtype=np.float32).reshape(100, 2))
    many = content_keys("points", np.arange(2000, dtype=np.float32).reshape(1000, 2))
    assert (split_by_content(few, 0.2) == split_by_content(many, 0.2)[:100]).all()
    assert (split_by_content(few, 0.2) != split_by_content(few, 0.2, seed=1)).any()


def test_a_larger_share_holds_out_a_superset() -> None:
    keys = content_keys("text", [str(i) for i in range(500)])
    assert not (split_by_content(keys, 0.1) & ~split_by_content(keys, 0.4)).any()
    assert ((shares(keys) >= 0) & (shares(keys) < 1)).all()


def test_leakage_is_refused_with_count_and_example() -> None:
    check_leakage(["a", "b"], ["c"], where="here")
    with pytest.raises(UserError, match=r"here: 2 of 3 held-out rows are in the training part too, e\.g\. 'second'"):
        check_leakage(["b", "c"], ["a", "b", "c"], where="here", examples=["first", "second", "third"])


def test_training_data_is_checked_against_the_held_out_part() -> None:
    prompts = [Prompt(text=f"{i}+1=") for i in range(4)]
    real = real_samples("text", [str(i + 1) for i in range(4)], prompts, "equations")
    train, held_out = real.take([0, 1]), real.take([2, 3])
    assert assert_no_leak(train, held_out).note == ""
    with pytest.raises(UserError, match=r"1 real rows that are to be trained on are held out, e\.g\. '3'"):
        assert_no_leak(real.take([0, 2]), held_out)
    keys = np.arange(3).reshape(3, 1)
    made = synthetic_samples("text", ["3", "wrong", "1"], [prompts[2], prompts[3], prompts[0]], keys, "model")
    leak = assert_no_leak(concatenate([train, made]), held_out)
    assert (leak.rows, leak.prompts) == (1, 2) and "1 synthetic rows" in leak.note


def test_images_are_compared_by_their_pixels() -> None:
    content = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2, 1)
    real = real_samples("image", content, [Prompt(label=i) for i in range(4)], "digits")
    other_label = real_samples("image", content[3:], [Prompt(label=0)], "elsewhere")
    with pytest.raises(UserError, match="1 real rows"):
        assert_no_leak(other_label, real.take([3]))


SOURCES: dict[str, dict[str, Any]] = {
    "digits": {}, "points": {"n": 500}, "corpus": {}, "equations": {"count": 400},
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_deterministic_and_holds_out_what_train_has_not(name: str) -> None:
    first, second = load(name, **SOURCES[name]), load(name, **SOURCES[name])
    for part in ("train", "held_out"):
        one, two = getattr(first, part), getattr(second, part)
        assert (one.ids == two.ids).all() and len(one)
        assert len(set(one.ids)) == len(one)
        assert (one.origin == "real").all()
        np.testing.assert_array_equal(one.content, two.content)
    kind = components.find("source", name).kind
    assert first.train.kind == kind
    if name != "equations":  # equal answers of different expressions are no leak
        train = set(content_keys(kind, first.train.content))
        assert train.isdisjoint(content_keys(kind, first.held_out.content))
    assert assert_no_leak(first.train, first.held_out).rows == 0


# --- digits ----------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_digits() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    splits = load("digits")
    both = concatenate([splits.train, splits.held_out])
    assert len(both) == 1797
    assert both.content.shape == (1797, 8, 8, 1) and both.content.dtype == np.uint8
    ours = {tuple(row.reshape(-1)): label for row, label in zip(both.content, both.labels, strict=True)}
    theirs = {tuple(row): label for row, label in zip(np.rint(pixels * 255 / 16).astype(int), labels, strict=True)}
    assert ours == theirs
    assert splits.classes == tuple("0123456789") and splits.train.prompts[0].text.startswith("digit ")
    counts = np.bincount(splits.held_out.labels, minlength=10)
    # 180 of each class at 1/4: 45 with a standard deviation of 5.8
    assert (np.abs(counts - 45) < 4 * 5.8).all()


def test_degraded_digits_are_those_a_classifier_finds_harder_and_the_rest_is_untouched() -> None:
    from sklearn.svm import SVC

    clean, mixed = load("digits"), load("digits", degraded=0.5)
    bad = mixed.train.fields["quality"] == "degraded"
    # 1,362 images at one half: standard deviation 0.0136
    assert abs(bad.mean() - 0.5) < 4 * 0.0136
    np.testing.assert_array_equal(clean.train.content[~bad], mixed.train.content[~bad])
    np.testing.assert_array_equal(clean.held_out.content, mixed.held_out.content)
    assert (clean.train.content[bad] != mixed.train.content[bad]).any(axis=(1, 2, 3)).all()
    assert (mixed.held_out.fields["quality"] == "clean").all()
    flat = mixed.train.content.reshape(len(bad), -1)
    model = SVC().fit(clean.held_out.content.reshape(len(clean.held_out), -1), clean.held_out.labels)
    easy, hard = model.score(flat[~bad], mixed.train.labels[~bad]), model.score(flat[bad], mixed.train.labels[bad])
    assert easy > 0.95 and hard < 0.6  # measured 0.97 and 0.34
    # and yet the class is still in there: chance is 0.1
    rows, labels = flat[bad], mixed.train.labels[bad]
    half = len(rows) // 2
    assert SVC().fit(rows[:half], labels[:half]).score(rows[half:], labels[half:]) > 0.45


def test_a_larger_share_of_degraded_digits_spoils_the_same_ones_in_the_same_way() -> None:
    few, many = load("digits", degraded=0.2).train, load("digits", degraded=0.6).train
    spoilt = few.fields["quality"] == "degraded"
    assert (many.fields["quality"][spoilt] == "degraded").all()
    np.testing.assert_array_equal(few.content[spoilt], many.content[spoilt])


@pytest.mark.parametrize(("rare", "share"), [(1, 0.05), (8, 0.02)])
def test_a_rare_digit_has_its_share_of_train_and_all_its_held_out_images(rare: int, share: float) -> None:
    plain, found = load("digits"), load("digits", rare=rare, rare_share=share)
    own = found.train.labels == rare
    assert abs(own.mean() - share) < 0.5 / len(found.train)  # rounded to whole images
    assert found.held_out.ids.tolist() == plain.held_out.ids.tolist()
    assert found.train.ids[~own].tolist() == plain.train.ids[plain.train.labels != rare].tolist()
    assert set(found.train.ids) < set(plain.train.ids)
    for part in (found.train, found.held_out):
        assert ((part.fields["rare"] == "yes") == (part.labels == rare)).all()
    assert f"digit {rare} is rare" in found.notes[0] and f"{own.mean():.1%} of the train part" in found.notes[0]
    assert "rare" not in plain.train.fields


@pytest.mark.slow
def test_which_images_of_a_rare_digit_stay_follows_from_the_images_alone() -> None:
    few, more = (load("digits", rare=1, rare_share=s).train for s in (0.02, 0.05))
    assert set(few.ids) < set(more.ids)
    again = load("digits", rare=1, rare_share=0.05, degraded=0.5, size=16).train
    assert (again.labels == more.labels).all()
    clean = again.fields["quality"] == "clean"
    assert (load("digits", rare=1, rare_share=0.05, size=16).train.content[clean] == again.content[clean]).all()
    everything = load("digits", rare=1, rare_share=0.5)
    assert len(everything.train) == len(load("digits").train) and "0 of its" in everything.notes[0]
    with pytest.raises(UserError, match="rare must be a digit from 0 to 9"):
        load("digits", rare=10)
    with pytest.raises(UserError, match="rare_share must lie between 0 and 1"):
        load("digits", rare=1, rare_share=1.0)


def test_enlarged_digits_shrink_back_to_the_originals() -> None:
    small, large = load("digits").held_out, load("digits", size=32).held_out
    assert large.content.shape[1:] == (32, 32, 1)
    back = large.content.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    error = np.abs(back - small.content[..., 0]).mean()
    assert error < 12  # of 255; an image of another digit is above 60 away
    assert np.abs(back - np.roll(small.content[..., 0], 1, axis=0)).mean() > 30


# --- points ----------------------------------------------------------------------------------------------------


def test_eight_gaussians_have_the_stated_means_and_spread() -> None:
    train = load("points", n=8000, std=0.2, held_out=0.05).train
    for mode in range(8):
        own = train.content[train.labels == mode].astype(np.float64)
        centre = 2.0 * np.array([np.cos(mode * np.pi / 4), np.sin(mode * np.pi / 4)])
        assert (np.abs(own.mean(axis=0) - centre) < 5 * 0.2 / np.sqrt(len(own))).all()
        # relative standard error of a standard deviation from n numbers is 1 / sqrt(2 n)
        assert abs((own - own.mean(axis=0)).std() / 0.2 - 1) < 5 / np.sqrt(4 * len(own))


def test_mixture_has_the_stated_weights_means_and_spreads_in_any_dimension() -> None:
    means = [[0.0, 0.0, 0.0], [5.0, -5.0, 1.0]]
    train = load("points", shape="mixture", n=4000, means=means, std=[0.1, 0.5], weights=[3, 1], seed=4).train
    assert train.content.shape[1] == 3 and train.content.dtype == np.float32
    share = (train.labels == 0).mean()
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(train))
    for mode, std in enumerate((0.1, 0.5)):
        own = train.content[train.labels == mode].astype(np.float64)
        assert (np.abs(own.mean(axis=0) - means[mode]) < 5 * std / np.sqrt(len(own))).all()


@pytest.mark.parametrize("shape", ["two_moons", "rings"])
def test_curves_without_noise_satisfy_their_equations(shape: str) -> None:
    train = load("points", shape=shape, n=600, std=0.0, radius=1.0).train
    if shape == "rings":
        lengths = np.linalg.norm(train.content, axis=1)
        np.testing.assert_allclose(lengths, np.where(train.labels == 0, 0.5, 1.0), atol=1e-5)
    else:
        centres = np.where(train.labels[:, None] == 0, [-0.5, -0.25], [0.5, 0.25])
        np.testing.assert_allclose(np.linalg.norm(train.content - centres, axis=1), 1.0, atol=1e-5)


def test_points_depend_on_the_seed_alone() -> None:
    assert (load("points", n=100).train.ids == load("points", n=100).train.ids).all()
    assert set(load("points", n=100, seed=1).train.ids).isdisjoint(load("points", n=100).train.ids)


# --- corpus ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n\tα", max_size=300), st.integers(1, 60))
def test_pieces_join_to_the_text_and_keep_to_the_length(text: str, length: int) -> None:
    cut = pieces(text, length)
    assert "".join(cut) == text
    assert all(0 < len(piece) <= length for piece in cut)


def test_pieces_are_cut_at_the_best_place() -> None:
    assert pieces("one two\nthree\n\nfour five\nsix\n\n", 18) == ["one two\nthree\n\n", "four five\nsix\n\n"]
    assert pieces("one two\nthree four\n", 12) == ["one two\n", "three four\n"]
    assert pieces("one two three", 8) == ["one two ", "three"]
    assert pieces("abcdefgh", 3) == ["abc", "def", "gh"]


def test_a_document_is_held_out_whole(tmp_path: Path) -> None:
    for number in range(60):
        words = "\n\n".join(f"document {number} paragraph {i} " + "x" * 50 for i in range(20))
        (tmp_path / f"{number}.txt").write_text(words)
    splits = load("corpus", paths=[str(tmp_path)], length=200, held_out=0.3)
    def documents(part: Any) -> set[str]:
        return {number for text in part.content for number in re.findall(r"document (\d+)", text)}
    assert documents(splits.train).isdisjoint(documents(splits.held_out))
    assert documents(splits.train) | documents(splits.held_out) == {str(i) for i in range(60)}
    assert max(len(text) for text in splits.train.content) <= 200


def test_held_out_chunks_that_are_in_train_are_removed_and_counted(tmp_path: Path) -> None:
    shared = "The licence that is in every file.\n" * 5
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(shared + "\n" + f"only in {number} " * 30)
    splits = load("corpus", paths=[str(tmp_path)], length=500, held_out=0.3)
    train = {normalised(text) for text in splits.train.content}
    assert not train & {normalised(text) for text in splits.held_out.content}
    assert any("repeat another exactly" in note or "are in train" in note for note in splits.notes)


def test_corpus_needs_no_download() -> None:
    splits = load("corpus")
    assert len(splits.train) > 300 and {prompt.text for prompt in splits.train.prompts} == {""}
    assert any("statement" in text for text in splits.train.content)


@needs_data
def test_one_long_file_is_held_out_by_sections() -> None:
    splits = load("corpus", paths=[str(DATA / "tinyshakespeare")])
    size = sum(map(len, splits.train.content)) + sum(map(len, splits.held_out.content))
    assert 1_090_000 < size < 1_115_394  # all of it, without the line ends around chunks
    assert 0.03 < len(splits.held_out) / (len(splits.train) + len(splits.held_out)) < 0.25


# --- equations -------------------------------------------------------------------------------------------------


def test_worked_steps_follow_the_usual_notation() -> None:
    cases = {
        "12+7*3": "12+21=33", "180-(40+40)": "180-80=100", "1+2*3+4*5": "1+6+4*5=1+6+20=7+20=27",
        "2*(3-5)": "2*(-2)=-4", "3-5+2": "-2+2=0", "2*(3-5+1)": "2*(-2+1)=2*(-1)=-2", "8*1/4": "8/4=2",
        "(1/2)/(1/4)": "0.5/(1/4)=0.5/0.25=2", "7+1.50+1": "8.5+1=9.5", "48/2": "24", "((3))+1": "4", "-3+5": "2",
        "4-(3-5)*2": "4-(-2)*2=4-(-4)=8", "+30+46": "76",
    }
    for text, steps in cases.items():
        assert "=".join(work_out(text).steps or ()) == steps, text
    assert work_out("1/3*9").steps is None and work_out("1/3*9").value == 3


@pytest.mark.parametrize("text", ["", "2+", "*3", "(2+3", "2+3)", "2 3", "1..2", "2(3)", "()", "a+1", "--2", "5%2"])
def test_text_that_is_not_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        work_out(text)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.sampled_from("+-*"), min_size=1, max_size=5), st.data())
def test_every_step_has_the_value_that_python_finds(first: int, signs: list[str], data: st.DataObject) -> None:
    numbers = [first] + [data.draw(st.integers(0, 99)) for _ in signs]
    text = str(numbers[0]) + "".join(f"{sign}{number}" for sign, number in zip(signs, numbers[1:], strict=True))
    worked = work_out(text)
    assert worked.steps is not None and len(worked.steps) == len(signs)
    assert {python_value(step) for step in (text, *worked.steps)} == {worked.value}


@given(st.integers(-(10**9), 10**9), st.integers(0, 6), st.integers(0, 6))
def test_decimals_are_exact_and_shortest(numerator: int, twos: int, fives: int) -> None:
    value = Fraction(numerator, 2**twos * 5**fives)
    text = decimal(value)
    assert text is not None and Fraction(text) == value
    assert "." not in text or not text.endswith("0")
    assert decimal(value + Fraction(1, 3)) is None


def test_generated_equations_satisfy_their_settings() -> None:
    source = {"count": 600, "operations": [2, 3], "largest": 9, "parentheses": 0.5, "results": [0, 99]}
    splits = load("equations", **source)
    both = concatenate([splits.train, splits.held_out])
    assert len(both) == 600 and len({prompt.text for prompt in both.prompts}) == 600
    for sample in both:
        expression = sample.prompt.text.removesuffix("=")
        assert 2 <= len(re.findall(r"[-+*]", expression)) <= 3
        assert all(1 <= int(number) <= 9 for number in re.findall(r"\d+", expression))
        steps = str(sample.content).split("=")
        assert steps[-1] == sample.prompt.fields["answer"]
        assert {python_value(step) for step in steps} == {python_value(expression)}
        assert 0 <= python_value(expression) <= 99
    bracketed = sum("(" in prompt.text for prompt in both.prompts) / 600
    assert 0.3 < bracketed < 0.65


def test_division_is_generated_only_where_every_value_is_whole() -> None:
    train = load("equations", count=200, operators="+/", largest=30).train
    assert any("/" in prompt.text for prompt in train.prompts)
    assert not any("." in text for text in train.content)


@needs_data
def test_gsm8k_train_has_11021_different_equations() -> None:
    train = different_equations(str(DATA / "gsm8k" / "train.jsonl"))
    assert len(train) == 11_021


@pytest.mark.slow
@needs_data
def test_gsm8k_test_equations_that_are_in_train_are_not_held_out() -> None:
    files = {name: DATA / "gsm8k" / f"{name}.jsonl" for name in ("train", "test")}
    splits = load("equations", train=str(files["train"]), test=str(files["test"]))
    # the files read once more, by other means
    left = {
        name: {e.rsplit("=", 1)[0] for e in re.findall(r"<<(.*?)>>", path.read_text())} for name, path in files.items()
    }
    held_out = {prompt.text.removesuffix("=") for prompt in splits.held_out.prompts}
    assert held_out == left["test"] - left["train"]
    assert any(f"{len(left['test'] & left['train']):,} of {len(left['test']):,} test rows" in n for n in splits.notes)
    assert any("11,021 different equations" in note for note in splits.notes)
    # two thirds of all equations of the test file are verbatim in train
    verbatim = set(re.findall(r"<<(.*?)>>", files["train"].read_text()))
    every = re.findall(r"<<(.*?)>>", files["test"].read_text())
    assert 0.64 < sum(equation in verbatim for equation in every) / len(every) < 0.68
    for sample in list(splits.train)[::7]:
        steps = str(sample.content).split("=")
        assert python_value(steps[-1]) == python_value(sample.prompt.text.removesuffix("=")), sample
        assert sample.prompt.fields["answer"] == steps[-1]


def test_wrong_and_unreadable_equations_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    answers = [f"{i}+1=<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}" for i in range(40)]
    answers += ["<<2+2=5>>\n#### 5", "<<7//2=3>>\n#### 3", "<<3+1=4.0>> <<3+1=4>>\n#### 4"]
    path.write_text("\n".join(json.dumps({"question": "?", "answer": answer}) for answer in answers))
    splits = load("equations", train=str(path), held_out=0.3)
    both = concatenate([splits.train, splits.held_out])
    found = {s.prompt.text: s.content for s in both}
    assert len(found) == 40 and found["3+1="] == "4"
    assert any("1 expressions do not equal their result, left out, e.g. '2+2'" in note for note in splits.notes)
    assert any("1 expressions are not arithmetic, left out, e.g. '7//2'" in note for note in splits.notes)


def test_tokens_keep_numbers_as_written() -> None:
    assert [t if isinstance(t, str) else t.text for t in tokens("12*.01+1.50")] == ["12", "*", ".01", "+", "1.50"]


# --- images --------------------------------------------------------------------------------------------------


def picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.mark.slow
@needs_data
def test_emoji_with_metadata_match_a_plain_reading_of_the_files() -> None:
    folder = DATA / "emoji"
    splits = load("imagefolder", path=str(folder), caption="name", label="category", size=64)
    assert len(splits.train) + len(splits.held_out) == 2008
    assert {"people", "flags", "food"} <= set(splits.classes)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").open()]
    by_text = {sample.prompt.text: sample for sample in (*splits.train, *splits.held_out)}
    for row in rows[::97]:
        with Image.open(folder / row["file_name"]) as opened:
            rgba = np.asarray(opened.convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
        sample = by_text[row["name"]]
        assert np.abs(sample.content - expected).max() <= 1.5
        assert splits.classes[sample.prompt.label] == row["category"]


@pytest.mark.slow
@needs_data
def test_emoji_without_metadata_are_split_by_their_pixels() -> None:
    splits = load("imagefolder", path=str(DATA / "emoji" / "images"), size=16)
    train = {row.tobytes() for row in splits.train.content}
    assert not any(row.tobytes() in train for row in splits.held_out.content)
    assert splits.train.prompts[0] == Prompt() and splits.classes == ()


def test_class_folders_give_classes_and_texts(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "._0.png").write_bytes(b"what a Mac leaves behind")
    for number in range(30):
        picture(tmp_path / "cat" / f"{number}.png", (number, 0, 0))
        picture(tmp_path / "dog" / "deep" / f"{number}.jpg", (0, 8 * number, 0))
    splits = load("imagefolder", path=str(tmp_path), size=8, held_out=0.3)
    assert splits.classes == ("cat", "dog")
    assert {(p.text, p.label) for p in splits.train.prompts} == {("cat", 0), ("dog", 1)}


def test_captions_beside_the_images_are_read_and_missing_ones_counted(tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / f"{number}.png", (number, 0, 0))
        if number:
            (tmp_path / f"{number}.txt").write_text(f"red {number}\n")
    splits = load("imagefolder", path=str(tmp_path), size=8, held_out=0.3)
    for sample in (*splits.train, *splits.held_out):
        red = int(sample.content[0, 0, 0])
        assert sample.prompt.text == (f"red {red}" if red else "")
    assert any("1 of 30 images have no .txt, e.g. 0.png" in note for note in splits.notes)


def test_metadata_csv_and_images_that_it_does_not_name(tmp_path: Path) -> None:
    for number in range(21):
        picture(tmp_path / f"{number}.png", (number, 0, 0))
    lines = [f'{i}.png,"the number, {i}",k{i % 2}' for i in range(20)]
    (tmp_path / "metadata.csv").write_text("file_name,words,sort\r\n" + "\r\n".join(lines) + "\r\n")
    splits = load("imagefolder", path=str(tmp_path), size=8, caption="words", label="sort", held_out=0.3)
    both = concatenate([splits.train, splits.held_out])
    assert {prompt.text for prompt in both.prompts} == {f"the number, {i}" for i in range(20)}
    assert splits.classes == ("k0", "k1")
    assert any("1 of 21 images are in no row of metadata.csv" in note for note in splits.notes)
    plain = load("imagefolder", path=str(tmp_path), size=8, held_out=0.3)
    assert any("no column is named as the caption; columns found: words, sort" in note for note in plain.notes)


def test_images_of_every_mode_and_shape_become_equal_squares(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (10, 20, 30, 0), mode="RGBA")
    picture(tmp_path / "b.png", (10, 20, 30, 255), mode="RGBA", size=(40, 12))
    picture(tmp_path / "c.png", (200,), mode="L", size=(7, 30))
    Image.fromarray(np.full((12, 12), 257 * 99, dtype=np.uint16)).save(tmp_path / "d.png")
    indexed = Image.new("P", (12, 12), 1)
    indexed.putpalette([0, 0, 0, 90, 91, 92])
    indexed.save(tmp_path / "e.png")
    for number in range(20):
        picture(tmp_path / f"f{number}.png", (number, number, 1))
    splits = load("imagefolder", path=str(tmp_path), size=9, held_out=0.3, background="#010203")
    colours = {tuple(int(x) for x in row[4, 4]) for row in concatenate([splits.train, splits.held_out]).content}
    assert {(1, 2, 3), (10, 20, 30), (200, 200, 200), (99, 99, 99), (90, 91, 92)} <= colours
    grey = load("imagefolder", path=str(tmp_path), size=9, held_out=0.3, channels=1)
    assert grey.train.content.shape[1:] == (9, 9, 1)


def test_the_middle_is_cut_out_and_the_camera_turned(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    tall = np.zeros((10, 10, 3), dtype=np.uint8)
    tall[:5] = 255  # lies on its side: orientation 6 is turned a quarter clockwise to be upright
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tall).save(tmp_path / "turned.png", exif=exif)
    for number in range(12):
        picture(tmp_path / f"{number}.png", (number, 0, 0))
    splits = load("imagefolder", path=str(tmp_path), size=10, held_out=0.3)
    rows = [row for row in concatenate([splits.train, splits.held_out]).content if row.max() == 255]
    middle = next(row for row in rows if row.min() == 255)
    turned = next(row for row in rows if row.min() == 0)
    assert middle.shape == (10, 10, 3)
    assert (turned[:, 5:] == 255).all() and (turned[:, :5] == 0).all()


def test_a_stated_share_of_broken_images_is_left_out_and_named(tmp_path: Path) -> None:
    for number in range(19):
        picture(tmp_path / f"{number}.png", (number, 0, 0))
    (tmp_path / "cut.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    splits = load("imagefolder", path=str(tmp_path), size=8, held_out=0.3, broken_at_most=0.05)
    assert len(splits.train) + len(splits.held_out) == 19
    assert any("1 of 20 images cannot be read" in note and "cut.png" in note for note in splits.notes)


def test_images_of_the_test_folder_that_are_in_train_are_removed(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "train" / f"{number}.png", (number, 0, 0))
        picture(tmp_path / "test" / f"x{number}.png", (number + 7, 0, 0))
    splits = load("imagefolder", path=str(tmp_path / "train"), test=str(tmp_path / "test"), size=8)
    assert sorted(int(row[0, 0, 0]) for row in splits.held_out.content) == list(range(10, 17))
    assert any("3 of 10 test rows are in train" in note for note in splits.notes)


# --- tables ----------------------------------------------------------------------------------------------------


def test_jsonl_takes_bom_crlf_empty_and_long_lines(tmp_path: Path) -> None:
    rows = [{"q": f"ask {i}", "a": "y" * (200_000 if i == 3 else 1) + str(i), "n": i} for i in range(30)]
    body = "\r\n\r\n".join(json.dumps(row) for row in rows)
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + body.encode())
    splits = load("jsonl", path=str(tmp_path / "x.jsonl"), prompt="q", completion="a", fields=["n"], held_out=0.3)
    both = concatenate([splits.train, splits.held_out])
    found = {s.prompt.text: (s.content, s.prompt.fields["n"]) for s in both}
    assert found == {row["q"]: (row["a"], str(row["n"])) for row in rows}


def test_rows_with_one_prompt_are_in_one_part_unless_split_by_differs(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"q": f"ask {i // 3}", "a": f"answer {i}", "who": f"w{i % 5}"} for i in range(150)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    splits = load("jsonl", path=str(path), prompt="q", completion="a", held_out=0.3)
    assert {p.text for p in splits.train.prompts}.isdisjoint(p.text for p in splits.held_out.prompts)
    splits = load("jsonl", path=str(path), prompt="q", completion="a", held_out=0.4, split_by="who", fields=["who"])
    sides = [{p.fields["who"] for p in part.prompts} for part in (splits.train, splits.held_out)]
    assert sides[0].isdisjoint(sides[1]) and len(sides[0] | sides[1]) == 5


def test_exact_repetitions_and_empty_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"text": f"row {i}"} for i in range(30)] + [{"text": "row 1"}, {"text": "row 1"}, {"text": "  "}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    splits = load("jsonl", path=str(path), held_out=0.3)
    assert len(splits.train) + len(splits.held_out) == 30
    assert any("2 rows of the data repeat another exactly" in note for note in splits.notes)
    assert any("1 of 33 rows have no text, left out, the first at" in n and "line 33" in n for n in splits.notes)


def test_jsonl_of_points_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"xy": [i, i / 2], "c": [10, 9, 2][i % 3]}) for i in range(60)))
    source = components.make("source", {"name": "jsonl", "path": str(path), "points": "xy", "label": "c"})
    assert source.kind == "points"
    splits = source.load()
    assert splits.classes == ("2", "9", "10")  # numbers in the order of size, not of the alphabet
    for sample in splits.train:
        assert splits.classes[sample.prompt.label] == str([10, 9, 2][int(sample.content[0]) % 3])
    assert splits.train.content.dtype == np.float32


@pytest.mark.slow
@needs_data
def test_a_glob_and_a_separate_test_file_of_word_problems() -> None:
    folder = DATA / "gsm8k"
    splits = load(
        "jsonl", path=str(folder / "tr*.jsonl"), test=str(folder / "test.jsonl"), prompt="question", completion="answer"
    )
    assert (len(splits.train), len(splits.held_out)) == (7473, 1319)


def pictures_as_bytes(count: int) -> list[bytes]:
    import io

    out = []
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "png")
        out.append(stream.getvalue())
    return out


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_of_images(tmp_path: Path, as_struct: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pictures_as_bytes(30)
    image = [{"bytes": b, "path": None} for b in raw] if as_struct else raw
    table = pa.table({"image": image, "label": [i % 2 for i in range(30)], "extra": [f"w{i}" for i in range(30)]})
    pq.write_table(table, tmp_path / "x.parquet")
    source = components.make("source", {
        "name": "parquet", "path": str(tmp_path / "x.parquet"), "image": "image", "label": "label", "size": 8,
        "prompt": "extra", "held_out": 0.3,
    })
    assert source.kind == "image"
    splits = source.load()
    both = concatenate([splits.train, splits.held_out])
    assert sorted(int(row[0, 0, 0]) for row in both.content) == list(range(30))
    for sample in both:
        red = int(sample.content[0, 0, 0])
        assert (sample.prompt.text, sample.prompt.label) == (f"w{red}", red % 2)


def test_parquet_of_points_and_of_text(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    points = np.arange(120, dtype=np.float64).reshape(40, 3)
    pq.write_table(pa.table({"x": list(points), "t": [f"text {i}" for i in range(40)]}), tmp_path / "x.parquet")
    splits = load("parquet", path=str(tmp_path / "x.parquet"), points="x", held_out=0.3)
    np.testing.assert_array_equal(np.sort(np.concatenate([splits.train.content, splits.held_out.content]), 0), points)
    splits = load("parquet", path=str(tmp_path / "x.parquet"), text="t", held_out=0.3)
    assert set(splits.train.content) | set(splits.held_out.content) == {f"text {i}" for i in range(40)}


def test_hub_reads_what_datasets_saved_and_folders_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd", "never"]),
    })
    rows = {"image": [{"bytes": b, "path": None} for b in pictures_as_bytes(30)], "label": [i % 2 for i in range(30)]}
    data = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": data.select(range(25)), "test": data.select(range(20, 30))}).save_to_disk(
        str(tmp_path / "saved")
    )
    splits = load("hub", path=str(tmp_path / "saved"), test="test", image="image", label="label", size=8)
    assert splits.classes == ("even", "odd", "never")
    assert sorted(int(row[0, 0, 0]) for row in splits.held_out.content) == [25, 26, 27, 28, 29]
    assert {p.text for p in splits.train.prompts} == {"even", "odd"}
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.jsonl").write_text("\n".join(json.dumps({"text": f"row {i}"}) for i in range(30)))
    splits = load("hub", path=str(tmp_path / "files"), held_out=0.3)
    assert len(splits.train) + len(splits.held_out) == 30


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    from upturn.data.sources.digits import _digit_images

    pixels, labels = _digit_images()
    expected = load_digits()
    assert np.array_equal(pixels, expected.data) and np.array_equal(labels, expected.target)
