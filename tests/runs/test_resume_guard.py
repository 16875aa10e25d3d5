"""A run is resumed with the settings that it was started with, or not at all."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hanol.errors import RunError
from hanol.runs import ResumeGuard, can_reuse, check_unchanged, note_sources

SETTINGS: dict[str, Any] = {"recipe": {"lr": 0.1, "data": {"path": "a"}, "keep": 2}, "data": {}}


def guard(folder: Path, settings: dict[str, Any] = SETTINGS) -> ResumeGuard:
    return ResumeGuard(folder, settings, what="stage", free={"keep"})


def test_a_run_is_started_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert not guard(folder).check(resume=False)
    assert not guard(folder).check(resume=True)
    guard(folder).write()
    assert guard(folder).check(resume=True)
    with pytest.raises(RunError, match=r"new' already has a run\. Resume it with --resume, or use"):
        guard(folder).check(resume=False)
    content = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    assert content["recipe"] == SETTINGS["recipe"]
    assert {"python", "hanol", "torch"} < content["versions"].keys()
    assert content["hardware"]["cpus"] > 0
    assert content["command"].startswith("hanol")


def test_changed_settings_are_named_with_both_values(tmp_path: Path) -> None:
    guard(tmp_path).write()
    recipe = {"lr": 0.2, "data": {"path": "b" * 100}, "keep": 3}
    with pytest.raises(RunError) as caught:
        guard(tmp_path, {**SETTINGS, "recipe": recipe}).check(resume=True)
    text = str(caught.value)
    assert text.startswith(f"Cannot resume the stage in {str(tmp_path)!r}: ")
    assert "`recipe.lr` (was 0.1, now 0.2) have changed since it was started." in text
    assert "`recipe.data.path` (was 'a', now 'bbb" in text
    assert "keep" not in text
    assert text.endswith("Use another --output, or restore the old values.")
    with pytest.raises(RunError, match=r"`lr` \(was 1, now None\) has changed .* the old value\.$"):
        check_unchanged("the run", {"lr": 1, "same": None}, {})


def test_a_dotted_name_is_free_there_alone() -> None:
    old = {"recipe": {"keep": 2, "data": {"keep": 2}}}
    check_unchanged("the run", old, {"recipe": {"keep": 3, "data": {"keep": 2}}}, {"recipe.keep"})
    new = {"recipe": {"keep": 3, "data": {"keep": 3}}}
    with pytest.raises(RunError, match=r"run: `recipe.data.keep` \(was 2, now 3\) has changed"):
        check_unchanged("the run", old, new, {"recipe.keep"})


def test_values_that_json_does_not_have_are_resumed(tmp_path: Path) -> None:
    settings = {"pair": (1, (2, float("nan"))), "limit": float("nan"), "path": tmp_path}
    guard(tmp_path, settings).write()
    assert guard(tmp_path, settings).check(resume=True)
    with pytest.raises(RunError, match=r"`limit` \(was nan, now 1\) has changed"):
        guard(tmp_path, {**settings, "limit": 1}).check(resume=True)


@pytest.mark.parametrize(
    "content", [b"a: [", b"\xff", b"- 1", b"", b"[" * 100_000, b"a: 2001-99-99"]
)
def test_a_damaged_file_is_no_run_to_resume(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match="Cannot resume the stage"):
        guard(tmp_path).check(resume=True)


def test_cached_data_are_used_for_the_sources_that_they_were_made_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, sources = tmp_path / "rows.jsonl", {"data": "a", "size": [1, None]}
    assert not can_reuse(rows, sources)
    rows.touch()
    assert not can_reuse(rows, sources)  # killed before it was noted what they are
    note_sources(rows, sources)
    caplog.clear()
    assert can_reuse(rows, sources)
    assert not caplog.text
    with pytest.raises(
        RunError, match=r"in .*rows.jsonl': `data` \(was 'a', now 'b'\) has changed"
    ):
        can_reuse(rows, sources | {"data": "b"}, in_use=True)
    assert not can_reuse(rows, sources | {"data": "b"})
    assert "rows.jsonl is made anew: its source" in caplog.text
    assert not can_reuse(rows, sources)  # they may be half made by now
