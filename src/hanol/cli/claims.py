"""`hanol claims`: list, run and show the claims of the papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import say
from hanol.files import replace_text

if TYPE_CHECKING:
    from hanol.claims import ClaimResult

app = typer.Typer(
    no_args_is_help=True,
    help="Run the headline claims of the papers and show their verdicts.\n\n"
    "Example: hanol claims list",
)

_Results = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of the recorded results. Omitted: the clone's claims/."),
]


@app.command("list")
@command
def list_claims(results: _Results = None) -> Result:
    """List the claims and their recorded verdicts.

    Example: hanol claims list
    """
    from hanol import claims

    recorded = claims.read_results(results)
    verdicts = {result.id: result.measurement.verdict for result in recorded}
    rows = [
        {"id": c.id, "title": c.title, "verdict": verdicts.get(c.id, "not recorded")}
        for c in claims.all_claims()
    ]
    lines = [f"{row['id']:<32} {row['verdict']:<16} {row['title']}" for row in rows]
    return Result({"claims": rows}, lines)


@app.command()
@command
def run(
    names: list[str] = argument(
        "Claim ids as printed by `hanol claims list`, or systems such as autodeco.", metavar="CLAIM"
    ),
    num_seeds: int = option(3, "Number of repetitions, with seeds 0, 1, ...", min=1),
    quick: bool = option(False, "Use the smallest sizes and record nothing."),
    output: Path | None = option(
        None, "Folder to record results in. Omitted: the clone's claims/."
    ),
    as_json: JsonOption = False,
) -> Result:
    """Run claims, or all claims of a system, and record the verdicts.

    Claims that run in one command share the models they train.

    Example: hanol claims run kimi-linear.kv-cache
    """
    import logging

    from hanol import claims

    # Experiments say how far they are; standard output is for the verdict.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("claims").setLevel(logging.INFO)
    results: list[ClaimResult] = []
    chosen = [one for name in names for one in claims.find_claims(name)]
    for one in chosen:
        result = claims.run_claim(one, range(num_seeds), quick=quick)
        if not quick:
            claims.write_result(result, output or claims.claims_folder())
        results.append(result)
        if not as_json:
            name = f"{one.id} " if len(chosen) > 1 else ""
            say(f"{name}{result.measurement.verdict}: {result.measurement.summary}")
    return Result({"results": [result.model_dump() for result in results]}, [])


@app.command()
@command
def show(
    claim: str = argument("Claim id, as printed by `hanol claims list`."),
    results: _Results = None,
) -> Result:
    """Show a claim and its recorded result.

    Example: hanol claims show kimi-linear.kv-cache
    """
    from hanol import claims

    found = claims.find_claim(claim)
    recorded = [result for result in claims.read_results(results) if result.id == claim]
    page = claims.render(recorded, [found])
    shown = page[page.index("\n## ") + 1 :].rstrip()
    return Result(recorded[0] if recorded else {"id": claim}, shown)


@app.command()
@command
def render(
    results: _Results = None,
    output: Path = option(Path("docs/claims.md"), "Markdown page to write."),
) -> None:
    """Write the documentation page of all claims from the recorded results.

    Example: hanol claims render
    """
    from hanol import claims

    replace_text(output, claims.render(claims.read_results(results), claims.all_claims()))
    say(f"wrote {output}")
