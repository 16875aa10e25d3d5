"""`hanol vision tiles`, and images on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.engines.test_images import nvlm
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("h")
    nvlm(folder, "h")
    return str(folder)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "page.png"
    Image.fromarray(rng.integers(0, 256, (16, 48, 3), dtype=np.uint8)).save(path)
    return path


def test_tiles_are_shown_with_their_tags_and_cost(page: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "tiles.png"
    options = ["vision", "tiles", str(page), "--size", "16", "--output", str(sheet)]
    done = runner.invoke(app, [*options, "--json"])
    shown = json.loads(done.stdout)
    assert (shown["columns"], shown["rows"], shown["tiles"]) == (3, 1, 4)
    assert shown["costs"] == [
        {"kind": "d", "sequence": 4 * 261, "keys": 0},
        {"kind": "x", "sequence": 20, "keys": 1024},
        {"kind": "h", "sequence": 256, "keys": 3 * 261},
    ]
    picture = np.asarray(Image.open(sheet))
    first = np.asarray(Image.open(page))[:, :16]
    assert np.array_equal(picture[22:38, 6:22], first)  # under its tag
    text = runner.invoke(app, options).stdout
    assert "48 by 16 pixels, 3 by 1 tiles of 16 and a thumbnail" in text
    assert "NVLM-X: 20 tokens in the sequence, 1,024 to attend to" in text


def test_an_image_is_asked_about(model: str, page: Path) -> None:
    options = ["-p", "What is it?", "--max-tokens", "3", "--temperature", "0", "--json"]
    seen = runner.invoke(app, ["generate", model, "--image", str(page), *options])
    blind = runner.invoke(app, ["generate", model, *options])
    (seen_row,), (blind_row,) = (json.loads(one.stdout)["samples"] for one in (seen, blind))
    assert seen_row["prompt_tokens"] > blind_row["prompt_tokens"] + 4
    few = ["generate", model, "-i", str(page), "-i", str(page), "--tiles", "1", *options]
    assert runner.invoke(app, few).exit_code == 0
    talked = runner.invoke(
        app, ["chat", model, "--image", str(page), "--max-tokens", "3", "--json"],
        input=f"What is it?\n/image {page}\nAnd this?\n",
    )  # fmt: skip
    rows = [json.loads(line) for line in talked.stdout.splitlines()]
    assert [row["question"] for row in rows] == ["What is it?", "And this?"]
    assert rows[1]["cached_tokens"] == 0 or rows[1]["prompt_tokens"] > rows[0]["prompt_tokens"]


def test_images_that_cannot_be_shown_are_a_line(model: str, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(page.read_bytes()[:100])
    for arguments, said in (
        (["chat", "chatml:tiny", "-i", str(page), "-p", "a"], "cannot read images"),
        (["generate", "chatml:tiny", "-i", str(page), "-p", "a"], "cannot read images"),
        (["generate", model, "-i", str(broken), "-p", "a"], "broken.png' cannot be read"),
        (["generate", model, "-i", "nowhere.png", "-p", "a"], "does not exist"),
        (["generate", "tiny", "-p", "a", "--tiles", "2"], "`max_tiles` has no meaning"),
        (["vision", "tiles", str(broken)], "It is damaged"),
    ):
        done = runner.invoke(app, [*arguments, "--json"])
        assert done.exit_code == 1
        assert said in json.loads(done.stdout)["error"]["message"]
    done = runner.invoke(app, ["generate", model, "-i", str(page), "-p", "a", "--raw"])
    assert done.exit_code == 2
