"""autodeco.smollm2-matches-oracle: against the static pair tuned on the test, on a real model."""

from collections.abc import Sequence

from claims.autodeco.smollm2 import add_tasks, tasks_claim, tasks_run
from claims.autodeco.world import PAPER, pc
from claims.figures import Figures
from hanol.claims import Measurement


def _matches_oracle(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        comparison = tasks_run(seed, quick)
        add_tasks(figures, comparison, ("AutoDeco", "oracle static", "best static"))
        assert comparison.search is not None
        figures.add("oracle T", comparison.search.best.temperature)
        figures.add("oracle P", comparison.search.best.top_p)
        behind = comparison.difference("AutoDeco", "oracle static").pass_at[1]
        figures.add("AutoDeco minus oracle", behind.value)
        figures.add("AutoDeco minus oracle, high", behind.high)
    v = figures.means
    near = v["AutoDeco minus oracle"] >= -0.01
    diverse = v["AutoDeco distinct-2"] >= v["oracle static distinct-2"] - 0.005
    return figures.measurement(
        near and diverse,
        f"Right replies: AutoDeco {pc(v['AutoDeco pass@1'])}, the best static pair "
        f"{pc(v['oracle static pass@1'])} on the tasks that it was picked on, a pair picked on "
        f"other tasks {pc(v['best static pass@1'])}; distinct bigrams "
        f"{v['AutoDeco distinct-2']:.3f}, {v['oracle static distinct-2']:.3f}, "
        f"{v['best static distinct-2']:.3f}.",
    )


SMOLLM2_MATCHES_ORACLE = tasks_claim(
    id="autodeco.smollm2-matches-oracle",
    title="AutoDeco comes within a point of the static pair tuned on the test, on a real chat "
    "model.",
    paper=f"Within 1 point of expert-guided tuning on all models and tasks shown ({PAPER}, "
    "section 4.2).",
    expectation="Shown if AutoDeco gets at most 1 point fewer replies right than the best of "
    "the search, with "
    "distinct bigrams at most 0.005 below.",
    experiment=_matches_oracle,
)
