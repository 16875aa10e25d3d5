"""How far a judge agrees with people, and what its scores say once labels correct them."""

from hanol import evaluation

FOLDER = "docs/examples/judging"
items = evaluation.read_labels(f"{FOLDER}/labels.jsonl")
(judge,) = evaluation.read_scores([f"{FOLDER}/judge.jsonl"])
length = evaluation.open_metric("length")
values = {key: [value] for key, value in evaluation.metric_scores(length, items).items()}
baseline = evaluation.ScoreTable(name=length.label, values=values)

report = evaluation.meta_evaluate(items, [judge, baseline])
for one in report.metrics:
    assert one.by_groups is not None
    print(f"{one.name:8} rho {one.pooled.spearman:6.3f}", end="  ")
    print(f"[{one.by_groups.low:.2f}, {one.by_groups.high:.2f}] over sources")

for system in evaluation.correct_scores(items, judge).systems:
    print(
        f"{system.name:8} {system.mean.value:.2f} [{system.mean.low:.2f}, {system.mean.high:.2f}]"
    )
