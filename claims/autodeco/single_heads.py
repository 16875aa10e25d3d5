"""autodeco.single-heads: each head alone and both."""

from collections.abc import Sequence

from claims.autodeco.world import PAPER, code_run, share_of, world_claim, world_run
from claims.figures import Figures
from hanol.claims import Measurement


def _single_heads(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    names = ("default", "temperature head", "top-p head", "AutoDeco")
    gains = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        for name in names:
            figures.add(f"{name} pass@1", comparison.result(name).pass_at[1].value)
            on_code = code_run(seed, quick).result(name)
            figures.add(f"code: {name} pass@1", on_code.pass_at[1].value)
        for name in names[1:]:
            gain = comparison.difference(name, "default").pass_at[1]
            figures.add(f"{name} gain, low", gain.low)
            gains = gains and gain.low > 0
        for name in names[1:3]:
            behind = comparison.difference(name, "AutoDeco").pass_at[1]
            figures.add(f"{name} over both, low", behind.low)
    v = figures.means
    tied = all(v[f"{name} over both, low"] <= 0 for name in names[1:3])
    return figures.measurement(
        gains and tied,
        "Right texts: "
        + ", ".join(f"{name} {share_of(v, '', name)}" for name in names)
        + ". Code that parses: "
        + ", ".join(share_of(v, "code: ", name) for name in names)
        + ".",
    )


SINGLE_HEADS = world_claim(
    id="autodeco.single-heads",
    title="Each head alone helps, and both together are best or tied.",
    paper=f"AIME, R1-Distill-Qwen-7B: either head alone about +3 to +3.5 points ({PAPER}, "
    "ablation; exact bars not verified).",
    expectation="Shown if each head alone and both gain over T = 1, P = 1 with intervals above "
    "0 in every "
    "seed, and neither alone is better than both beyond its interval.",
    experiment=_single_heads,
)
