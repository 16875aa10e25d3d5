"""The chart of a stage: what its model could do after how many tokens."""

from pathlib import Path

from hanol.errors import require
from hanol.files import whole_file
from hanol.training import read_metrics


def plot_skills(folder: str | Path) -> Path | None:
    """Draw the evaluations in a stage's `metrics.jsonl` as `skills.png` beside it.

    Args:
        folder: Of the stage.

    Returns:
        The chart; None where there were no evaluations of skills.
    """
    folder = Path(folder)
    lines = [line for line in read_metrics(folder) if "skills" in line]
    if not lines:
        return None
    require("matplotlib", extra="train", feature="The chart of the skills")
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in lines[0]["skills"]:
        points = [(line["tokens"], line["skills"][name]) for line in lines]
        tried = [(tokens, 100 * rate) for tokens, rate in points if rate is not None]
        if tried:  # pages are not visited before calls can be written
            axes.plot(*zip(*tried, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="tokens", ylabel="done, of all trials (%)", ylim=(-3, 103))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    path = folder / "skills.png"
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return path
