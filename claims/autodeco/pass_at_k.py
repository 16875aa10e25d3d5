"""autodeco.pass-at-k: one sample and several."""

from collections.abc import Sequence

from claims.autodeco.world import PAPER, code_run, pc, world_claim, world_run
from claims.figures import Figures
from hanol.claims import Measurement


def _pass_at_k(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    kept = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        last = max(comparison.result("default").pass_at)
        for name in ("default", "AutoDeco"):
            for k, value in comparison.result(name).pass_at.items():
                figures.add(f"{name} pass@{k}", value.value)
            for k, value in code_run(seed, quick).result(name).pass_at.items():
                figures.add(f"code: {name} pass@{k}", value.value)
        change = comparison.difference("AutoDeco", "default").pass_at[last]
        figures.add(f"gain at {last}", change.value)
        kept = kept and change.high >= 0
    v = figures.means
    return figures.measurement(
        kept and v["AutoDeco pass@1"] > v["default pass@1"],
        f"pass@1 {pc(v['default pass@1'])} to {pc(v['AutoDeco pass@1'])}, "
        f"pass@{last} {pc(v[f'default pass@{last}'])} to {pc(v[f'AutoDeco pass@{last}'])}.",
    )


PASS_AT_K = world_claim(
    id="autodeco.pass-at-k",
    title="The gain at one sample does not cost pass@k.",
    paper=f"Llama-Nemotron-8B, k = 64: 87.35 to 89.75 ({PAPER}; columns of that table repeat, "
    "treat with care).",
    expectation="Shown if pass@1 rises and pass@16 does not fall beyond its interval in any seed.",
    experiment=_pass_at_k,
)
