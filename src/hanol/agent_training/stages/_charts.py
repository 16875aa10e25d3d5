"""Charts of a run: the skills in a stage, the accuracy after each stage."""

from pathlib import Path

from hanol.agent_training.stages._stages import ResearcherResult, kind_label
from hanol.errors import require
from hanol.files import whole_file
from hanol.training import read_metrics


def plot_skills(folder: Path) -> None:
    """Draw the evaluations in a stage's `metrics.jsonl`, if any, as `skills.png` beside it."""
    lines = [line for line in read_metrics(folder) if "skills" in line]
    if not lines:
        return
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
    with whole_file(folder / "skills.png") as part:
        figure.savefig(part, dpi=120, format="png")


def plot_stages(result: ResearcherResult, file: Path) -> None:
    """Draw the accuracy after each stage by kind of question; lines join it with its starts."""
    require("matplotlib", extra="train", feature="The chart of the stages")
    from matplotlib.figure import Figure

    judged = [stage for stage in result.stages if stage.accuracy]
    kinds = list(judged[0].accuracy)  # every stage is judged by the same
    figure = Figure(figsize=(max(5, 2 + 1.2 * len(judged)), 4.5), layout="constrained")
    axes = figure.subplots()
    number_of = {stage.checkpoint: number for number, stage in enumerate(judged)}
    for i, kind in enumerate(kinds):
        beside = 0.06 * (i - (len(kinds) - 1) / 2)  # bars side by side
        points = [stage.accuracy[kind] for stage in judged]
        values = [100 * point.value for point in points]
        below = [100 * (point.value - point.low) for point in points]
        above = [100 * (point.high - point.value) for point in points]
        label = kind_label(kind)
        places = [x + beside for x in range(len(points))]
        axes.errorbar(
            places, values, (below, above), fmt="o", capsize=3, color=f"C{i}", label=label
        )
        for x, stage in enumerate(judged):
            for before in (number_of[start] for start in stage.start if start in number_of):
                line = (before + beside, x + beside), (values[before], values[x])
                axes.plot(*line, color=f"C{i}", alpha=0.6)
    axes.set(ylabel="right answers (%), 95 % interval", ylim=(-3, 103))
    axes.set_xticks(range(len(judged)), [stage.name for stage in judged])
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    with whole_file(file) as part:
        figure.savefig(part, dpi=120, format="png")
