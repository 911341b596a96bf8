"""Features against their definitions, with tiny encoders built from a config and saved in a folder."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upturn.config import components
from upturn.embeddings.image_tensors import coloured, prepared
from upturn.errors import UserError
from upturn.features._local_encoder import preparation
from upturn.models.classifier import Classifier
from upturn.types import Array, Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]


class FakeTools:
    classes = ()

    def __init__(self, **models: Any) -> None:
        self.models = models

    def model(self, name: str) -> Any:
        return self.models[name]


def samples_of(kind: Any, content: Any) -> Samples:
    return real_samples(kind, content, [Prompt(label=i % 2) for i in range(len(content))], "x")


def images(n: int = 6, side: int = 8, channels: int = 1) -> Samples:
    content = np.random.default_rng(0).integers(0, 256, size=(n, side, side, channels)).astype(np.uint8)
    return samples_of("image", content)


def texts(*content: str) -> Samples:
    return samples_of("text", list(content))


def embed(spec: Any, samples: Samples, tools: Any = None) -> Array:
    return components.make("feature", spec).embed(samples, tools)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: Any) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder: Path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=12)
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: Any) -> Path:
    from transformers import ViTConfig, ViTModel

    folder: Path = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8,
                       patch_size=4)
    ViTModel(config).save_pretrained(folder)
    scale = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(scale))
    return folder


def test_pixels_and_points_are_the_content() -> None:
    samples = images(channels=3)
    found = embed("pixels", samples)
    assert found.dtype == np.float32 and found.shape == (6, 192)
    np.testing.assert_array_equal(np.rint(found * 255).reshape(samples.content.shape), samples.content)
    points = samples_of("points", np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    np.testing.assert_array_equal(embed("points", points), points.content)
    assert embed("pixels", samples.take([])).shape == (0, 192)


@pytest.mark.parametrize(("spec", "samples"), [
    ("pixels", texts("a")), ("points", images()), ({"name": "encoder", "folder": "."}, samples_of("points", np.eye(2))),
    ({"name": "inception", "weights": "x.pt"}, texts("a")),
], ids=str)  # fmt: skip
def test_another_kind_is_refused(spec: Any, samples: Samples) -> None:
    with pytest.raises(UserError, match=samples.kind):
        embed(spec, samples)


@pytest.mark.parametrize("kind", ["points", "text"])
def test_classifier_features_are_its_penultimate_layer(kind: str) -> None:
    """1,300 rows are three chunks, and texts come back in their own order."""
    rng = np.random.default_rng(0)
    if kind == "text":
        samples = texts(*("ab"[i % 2] * int(rng.integers(0, 30)) for i in range(1300)))
    else:
        samples = samples_of("points", rng.normal(size=(1300, 2)).astype(np.float32))
    model = Classifier(hidden=9)
    model.build(samples, key=1)
    found = embed({"name": "classifier", "model": "mine"}, samples, FakeTools(mine=model))
    assert found.shape == (1300, 9) and found.dtype == np.float32
    batch = model.encode(samples)
    model.module.eval()
    for row in (0, 1, 511, 512, 1299):
        out = model.forward(batch.take(torch.tensor([row])), None)
        assert out.features is not None and out.logits is not None
        np.testing.assert_allclose(found[row], out.features.detach().numpy()[0], rtol=1e-4, atol=1e-5)
        head = model.module.head  # the head on the features gives the logits
        torch.testing.assert_close(head(torch.from_numpy(found[row : row + 1])), out.logits, rtol=1e-4, atol=1e-4)


def test_a_model_without_features_is_named() -> None:
    from upturn.types import Batch, Outputs

    class Bare:
        module = torch.nn.Linear(1, 1)

        def encode(self, samples: Samples) -> Batch:
            return Batch({"x": torch.zeros(len(samples), 1)})

        def draw(self, batch: Batch, key: int, start: int) -> None:
            return None

        def forward(self, batch: Batch, draw: None) -> Outputs:
            return Outputs(batch["x"], batch["x"])

    with pytest.raises(UserError, match="model 'policy' has no features"):
        embed({"name": "classifier", "model": "policy"}, images(), FakeTools(policy=Bare()))


def test_an_encoder_of_text_is_the_mean_of_its_last_states(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    content = ["a b c", "d", "a b c d e f g", "h h"]
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    found = embed({"name": "encoder", "folder": str(bert), "batch": 2}, texts(*content))
    assert found.shape == (4, 16) and found.dtype == np.float32
    for row, text in enumerate(content):  # one at a time: no padding
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)
    assert np.isfinite(embed({"name": "encoder", "folder": str(bert)}, texts("", "a"))).all()


def test_cut_texts_are_counted(bert: Path) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 12 tokens"):
        found = embed({"name": "encoder", "folder": str(bert)}, texts("a b " * 20, "a"))
    assert np.isfinite(found).all()
    exactly = "a b c d e f g h a b"  # 10 words, [CLS] and [SEP]: whole
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed({"name": "encoder", "folder": str(bert)}, texts(exactly))


def test_an_encoder_of_images_gets_its_size_and_scale(vit: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(vit).eval()
    samples = images(channels=3)
    pixels = torch.from_numpy(samples.content).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = model(pixel_values=(pixels - mean) / 0.5).last_hidden_state.mean(1)
    for batch in (1, 4):
        found = embed({"name": "encoder", "folder": str(vit), "batch": batch}, samples)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert embed({"name": "encoder", "folder": str(vit)}, images(side=20)).shape == (6, 16)  # grey, resized


def test_what_encoders_give_for_images(tmp_path: Path) -> None:
    config = types.SimpleNamespace(num_channels=3)
    assert preparation(tmp_path, config) == ((224, 224), [0.5] * 3, [0.5] * 3)
    given = {"size": {"shortest_edge": 32}, "crop_size": {"height": 24, "width": 20}, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    assert preparation(tmp_path, config) == ((24, 20), [0.0] * 3, [1.0] * 3)
    assert preparation(tmp_path, types.SimpleNamespace(image_size=[9, 7]))[0] == (9, 7)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        preparation(tmp_path, config)


def test_transparency_lies_on_white() -> None:
    clear = np.zeros((1, 2, 2, 4), np.uint8)
    clear[0, 0, 0] = [10, 20, 30, 255]
    found = coloured(clear)
    assert found[0, :, 0, 0].tolist() == [10, 20, 30] and (found[0, :, 1, 1] == 255).all()
    grey = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert torch.equal(coloured(grey), torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2).expand(1, 3, 2, 2))
    assert prepared(clear, (5, 4), [0.0], [1.0]).shape == (1, 1, 5, 4)


@pytest.mark.parametrize("case", ["absent", "no config", "pickled", "damaged", "image", "text"])
def test_a_folder_that_is_no_encoder(case: str, bert: Path, vit: Path, tmp_path: Path) -> None:
    folder, samples, words = tmp_path, texts("a"), ""
    if case == "absent":
        folder, words = tmp_path / "nowhere", "no such folder"
    elif case == "no config":
        (tmp_path / "notes.txt").touch()
        words = "no config.json; there: notes.txt"
    elif case == "pickled":
        (tmp_path / "config.json").write_text((bert / "config.json").read_text())
        (tmp_path / "pytorch_model.bin").touch()
        words = r"no \*.safetensors; there: config.json, pytorch_model.bin"
    elif case == "damaged":
        for path in bert.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes()[:2000])
        words = "cannot be opened"
    elif case == "image":
        folder, samples, words = bert, images(), "reads input_ids"
    else:
        folder, words = vit, "cannot be opened"
    with pytest.raises(UserError, match=words) as caught:
        embed({"name": "encoder", "folder": str(folder)}, samples)
    assert str(folder) in str(caught.value) and caught.value.fix


# Inception: a network in place of the weights, which are not available here


class Pooled(torch.nn.Module):
    """Takes uint8 images and returns the mean of each channel: the call of the original network."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features and x.dtype == torch.uint8
        return x.float().mean(dim=[2, 3])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_inception_from_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(Pooled()).save(str(path))
    samples = images()
    found = embed({"name": "inception", "weights": str(path), "batch": 4}, samples)
    grey = samples.content.astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(found, np.repeat(grey, 3, axis=1), rtol=1e-5)


def test_inception_from_torchvision(tmp_path: Path, monkeypatch: Any) -> None:
    """torchvision's call, with a small network under its name."""
    from safetensors.torch import save_file

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.fc = torch.nn.Parameter(torch.tensor(3.0)), torch.nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1:] == (3, 299, 299)
            return self.fc(self.scale * x.mean(dim=(2, 3)))

    models = types.ModuleType("torchvision.models")
    models.inception_v3 = lambda weights, init_weights, transform_input: Small()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    path = tmp_path / "inception.safetensors"
    save_file(Small().state_dict(), path)
    white = samples_of("image", np.full((2, 16, 16, 1), 255, np.uint8))
    found = embed({"name": "inception", "weights": str(path)}, white)
    expected = 3 * (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-4)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not the weights of torchvision"):
        embed({"name": "inception", "weights": str(path)}, white)


@pytest.mark.parametrize(("name", "words"), [
    ("nowhere.pt", "no Inception weights here"), ("broken.pt", "no TorchScript file"),
    ("there.safetensors", "need torchvision"),
])  # fmt: skip
def test_missing_inception_is_one_message(name: str, words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # absent, whatever is installed
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    if name != "nowhere.pt":
        (tmp_path / name).write_bytes(b"nothing of use")
    with pytest.raises(UserError, match=words) as caught:
        embed({"name": "inception", "weights": str(tmp_path / name)}, images())
    assert str(tmp_path / name) in str(caught.value) and caught.value.fix
