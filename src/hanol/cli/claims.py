"""`hanol claims`: list, run and show the claims of the papers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import JsonOption, command

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


def _read(folder: Path | None) -> "list[ClaimResult]":
    from hanol.claims import read_results, recorded_results

    return recorded_results() if folder is None else read_results(folder)


@app.command("list")
@command
def list_claims(results: _Results = None, as_json: JsonOption = False) -> None:
    """List the claims and their recorded verdicts.

    Example: hanol claims list
    """
    from hanol import claims

    verdicts = {r.id: r.measurement.verdict for r in _read(results)}
    rows = [
        {"id": c.id, "title": c.title, "verdict": verdicts.get(c.id, "not recorded")}
        for c in claims.all_claims()
    ]
    if as_json:
        typer.echo(json.dumps({"claims": rows}))
        return
    for row in rows:
        typer.echo(f"{row['id']:<32} {row['verdict']:<16} {row['title']}")


@app.command()
@command
def run(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="CLAIM...",
            help="Claim ids as printed by `hanol claims list`, or systems such as autodeco.",
        ),
    ],
    num_seeds: Annotated[
        int, typer.Option(min=1, help="Number of repetitions, with seeds 0, 1, ...")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use the smallest sizes and record nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to record results in. Omitted: the clone's claims/."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
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
            typer.echo(f"{name}{result.measurement.verdict}: {result.measurement.summary}")
    if as_json:
        typer.echo(json.dumps({"results": [result.model_dump() for result in results]}))


@app.command()
@command
def show(
    claim: Annotated[str, typer.Argument(help="Claim id, as printed by `hanol claims list`.")],
    results: _Results = None,
    as_json: JsonOption = False,
) -> None:
    """Show a claim and its recorded result.

    Example: hanol claims show kimi-linear.kv-cache
    """
    from hanol import claims

    found = claims.find_claim(claim)
    recorded = [r for r in _read(results) if r.id == claim]
    if as_json:
        typer.echo(recorded[0].model_dump_json() if recorded else json.dumps({"id": claim}))
        return
    page = claims.render(recorded, [found])
    typer.echo(page[page.index("\n## ") + 1 :].rstrip())


@app.command()
@command
def render(
    results: _Results = None,
    output: Annotated[Path, typer.Option(help="Markdown page to write.")] = Path("docs/claims.md"),
) -> None:
    """Write the documentation page of all claims from the recorded results.

    Example: hanol claims render
    """
    from hanol import claims

    output.write_text(claims.render(_read(results), claims.all_claims()), "utf-8")
    typer.echo(f"wrote {output}")
