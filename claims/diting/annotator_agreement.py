"""diting.annotator-agreement: experts agree strongly on each criterion."""

from collections.abc import Sequence

from claims.diting.lab import items
from hanol.claims import Claim, Measurement
from hanol.evaluation import rater_agreement
from hanol.scoring import spearman

_STRONG = 0.79


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    labelled = list(items(quick))
    report = rater_agreement(labelled)
    figures: dict[str, float] = {"items with two ratings": report[0].items}
    kappas = {}
    for one in report:
        if one.criterion != "total" and one.kappa is not None:
            kappas[one.criterion] = one.kappa
        for what in ("simple", "kappa", "linear", "quadratic", "alpha", "icc"):
            if (value := getattr(one, what)) is not None:
                figures[f"{one.criterion}: {what}"] = value
    first, *_ = kappas
    rho = spearman([item.human(first) or 0.0 for item in labelled],
                   [item.human() or 0.0 for item in labelled])  # fmt: skip
    figures["rho of the specific criterion and the total"] = rho or 0.0
    lowest = min(kappas, key=lambda name: kappas[name])
    return Measurement(
        verdict="shown" if kappas[lowest] > _STRONG else "not shown",
        summary=f"The lowest of {len(kappas)} kappas is {kappas[lowest]:.3f} ({lowest}), on "
        f"{report[0].items} items with two ratings. The criteria are nearly one: the first has "
        f"rho {rho or 0.0:.3f} with the total.",
        figures=figures,
    )


ANNOTATOR_AGREEMENT = Claim(
    id="diting.annotator-agreement",
    title="Experts agree strongly on every criterion of the rubric.",
    paper="Simple agreement and Cohen's kappa: specific 0.96 / 0.94, first general 0.90 / 0.84, "
    "second general 0.91 / 0.85 (arXiv 2510.09116, table 4; who was paired is not stated).",
    scale="The 81 of the 105 public items that two annotators scored, first against second.",
    expectation="Shown if kappa is above 0.79 on each of the three criteria.",
    larger="`HANOL_METRICALIGN` with all 300 items and the three experts of the paper.",
    experiment=_measure,
)
