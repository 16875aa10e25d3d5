import json

from typer.testing import CliRunner

from hanol.cli import app

runner = CliRunner()


def test_table() -> None:
    result = runner.invoke(app, ["inspect", "kimi-linear-3m"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    for text in ("4,414,284", "delta attention layers", "66.7% saved", "float32"):
        assert text in result.stdout


def test_json_of_the_official_shape() -> None:
    result = runner.invoke(app, ["inspect", "kimi-linear-48b-a3b", "--json"])
    report = json.loads(result.stdout)
    assert report["parameters"] == 49_122_675_072
    assert report["layers"] == {"delta attention": 20, "latent attention": 7}
    assert report["cache"]["bytes_per_token"] == 8064


def test_unknown_name() -> None:
    result = runner.invoke(app, ["inspect", "kimi-linear-3", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == "CheckpointError"
