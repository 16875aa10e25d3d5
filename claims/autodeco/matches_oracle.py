"""autodeco.matches-oracle: against the static pair tuned on the test itself."""

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


def _matches_oracle(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        ours = comparison.result("AutoDeco")
        add_settings(figures, comparison, ("AutoDeco", "oracle static"))
        figures.add("best static (split) pass@1", comparison.result("best static").pass_at[1].value)
        names = ("AutoDeco", "oracle static", "best static")
        add_settings(figures, code_run(seed, quick), names, "code: ")
        assert comparison.search is not None
        figures.add(
            "static settings that dominate",
            sum(
                point.pass_at_1 >= ours.pass_at[1].value
                and point.distinct_2 >= ours.distinct[2].value
                for point in comparison.search.points
            ),
        )
    v = figures.means
    near = v["AutoDeco pass@1"] >= v["oracle static pass@1"] - 0.01
    diverse = v["AutoDeco distinct-2"] >= v["oracle static distinct-2"] - 0.005
    return figures.measurement(
        near and diverse,
        f"Right texts: AutoDeco {pc(v['AutoDeco pass@1'])}, the best static pair of the grid "
        f"{pc(v['oracle static pass@1'])} on the samples that it was picked on; distinct bigrams "
        f"{v['AutoDeco distinct-2']:.3f} and {v['oracle static distinct-2']:.3f}; of 150 static "
        f"pairs {v['static settings that dominate']:.0f} are at least as good in both. Code that "
        f"parses: {share_of(v, 'code: ', 'AutoDeco')} and "
        f"{share_of(v, 'code: ', 'oracle static')}, a pair picked on other functions "
        f"{share_of(v, 'code: ', 'best static')}.",
    )


MATCHES_ORACLE = world_claim(
    id="autodeco.matches-oracle",
    title="AutoDeco comes within a point of the static pair that was tuned on the test itself.",
    paper=f"Within 1 point of expert-guided tuning on all models and tasks shown ({PAPER}, "
    "section 4.2).",
    expectation="Shown if AutoDeco gets at most 1 point fewer texts right than the best of the "
    "grid, with "
    "distinct bigrams at most 0.005 below.",
    experiment=_matches_oracle,
)
