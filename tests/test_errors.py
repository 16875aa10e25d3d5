"""The tree of exceptions and the texts it builds."""

import builtins

import pytest

from hanol import errors


def test_every_error_is_a_hanol_error_and_a_builtin() -> None:
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.HanolError)
    ]
    assert len(found) == 20
    for error in found:
        if error is not errors.HanolError:
            assert any(
                base.__module__ == builtins.__name__ and base is not Exception
                for base in error.__mro__
                if base not in (BaseException, object)
            ), error


def test_unknown_name_gives_the_nearest_and_all() -> None:
    err = errors.UnknownNameError("preset", "lama-3m", ["llama-3m", "mla-3m"])
    assert str(err) == (
        "No preset is named 'lama-3m'. Did you mean 'llama-3m'? Known: llama-3m, mla-3m."
    )


def test_require_names_the_extra() -> None:
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'hanol\[train\]'"):
        errors.require("no_such_module_here", extra="train", feature="The loss curve")


def test_require_shows_the_real_cause_of_a_broken_install(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_here.py").write_text("import no_such_module_either\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_module_either"):
        errors.require("broken_here", extra="train", feature="The loss curve")
