"""autodeco.smollm2-beats-default: against default sampling and greedy decoding, on a real model."""

from collections.abc import Sequence

from claims.autodeco.smollm2 import add_tasks, tasks_claim, tasks_run
from claims.autodeco.world import PAPER, pc
from claims.figures import Figures
from hanol.claims import Measurement


def _beats_default(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    sure = True
    for seed in seeds:
        comparison = tasks_run(seed, quick)
        add_tasks(figures, comparison, ("greedy", "default", "AutoDeco"))
        ours = comparison.result("AutoDeco")
        figures.add("AutoDeco mean T", ours.temperature.mean)
        figures.add("AutoDeco mean P", ours.top_p.mean)
        gain = comparison.difference("AutoDeco", "default").pass_at[1]
        figures.add("gain over default", gain.value)
        figures.add("gain over default, low", gain.low)
        sure = sure and gain.low > 0
    v = figures.means
    joint = v["AutoDeco distinct-2"] > v["greedy distinct-2"]
    return figures.measurement(
        sure and v["gain over default"] >= 0.03 and joint,
        f"Right replies: greedy {pc(v['greedy pass@1'])}, default {pc(v['default pass@1'])}, "
        f"AutoDeco {pc(v['AutoDeco pass@1'])}; distinct bigrams {v['greedy distinct-2']:.2f}, "
        f"{v['default distinct-2']:.2f}, {v['AutoDeco distinct-2']:.2f}.",
    )


SMOLLM2_BEATS_DEFAULT = tasks_claim(
    id="autodeco.smollm2-beats-default",
    title="Learned temperature and top-p beat default sampling on a real chat model.",
    paper=f"Mathematics, pass@1 of Llama-Nemotron-8B: greedy 42.50, default 42.59, AutoDeco 46.05 "
    f"({PAPER}, table 1).",
    expectation="Shown if AutoDeco gets at least 3 points more replies right than T = 1, P = 1, "
    "with an "
    "interval above 0 in every seed, and its replies differ more (distinct bigrams) than "
    "greedy's. Greedy decoding may be right more often: most of these tasks have one right answer.",
    experiment=_beats_default,
)
