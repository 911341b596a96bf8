"""Tests of the store: values are read back bit for bit, and failures give one clear message."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upturn.errors import RunError, UserError
from upturn.export import run_export as exports
from upturn.store import checkpoints, files, parquet_tables, png
from upturn.store.columns import read_table
from upturn.store.run import Run
from upturn.types import Mixture, Prompt, Samples, Scores, Selection, objects, real_samples, synthetic_samples

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "a", "seed: 1\n", {"torch": "2.13"})


def write(run: Run, unit: str, step: str, info: dict | None = None, **texts: str) -> None:
    with run.commit(unit, step, info) as out:
        for name, text in texts.items():
            (out.path / name).write_text(text)


def same(a: Samples, b: Samples) -> None:
    assert a.kind == b.kind
    assert a.prompts == b.prompts
    for name in ("ids", "origin", "source", "group", "candidate", "content"):
        one, two = getattr(a, name), getattr(b, name)
        assert one.dtype == two.dtype and one.shape == two.shape, name
        assert one.tobytes() == two.tobytes() if one.dtype != object else one.tolist() == two.tolist(), name
    assert list(a.fields) == list(b.fields)
    for name, one in a.fields.items():
        two = b.fields[name]
        assert one.dtype == two.dtype and one.shape == two.shape, name
        assert one.tobytes() == two.tobytes() if one.dtype != object else one.tolist() == two.tolist(), name


def pictures(n: int, shape: tuple[int, int, int] = (8, 8, 1), seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    prompts = [Prompt("", i % 10) for i in range(n)]
    return real_samples("image", rng.integers(0, 256, (n, *shape), dtype=np.uint8), prompts, "digits")


def texts(n: int, candidates: int, model: str, start: int = 0) -> Samples:
    prompts = [Prompt(f"{start + i} + 1 =", None, {"answer": str(start + i + 1)}) for i in range(n)]
    keys = np.arange(n * candidates).reshape(n, candidates) + start
    return synthetic_samples("text", [f" {k}" for k in keys.reshape(-1)], prompts, keys, model)


# tables

prompts = st.builds(
    Prompt, st.text(max_size=20), st.none() | st.integers(0, 2**40),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
floats = st.floats(width=32)


@st.composite
def any_samples(draw: st.DrawFn) -> Samples:
    n = draw(st.integers(0, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["text", "image", "points"]))
    if kind == "text":
        content = objects(draw(st.lists(st.text(), min_size=n, max_size=n)))
    elif kind == "points":
        width = draw(st.integers(1, 3))
        flat = draw(st.lists(floats, min_size=n * width, max_size=n * width))
        content = np.array(flat, dtype=np.float32).reshape(n, width)
    else:
        shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4)))
        content = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=n, max_size=n))
    fields = {
        "key": rng.integers(0, 2**63 - 1, n), "quality": rng.normal(size=n), "half": rng.normal(size=n).astype("f2"),
        "sharp": rng.random(n) > 0.5, "split": objects(names), "word": np.array(names or [""])[:n],
        "maybe": objects([None if i % 2 else "x" for i in range(n)]), "label": rng.integers(0, 5, n).astype(np.int8),
        "tags": objects([["a", i] for i in range(n)]), "box": rng.normal(size=(n, 2, 2)).astype(np.float32),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    return Samples(
        kind, objects([f"{i:016x}" for i in range(n)]), tuple(draw(st.lists(prompts, min_size=n, max_size=n))), content,
        objects(["real"] * n), objects(names), rng.integers(0, 99, n), rng.integers(0, 9, n),
        {name: fields[name] for name in sorted(chosen)},
    )


@pytest.mark.slow
@QUICK
@given(samples=any_samples())
def test_samples_come_back_bit_for_bit(samples: Samples, tmp_path: Path) -> None:
    parquet_tables.write_samples(tmp_path / "s.parquet", samples)
    same(parquet_tables.read_samples(tmp_path / "s.parquet"), samples)


def test_not_a_number_and_minus_zero_of_points_keep_their_bits(tmp_path: Path) -> None:
    odd = np.array([0x7FC00001, 0x80000000, 0x7F800000, 0x00000001], dtype=np.uint32).view(np.float32).reshape(2, 2)
    samples = real_samples("points", odd, [Prompt()] * 2, "x")
    parquet_tables.write_samples(tmp_path / "s.parquet", samples)
    assert parquet_tables.read_samples(tmp_path / "s.parquet").content.tobytes() == odd.tobytes()


def test_equal_prompts_are_one_object_after_reading(tmp_path: Path) -> None:
    parquet_tables.write_samples(tmp_path / "s.parquet", texts(3, 4, "m"))
    read = parquet_tables.read_samples(tmp_path / "s.parquet").prompts
    assert len({id(prompt) for prompt in read}) == 3


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_are_png_that_others_read_the_same(channels: int) -> None:
    from PIL import Image

    images = np.random.default_rng(1).integers(0, 256, (5, 7, 4, channels), dtype=np.uint8)
    encoded = png.encode(images)
    for picture, image in zip(encoded, images, strict=True):
        assert (np.asarray(Image.open(io.BytesIO(picture))).reshape(image.shape) == image).all()
    assert (png.decode(encoded, images.shape[1:]) == images).all()


def test_images_that_others_wrote_are_read(tmp_path: Path) -> None:
    from PIL import Image

    image = np.random.default_rng(2).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    own = png.encode(image[None])[0]
    assert (png.decode([own, buffer.getvalue()], image.shape) == image).all()


def test_four_thousand_digits_are_written_in_half_a_second(tmp_path: Path) -> None:
    samples = pictures(4000)
    path = tmp_path / "s.parquet"
    parquet_tables.write_samples(path, samples.take(np.arange(2)))  # imports do not count
    taken = []
    for _ in range(3):
        began = time.process_time()
        parquet_tables.write_samples(path, samples)
        half = time.process_time()
        read = parquet_tables.read_samples(path)
        taken.append((half - began, time.process_time() - half))
    assert min(write for write, _ in taken) < 0.5
    assert min(read for _, read in taken) < 0.4
    assert (read.content == samples.content).all()


def test_datasets_shows_the_images(tmp_path: Path) -> None:
    import datasets

    samples = pictures(6, (8, 8, 3)).with_fields(quality=np.linspace(0, 1, 6))
    parquet_tables.write_samples(tmp_path / "s.parquet", samples)
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "s.parquet"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded.features["image"] == datasets.Image()
    assert (np.asarray(loaded[4]["image"]) == samples.content[4]).all()
    assert loaded["label"][:] == [0, 1, 2, 3, 4, 5] and loaded[3]["quality"] == samples.fields["quality"][3]


def test_datasets_reads_points(tmp_path: Path) -> None:
    import datasets

    points = np.arange(6, dtype=np.float32).reshape(3, 2)
    parquet_tables.write_samples(tmp_path / "s.parquet", real_samples("points", points, [Prompt()] * 3, "moons"))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "s.parquet"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded[1]["point"] == [2.0, 3.0]


def test_scores_come_back_aligned_to_any_order(tmp_path: Path) -> None:
    samples = texts(3, 2, "m")
    values = np.array([0.1, np.nan, -np.inf, 1e-300, 5.0, 0.0])
    said = objects(["", "no number", "", "ä", "", ""])
    scores = [Scores("exact", values, said), Scores("judge", -values)]
    parquet_tables.write_scores(tmp_path / "s.parquet", samples, scores)
    order = np.array([5, 0, 3, 1])
    read = parquet_tables.read_scores(tmp_path / "s.parquet", samples.ids[order])
    assert list(read) == ["exact", "judge"]
    assert read["exact"].values.tobytes() == values[order].tobytes()
    assert read["exact"].explanations is not None and read["exact"].explanations.tolist() == said[order].tolist()
    assert read["judge"].explanations is None
    table = read_table(tmp_path / "s.parquet")
    assert table.column_names == ["sample_id", "scorer", "value", "unscored", "explanation"]
    assert table.column("value").null_count == 2 and sum(table.column("unscored").to_pylist()) == 2


def test_a_sample_without_a_score_is_unscored(tmp_path: Path) -> None:
    samples = texts(2, 1, "m")
    parquet_tables.write_scores(tmp_path / "s.parquet", samples, [Scores("exact", np.ones(2))])
    read = parquet_tables.read_scores(tmp_path / "s.parquet", [samples.ids[1], "nobody"])["exact"]
    assert read.values[0] == 1 and read.unscored.tolist() == [False, True]


def test_equal_samples_keep_their_own_selection(tmp_path: Path) -> None:
    # two equal images of a source have one id: the second is dropped as a duplicate, the first is not
    body = np.zeros((3, 2), dtype=np.float32)
    body[1] = 1
    samples = real_samples("points", body, [Prompt()] * 3, "x")
    assert samples.ids[0] == samples.ids[2]
    kept = np.array([True, True, False])
    selection = Selection("dedup", kept, objects(["", "", "twice"]))
    parquet_tables.write_selections(tmp_path / "s.parquet", samples, [selection])
    order = [1, 0, 2]
    read = parquet_tables.read_selections(tmp_path / "s.parquet", samples.ids[order])[0]
    assert read.kept.tolist() == [True, True, False] and read.reasons.tolist() == ["", "", "twice"]


def test_selections_keep_order_names_and_reasons(tmp_path: Path) -> None:
    samples = texts(2, 2, "m")
    first = Selection("threshold", np.array([True, False, True, True]), objects(["", "below 0.5", "", ""]))
    second = Selection("threshold", np.array([True, True, True, False]), objects(["", "", "", "below 0.9"]))
    parquet_tables.write_selections(tmp_path / "s.parquet", samples, [first, second])
    read = parquet_tables.read_selections(tmp_path / "s.parquet")
    assert [s.reasons.tolist() for s in read] == [first.reasons.tolist(), second.reasons.tolist()]
    assert [s.kept.tolist() for s in read] == [first.kept.tolist(), second.kept.tolist()]
    with pytest.raises(UserError, match="not in this file"):
        parquet_tables.read_selections(tmp_path / "s.parquet", ["nobody"])


def test_a_mixture_joins_content_back_in_order(run: Run) -> None:
    real = pictures(50).with_fields(split=objects(["train"] * 50))
    made = synthetic_samples(
        "image", pictures(40, seed=1).content, [Prompt("", i) for i in range(10)], np.arange(40).reshape(10, 4), "m1")
    for unit, samples in (("data", real), ("rounds/001", made)):
        with run.commit(unit, "sample") as out:
            parquet_tables.write_samples(out.path / "samples.parquet", samples)
    rng = np.random.default_rng(5)
    one, two = real.take(rng.integers(0, 50, 30)), made.take(rng.permutation(40)[:20])
    whole = Samples(
        "image", np.concatenate([one.ids, two.ids]), one.prompts + two.prompts,
        np.concatenate([one.content, two.content]), np.concatenate([one.origin, two.origin]),
        np.concatenate([one.source, two.source]), np.arange(50), np.zeros(50, dtype=np.int64), {"w": rng.random(50)},
    )
    shuffled = rng.permutation(50)
    mixture = Mixture(whole.take(shuffled), rng.random(50))
    units = np.array(["data"] * 30 + ["rounds/001"] * 20, dtype=object)[shuffled]
    with run.commit("rounds/001", "mix") as out:
        parquet_tables.write_mixture(out.path / "mixture.parquet", mixture, units)
    read = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet")
    same(read.samples, mixture.samples)
    assert read.weights.tobytes() == mixture.weights.tobytes()


def test_a_mixture_whose_samples_are_gone_names_the_file(run: Run, tmp_path: Path) -> None:
    with run.commit("data", "load") as out:
        parquet_tables.write_samples(out.path / "samples.parquet", texts(2, 1, "m"))
    parquet_tables.write_mixture(tmp_path / "m.parquet", Mixture(texts(2, 1, "other"), np.ones(2)), ["data", "data"])
    with pytest.raises(UserError, match=r"data/samples.parquet: 2 samples of a mixture are not in this file"):
        parquet_tables.read_mixture(run, tmp_path / "m.parquet")


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "other"])
def test_a_damaged_table_is_one_message_that_names_it(damage: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "samples.parquet"
    parquet_tables.write_samples(path, pictures(20))
    raw = path.read_bytes()
    path.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "words": b"PAR1 no", "other": b""}[damage])
    if damage == "other":
        pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match=r"samples\.parquet"):
        parquet_tables.read_samples(path)
    with pytest.raises(UserError, match=r"nothing\.parquet"):
        parquet_tables.read_samples(tmp_path / "nothing.parquet")


def test_content_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    wide = real_samples("points", np.zeros((2, 2)), [Prompt()] * 2, "x")
    with pytest.raises(ValueError, match="float32"):
        parquet_tables.write_samples(tmp_path / "s.parquet", wide)
    dark = real_samples("image", np.zeros((2, 4, 4, 1), dtype=np.float32), [Prompt()] * 2, "x")
    with pytest.raises(ValueError, match="uint8"):
        parquet_tables.write_samples(tmp_path / "s.parquet", dark)


# checkpoints


def test_checkpoints_are_read_back_and_damage_is_reported(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    tensors = {"w": shared, "tied": shared, "t": shared.t(), "half": torch.ones(2, dtype=torch.bfloat16),
               "n": torch.tensor(3), "none": torch.empty(0, 2)}
    scalars = {"step": 12, "best": float("-inf"), "kl": 0.1 + 0.2, "nested": {"a": [1, 2.5, None, "x"]}}
    folder = checkpoints.step_folder(tmp_path / "checkpoints", 123)
    assert folder.name == "step-00000123"
    checkpoints.write_checkpoint(folder, tensors, scalars)
    read, told = checkpoints.read_checkpoint(folder)
    assert told == scalars and read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)
    weights = folder / "weights.safetensors"
    raw = weights.read_bytes()
    for broken in (raw[:-1], raw[:-1] + bytes([raw[-1] ^ 1])):
        weights.write_bytes(broken)
        with pytest.raises(UserError, match=r"weights\.safetensors: this file of a checkpoint is damaged"):
            checkpoints.read_checkpoint(folder)
    weights.unlink()
    with pytest.raises(UserError, match="missing"):
        checkpoints.read_checkpoint(folder)


def test_equal_tensors_make_equal_bytes(tmp_path: Path) -> None:
    for name, order in (("a", ["x", "y"]), ("b", ["y", "x"])):
        checkpoints.write_checkpoint(tmp_path / name, {k: torch.ones(3) for k in order}, dict.fromkeys(order, 1))
    assert checkpoints.tree_hash(tmp_path / "a") == checkpoints.tree_hash(tmp_path / "b")


def test_the_newest_complete_checkpoint_is_taken_and_old_ones_go(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "none") is None
    for step in (5, 90, 100):
        checkpoints.write_checkpoint(checkpoints.step_folder(tmp_path, step), {"w": torch.ones(1)}, {"step": step})
    (tmp_path / "step-00000200").mkdir()  # nothing in it: not complete
    (tmp_path / ".step-00000300.tmp").mkdir()
    assert checkpoints.latest(tmp_path) == checkpoints.step_folder(tmp_path, 100)
    gone = checkpoints.prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in gone] == ["step-00000005"]
    assert sorted(os.listdir(tmp_path)) == ["step-00000090", "step-00000100", "step-00000200"]


def test_tree_hash_sees_every_name_and_byte_and_nothing_else(tmp_path: Path) -> None:
    def hash_of_files(name: str, **content: str) -> str:
        for file, text in content.items():
            path = tmp_path / name / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return checkpoints.tree_hash(tmp_path / name)

    first = hash_of_files("a", x="1", d__y="2")
    assert first == hash_of_files("b", d__y="2", x="1")
    (tmp_path / "b" / "empty").mkdir()
    os.utime(tmp_path / "b" / "x", (1, 1))
    assert checkpoints.tree_hash(tmp_path / "b") == first
    others = {
        hash_of_files("c", x="1", d__z="2"), hash_of_files("d", x="1", d__y="3"),
        hash_of_files("e", x="12", d__y=""), hash_of_files("f", x="1"),
    }
    assert first not in others and len(others) == 4


# runs and commits


def test_a_committed_step_is_recorded_and_stays(run: Run) -> None:
    with run.commit("rounds/001", "sample", {"model": "m"}) as out:
        (out.path / "samples.parquet").write_text("x")
        (out.path / "model").mkdir()
        (out.path / "model" / "w").write_text("y")
        out.counts["samples"] = np.int64(3)  # type: ignore[assignment]
        out.info["loss"] = float("nan")
        assert run.done("rounds/001", "sample") is None
    record = run.done("rounds/001", "sample")
    assert record is not None and record == out.record
    assert record.counts == {"samples": 3} and record.info == {"model": "m", "loss": None} and record.seconds > 0
    folder = run.unit("rounds/001")
    assert sorted(os.listdir(folder)) == ["model", "samples.parquet", "stages"]
    assert record.files["model"] == files.tree_hash(folder / "model")
    assert set(json.loads((folder / "stages" / "sample.json").read_text())) == {
        "unit", "step", "started", "seconds", "counts", "info", "files"}
    with pytest.raises(RunError, match="done already"), run.commit("rounds/001", "sample"):
        pass
    with pytest.raises(RunError, match=r"'sample' wrote 'samples.parquet' already"):
        write(run, "rounds/001", "other", **{"samples.parquet": "z"})
    assert (folder / "samples.parquet").read_text() == "x" and run.verify().intact


def test_a_body_that_raises_leaves_nothing(run: Run) -> None:
    with pytest.raises(ZeroDivisionError), run.commit("rounds/001", "sample") as out:
        (out.path / "samples.parquet").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(run.unit("rounds/001")) == ["stages"] and run.records() == []
    write(run, "rounds/001", "sample", **{"samples.parquet": "x"})
    assert run.verify().intact


def test_the_caller_can_give_the_duration(run: Run) -> None:
    with run.commit("data", "load") as out:
        out.seconds = 12.5
    assert run.records("data")[0].seconds == 12.5


def test_units_and_rounds_are_listed_in_order(run: Run) -> None:
    for unit in ("data", "models/judge", "rounds/000/pretrain", "rounds/000/finetune", "rounds/000", "rounds/001"):
        write(run, unit, "train", model=unit)
    assert run.units() == [
        "data", "models/judge", "rounds/000/pretrain", "rounds/000/finetune", "rounds/000", "rounds/001"]
    assert run.round_units() == ["rounds/000/pretrain", "rounds/000/finetune", "rounds/000", "rounds/001"]
    for wrong in ("rounds/1", "../x", "data/x", "models/..", "rounds/001/a/b"):
        with pytest.raises(ValueError, match="no unit"):
            run.unit(wrong)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_is_one_message_and_keeps_what_was_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    write(run, "data", "load", **{"samples.parquet": "x"})

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(RunError, match=r"rounds/001: the disk is full"):
            write(run, "rounds/001", "sample", **{"samples.parquet": "x"})
    assert run.verify().intact and [record.unit for record in run.records()] == ["data"]
    write(run, "rounds/001", "sample", **{"samples.parquet": "x"})
    assert run.verify().intact


_LIMITED = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from upturn.errors import RunError
from upturn.store import checkpoints, parquet_tables
from upturn.store.run import Run
from upturn.types import Prompt, real_samples
run = Run.open(sys.argv[1])
run.lock()
samples = real_samples("points", np.random.default_rng(0).normal(size=(20000, 2)).astype("f4"), [Prompt()] * 20000, "x")
import torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
for write in (
    lambda path: parquet_tables.write_samples(path / "samples.parquet", samples),
    lambda path: checkpoints.write_checkpoint(path / "checkpoints" / "step-00000001", {"w": torch.zeros(50000)}, {}),
    lambda path: (path / "big").write_bytes(bytes(60000)),
):
    try:
        with run.commit("rounds/001", "sample") as out:
            write(out.path)
    except RunError as error:
        print("CLEAR", error)
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_real_write_that_the_system_refuses_is_one_message(run: Run) -> None:
    write(run, "data", "load", **{"samples.parquet": "x"})
    run.close()
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(run.folder)], capture_output=True, text=True, check=True)
    assert done.stdout.count("CLEAR") == 3 and done.stdout.count("the disk is full") == 3, done.stdout + done.stderr
    assert run.verify().intact and os.listdir(run.unit("rounds/001")) == ["stages"]


def test_a_folder_without_permission_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(UserError, match="there is no permission to write here") as error:
        Run.create(tmp_path / "runs" / "a", "", {})
    assert str(tmp_path) in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_message(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="permission"):
            Run.create(tmp_path / "a", "", {})
    finally:
        tmp_path.chmod(0o700)


def test_a_run_is_created_completely_and_never_twice(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "seed: 2\n", {"b": 1, "a": [1.5]})
    again = Run.open(tmp_path / "a")
    assert again.recipe_text == "seed: 2\n" and again.fingerprint == {"b": 1, "a": [1.5]} and again.id == run.id
    with pytest.raises(UserError, match="not empty"):
        Run.create(tmp_path / "a", "", {})
    with pytest.raises(UserError, match="no run here"):
        Run.open(tmp_path / "b")


def test_two_processes_cannot_write_one_run(run: Run) -> None:
    write(run, "data", "load")
    code = f"""
from upturn.store.run import Run
from upturn.errors import RunError
run = Run.open({str(run.folder)!r})
assert len(run.records()) == 1 and run.state.state == "running"
print(run.holder())
for act in (run.lock, lambda: run.commit("data", "x"), lambda: run.set_state("failed"), lambda: run.prune("all")):
    try: act()
    except RunError as error: print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"{os.getpid()}\n") and told.count(f"process {os.getpid()} is at work on this run") == 4
    run.close()
    assert Run.open(run.folder).holder() is None
    Run.open(run.folder).lock()


def test_the_state_is_kept(run: Run) -> None:
    assert run.state.state == "running"
    run.set_state("waiting", "12 votes are missing")
    assert Run.open(run.folder).state.message == "12 votes are missing"
    with pytest.raises(ValueError, match="no state"):
        run.set_state("asleep")  # type: ignore[arg-type]


def test_damage_is_found(run: Run) -> None:
    write(run, "data", "load", one="1", two="2", three="3")
    (run.unit("data") / "one").write_text("7")
    (run.unit("data") / "two").unlink()
    found = run.verify()
    problems = {damage.path.name: damage.problem for damage in found.damage}
    assert problems == {"one": "its bytes are not those that were written", "two": "missing"} and found.files == 1
    (run.unit("data") / "stages" / "load.json").write_text('{"unit": 1')
    with pytest.raises(UserError, match=r"load.json"):
        run.records()
    [damage] = run.verify().damage
    assert damage.path.name == "load.json" and damage.unit == "data" and "cannot be read" in damage.problem


# catalog


def rows(run: Run) -> list[list[dict[str, object]]]:
    catalog = run.catalog()

    def plain(row: object) -> dict[str, object]:
        return {name: value for name, value in vars(row).items() if not name.startswith("_")}

    return [[plain(row) for row in catalog.runs()], [plain(row) for row in catalog.rounds(run.id)],
            [vars(record) for record in catalog.records(run.id)]]


def planned(run: Run) -> None:
    """Data, round 0 and three rounds: promoted, rejected, promoted."""
    write(run, "data", "load", {"n": 3}, **{"samples.parquet": "x"})
    for unit in ("rounds/000/pretrain", "rounds/000/finetune", "rounds/000"):
        write(run, unit, "train", {"model": f"model-{unit}"}, model=unit * 10)
    for number, decision in enumerate(["promoted", "rejected", "promoted"], start=1):
        unit = f"rounds/{number:03d}"
        write(run, unit, "train", {"model": f"model-{unit}"})
        folder = run.unit(unit)
        with run.commit(unit, "save") as out:
            (out.path / "model").mkdir()
            (out.path / "model" / "w").write_bytes(bytes(1000))
        write(run, unit, "gate", {"decision": decision, "reason": f"because {number}"})
        assert (folder / "model" / "w").exists()


@pytest.mark.parametrize("damage", ["lost", "broken", "behind"])
def test_the_catalog_is_rebuilt_from_the_files(run: Run, damage: str) -> None:
    planned(run)
    before = rows(run)
    assert [row["decision"] for row in before[1]] == [None, "promoted", "rejected", "promoted"]
    assert run.catalog().records(run.id) == run.records()
    path = run.folder / "upturn.db"
    if damage == "behind":
        from sqlalchemy import create_engine, text

        with create_engine(run.catalog_url).begin() as connection:
            connection.execute(text("DELETE FROM stages WHERE unit = 'rounds/002'"))
        assert rows(run) == before
        return
    run.close()
    for name in path.parent.glob("upturn.db*"):
        name.unlink()
    if damage == "broken":
        path.write_bytes(b"this is no database at all" * 100)
    again = Run.open(run.folder)
    assert rows(again) == before


def test_an_unreachable_catalog_does_not_stop_a_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/not-there/upturn.db"
    with pytest.warns(UserWarning, match="the run continues"):
        run = Run.create(tmp_path / "a", "", {}, catalog=url)
        write(run, "data", "load", x="1")
    assert run.verify().intact and run.done("data", "load") is not None
    with pytest.raises(UserError, match="catalog"):
        run.catalog()
    (tmp_path / "not-there").mkdir()
    assert run.catalog().records(run.id) == run.records()


def test_an_invalid_url_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Run.create(tmp_path / "a", "", {}, catalog="no url")


def test_two_runs_share_one_catalog(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    made = [Run.create(tmp_path / name, "", {}, catalog=url) for name in ("a", "b")]
    for run in made:
        write(run, "rounds/001", "gate", {"decision": "promoted"})
    assert [row.name for row in made[0].catalog().runs()] == ["a", "b"]
    assert made[1].catalog().records(made[1].id) == made[1].records()


# retention and forks


@pytest.mark.parametrize(("keep", "budget", "gone"), [
    ("all", None, []), ("promoted", None, ["rounds/002"]), ("last 1", None, ["rounds/001", "rounds/002"]),
    ("last 2", None, ["rounds/001"]), ("all", 10**9, []), ("all", 2900, ["rounds/002"]),
    ("all", 0, ["rounds/002", "rounds/001"]), ("promoted", 0, ["rounds/002", "rounds/001"]),
])
def test_weights_are_removed_as_configured_and_recorded(
    run: Run, keep: str, budget: int | None, gone: list[str]
) -> None:
    planned(run)
    removed = run.prune(keep, budget)
    assert [deletion.unit for deletion in removed] == gone
    assert run.deletions() == removed and all(deletion.bytes == 1000 and deletion.reason for deletion in removed)
    assert [unit for unit in run.units() if (run.unit(unit) / "model").exists()] == [
        unit for unit in run.units() if unit != "data" and unit not in gone]
    assert run.verify().intact and run.prune(keep, budget) == []
    for unit in gone:
        with pytest.raises(UserError, match=r"these weights were removed"):
            run.model_folder(unit)


def test_a_round_that_is_not_gated_keeps_its_weights(run: Run) -> None:
    planned(run)
    write(run, "rounds/004", "train", model="new")
    assert [deletion.unit for deletion in run.prune("last 1", 0)] == ["rounds/001", "rounds/002"]
    assert (run.unit("rounds/004") / "model").exists() and run.incumbent() == "rounds/003"
    with pytest.raises(UserError, match="'some' is not known"):
        run.prune("some")


def test_a_fork_has_all_that_came_before_and_leaves_its_source_alone(run: Run, tmp_path: Path) -> None:
    planned(run)
    before = {record.unit + record.step: record for record in run.records()}
    fork = Run.fork(run, 2, tmp_path / "b", "seed: 3\n", {"torch": "2.14"})
    assert fork.verify().intact and fork.id != run.id and fork.recipe_text == "seed: 3\n"
    assert fork.fingerprint == {"torch": "2.14"} and fork.identity["forked_from"]["round"] == 2
    assert fork.records() == [record for record in run.records() if "003" not in record.unit]
    assert fork.catalog().records(fork.id) == fork.records() and fork.incumbent() == "rounds/001"
    write(fork, "rounds/003", "train", model="other")
    fork.prune("last 1")
    assert run.verify().intact and {record.unit + record.step: record for record in run.records()} == before
    with pytest.raises(UserError, match="there is no round 9"):
        Run.fork(run, 9, tmp_path / "c")
    run.prune("last 1", 0)
    with pytest.raises(UserError, match="were removed"):
        Run.fork(run, 2, tmp_path / "c")
    assert not (tmp_path / "c").exists()


# exports


def judged(tmp_path: Path, kind: str) -> Run:
    recipe = "rounds:\n  score:\n  - {name: exact, weight: 2.0}\n  - {name: judge, as: taste}\n"
    run = Run.create(tmp_path / "r", recipe, {})
    made = pictures(12, seed=3) if kind == "image" else texts(3, 4, "m0")
    if kind == "image":
        made = synthetic_samples("image", made.content, [Prompt("", i) for i in range(3)],
                                 np.arange(12).reshape(3, 4), "m0")
    data = pictures(5) if kind == "image" else real_samples("text", ["a", "b", "c", "d", "e"], [Prompt()] * 5, "book")
    with run.commit("data", "load") as out:
        parquet_tables.write_samples(out.path / "samples.parquet", data.with_fields(
            split=objects(["train", "train", "held_out", "train", "held_out"])))
    with run.commit("rounds/000", "train", {"model": "m0", "parent": None, "mixture": "data"}) as out:
        (out.path / "model").mkdir()
        (out.path / "model" / "w").write_text("weights")
    with run.commit("rounds/001", "sample") as out:
        parquet_tables.write_samples(out.path / "samples.parquet", made)
    with run.commit("rounds/001", "score") as out:
        exact = np.array([0, 1, 0, 1, 1, 1, 1, 1, np.nan, np.nan, np.nan, 1])
        taste = np.array([0.5, 0.1, 0.2, 0.3, 1, 1, 1, 1, 1, 1, 1, 1])
        parquet_tables.write_scores(out.path / "scores.parquet", made, [Scores("exact", exact), Scores("taste", taste)])
    with run.commit("rounds/001", "curate") as out:
        kept = np.arange(12) % 4 == 3
        parquet_tables.write_selections(out.path / "selections.parquet", made, [
            Selection("best", kept, objects(["" if k else "not the best" for k in kept]))])
    return run


def load(folder: Path, tmp_path: Path) -> object:
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), split="train")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_samples_are_exported_with_their_ancestry(tmp_path: Path, kind: str) -> None:
    run = judged(tmp_path, kind)
    done = exports.export(run, "samples", tmp_path / "out")
    assert done.counts == {"real samples": 3, "synthetic samples": 12} and done.left_out == {"held-out data": 2}
    loaded = load(tmp_path / "out", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(loaded) == len(lines) == 15
    assert lines[3]["model_unit"] == "rounds/000" and lines[3]["unit"] == "rounds/001" and lines[3]["round"] == 1
    assert lines[0]["model_unit"] is None and lines[0]["kept"] is None and "held_out" not in {r["split"] for r in lines}
    assert [row["kept"] for row in lines[3:7]] == [False, False, False, True] and lines[3]["reason"] == "not the best"
    assert lines[11]["score_exact"] is None and lines[3]["score_taste"] == 0.5
    if kind == "image":
        made = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
        assert (np.asarray(loaded[7]["image"]).reshape(8, 8, 1) == made.content[4]).all()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "held-out data: 2" in card and "synthetic samples | 12" in card


@pytest.mark.parametrize("kind", ["image", "text"])
def test_preferences_are_the_best_and_worst_by_the_weighted_reward(tmp_path: Path, kind: str) -> None:
    run = judged(tmp_path, kind)
    done = exports.export(run, "preferences", tmp_path / "out")
    # group 0: rewards 0.5, 2.1, 0.2, 2.3; group 1: all tie; group 2: one candidate is scored
    assert done.counts == {"pairs": 1}
    assert done.left_out == {"prompts with fewer than two scored candidates": 1,
                             "prompts whose candidates all have one reward": 1}
    row = load(tmp_path / "out", tmp_path)[0]
    made = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    assert row["chosen_reward"] == 2.3 and row["rejected_reward"] == 0.2
    assert row["chosen_id"] == made.ids[3] and row["rejected_id"] == made.ids[2]
    if kind == "text":
        assert (row["prompt"], row["chosen"], row["rejected"]) == ("0 + 1 =", " 3", " 2")
    else:
        assert (np.asarray(row["rejected"]) == made.content[2, :, :, 0]).all()


def test_the_incumbent_is_exported_whole(tmp_path: Path) -> None:
    run = judged(tmp_path, "text")
    exports.export(run, "model", tmp_path / "out")
    assert files.tree_hash(tmp_path / "out" / "model") == run.records("rounds/000")[0].files["model"]
    with pytest.raises(UserError, match="not empty"):
        exports.export(run, "model", tmp_path / "out")
    empty = Run.create(tmp_path / "e", "", {})
    for what in ("samples", "preferences", "model"):
        with pytest.raises(UserError):
            exports.export(empty, what, tmp_path / "none")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_a_file_where_a_folder_belongs_is_a_clear_error(tmp_path: Path) -> None:
    taken = tmp_path / "runs"
    taken.write_text("not a folder")
    with pytest.raises(UserError, match="a file where a folder") as caught:
        files.make_folder(taken / "digits")
    assert str(taken) in str(caught.value) and taken.read_text() == "not a folder"
