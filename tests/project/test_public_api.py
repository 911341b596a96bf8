"""The public Python API: explicit ``__all__``, documented names, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from helpers.small_recipes import GAUSSIAN

PUBLIC = ("upturn", "upturn.protocols", "upturn.types")
# names that Python and future imports put into a module, and what is imported for annotations
INCIDENTAL = {"annotations", "TYPE_CHECKING", "Path", "Sequence", "import_annotations"}


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_names_exist_and_are_documented(name: str) -> None:
    found = module(name)
    assert found.__doc__ and sorted(set(found.__all__)) == sorted(found.__all__)
    for public in found.__all__:
        value = getattr(found, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            own = value.__doc__ or ""
            assert own.strip() and not own.startswith(f"{public}("), f"{name}.{public} has no docstring of its own"


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_else_is_public(name: str) -> None:
    found = module(name)
    other = {
        public for public, value in vars(found).items()
        if not public.startswith("_") and public not in found.__all__ and not inspect.ismodule(value)
        and getattr(value, "__module__", "upturn").split(".")[0] == "upturn"
    }
    assert other - INCIDENTAL == set()


@pytest.mark.slow
def test_examples_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.yaml").write_text(GAUSSIAN)
    monkeypatch.chdir(tmp_path)
    import upturn

    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for function in (upturn.forecast, upturn.run, upturn.open_run):  # in this order: open_run reads what run wrote
        [example] = finder.find(function, function.__name__)
        runner.run(example)
    found = runner.summarize()
    assert found.attempted == 11 and found.failed == 0
