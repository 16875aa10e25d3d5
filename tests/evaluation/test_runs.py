import json
import subprocess
import sys

import pytest

from hanol.errors import DataError
from hanol.evaluation import summarise_runs
from hanol.retrieval import SourceList, check_citations


def ended(citations, termination: str = "answer", **more) -> dict:
    return {
        "type": "run_ended",
        "termination": termination,
        "citations": citations,
        "model_calls": 4,
        "tool_calls": 3,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "seconds": 2.0,
        "money": 0.0,
    } | more


def report(*sentences: tuple[str, list[tuple[bool, bool]]]) -> dict:
    """Sentences by status and (known, supports) of their citations."""
    return {
        "sentences": [
            {
                "status": status,
                "citations": [{"known": known, "supports": supports} for known, supports in cited],
            }
            for status, cited in sentences
        ]
    }


def test_rates_are_over_all_citations_and_claims() -> None:
    runs = [
        ended(report(("supported", [(True, True), (True, False)]), ("not_a_claim", []))),
        ended(
            report(("invented", [(False, False)]), ("uncited", []), ("supported", [(True, True)]))
        ),
        ended(None, "max_calls", model_calls=8),
    ]
    found = summarise_runs(runs)
    assert found.citation_precision.value == 0.5
    assert found.citation_recall.value == 0.5
    assert found.invented_citations.value == 0.25
    # Macro: every run counts alike, whatever it wrote; the one without an answer has no rate.
    assert found.citation_precision_macro.value == 0.5
    assert found.citation_recall_macro.value == pytest.approx((1 + 1 / 3) / 2)
    assert (found.runs, found.runs_with_invented, found.unchecked) == (3, 1, 1)
    assert found.terminations == {"answer": 2, "max_calls": 1}
    assert found.effort["model_calls"] == pytest.approx(16 / 3)
    assert found.invented_citations.low == 0.0
    plain = found.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["effort"]["model_calls"] == 5.33


def test_real_reports_are_understood() -> None:
    source_list = SourceList()
    source_list.cite("The tower is 330 m high.", address="a", title="Tower", sha256="0" * 64)
    checked = check_citations("The tower is 330 m high [1]. It is 12 m wide [9].", source_list)
    found = summarise_runs([ended(json.loads(json.dumps(checked.to_dict())))])
    assert found.citation_precision.value == checked.precision
    assert found.citation_recall.value == checked.recall
    assert found.invented_citations.value == 0.5


def test_without_citations_there_is_no_rate() -> None:
    found = summarise_runs([ended(None)])
    assert found.citation_precision is None
    assert found.to_dict()["citation_recall"] is None


def test_runs_that_cannot_be_summed_up() -> None:
    with pytest.raises(DataError, match="no finished runs"):
        summarise_runs([])
    with pytest.raises(DataError, match="'citations'"):
        summarise_runs([{}])


def test_the_room_needs_no_torch() -> None:
    code = (
        "import sys, hanol.evaluation\n"
        "assert not {'torch', 'transformers', 'scipy'} & set(sys.modules), 'too heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
