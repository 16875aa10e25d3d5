"""autodeco.token-adaptive: temperatures before free and determined tokens."""

from collections.abc import Sequence

from claims.autodeco.world import PAPER, auc, world_claim, world_run
from claims.figures import Figures
from hanol.claims import Measurement


def _token_adaptive(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        run = world_run(seed, quick)
        figures.add("temperature before free tokens", run.free.mean())
        figures.add("temperature before determined tokens", run.determined.mean())
        figures.add("top-p before free tokens", run.free_top_p.mean())
        figures.add("top-p before determined tokens", run.determined_top_p.mean())
        figures.add("AUC of temperature", auc(run.free, run.determined))
        figures.add("AUC of top-p", auc(run.free_top_p, run.determined_top_p))
        figures.add("loss, first steps", run.first_loss)
        figures.add("loss, last steps", run.last_loss)
    v = figures.means
    return figures.measurement(
        v["AUC of temperature"] >= 0.9 and v["AUC of top-p"] >= 0.9,
        f"Temperature {v['temperature before free tokens']:.2f} before free and "
        f"{v['temperature before determined tokens']:.2f} before determined tokens, AUC "
        f"{v['AUC of temperature']:.3f}; top-p {v['top-p before free tokens']:.2f} and "
        f"{v['top-p before determined tokens']:.2f}, AUC {v['AUC of top-p']:.3f}.",
    )


TOKEN_ADAPTIVE = world_claim(
    id="autodeco.token-adaptive",
    title="Temperature and top-p are low where the next token is determined, high where it is "
    "free.",
    paper=f"Shown by example ({PAPER}, figure 4).",
    expectation="Shown if the area under the curve that separates free from determined "
    "positions by "
    "temperature, and by top-p, is at least 0.9.",
    experiment=_token_adaptive,
)
