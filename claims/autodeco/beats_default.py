"""autodeco.beats-default: against fixed sampling and greedy decoding."""

from collections.abc import Sequence

from claims.autodeco.world import (
    PAPER,
    add_settings,
    code_run,
    pc,
    share_of,
    world_claim,
    world_run,
)
from claims.figures import Figures
from hanol.claims import Measurement


def _beats_default(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    sure = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        on_code = code_run(seed, quick)
        for where, settings in (("", comparison), ("code: ", on_code)):
            add_settings(figures, settings, ("greedy", "default", "AutoDeco"), where)
        on_code_gain = on_code.difference("AutoDeco", "default").pass_at[1]
        figures.add("code: gain over default", on_code_gain.value)
        figures.add("code: gain over default, low", on_code_gain.low)
        gain = comparison.difference("AutoDeco", "default").pass_at[1]
        figures.add("gain over default", gain.value)
        figures.add("gain over default, low", gain.low)
        sure = sure and gain.low > 0
    v = figures.means
    joint = v["AutoDeco distinct-2"] > v["greedy distinct-2"]
    return figures.measurement(
        sure and v["gain over default"] >= 0.03 and joint,
        f"Right texts: greedy {pc(v['greedy pass@1'])}, default {pc(v['default pass@1'])}, "
        f"AutoDeco {pc(v['AutoDeco pass@1'])}; distinct bigrams "
        f"{v['greedy distinct-2']:.2f}, {v['default distinct-2']:.2f}, "
        f"{v['AutoDeco distinct-2']:.2f}. Code that parses: {share_of(v, 'code: ', 'greedy')}, "
        f"{share_of(v, 'code: ', 'default')}, {share_of(v, 'code: ', 'AutoDeco')}.",
    )


BEATS_DEFAULT = world_claim(
    id="autodeco.beats-default",
    title="Learned temperature and top-p beat default sampling and greedy decoding.",
    paper=f"Mathematics, pass@1 of Llama-Nemotron-8B: greedy 42.50, default 42.59, AutoDeco 46.05 "
    f"({PAPER}, table 1).",
    expectation="Shown if AutoDeco gets at least 3 points more texts right than T = 1, P = 1, "
    "with an "
    "interval above 0 in every seed, and its texts differ more (distinct bigrams) than "
    "greedy's. Greedy decoding is expected to be right most often: here the most likely sum "
    "is the right one.",
    experiment=_beats_default,
)
