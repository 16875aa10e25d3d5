"""`hanol claims`: list, run and show the claims of the papers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import JsonOption
from hanol.cli._report import reported

app = typer.Typer(no_args_is_help=True, help="Claims of the papers, re-run with a verdict.")

_Folder = Annotated[Path, typer.Option("--dir", help="Folder of the recorded results.")]


@app.command("list")
def list_claims(folder: _Folder = Path("claims"), as_json: JsonOption = False) -> None:
    """Every claim and its recorded verdict.

    Example: hanol claims list
    """
    with reported(as_json=as_json):
        from hanol import claims

        verdicts = {r.id: r.measurement.verdict for r in claims.read_results(folder)}
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
def run(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="CLAIM...",
            help='Ids of claims, as `list` prints them, or of systems: "autodeco".',
        ),
    ],
    seeds: Annotated[int, typer.Option(help="Number of seeds: 0, 1, ...")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smallest sizes; nothing is recorded.")
    ] = False,
    folder: _Folder = Path("claims"),
    as_json: JsonOption = False,
) -> None:
    """Run claims, or all of a system, and record the verdicts; with --json one object a line.

    Claims of one command share what they train.

    Example: hanol claims run kimi-linear.kv-cache
    """
    with reported(as_json=as_json):
        import logging

        from hanol import claims

        # Experiments say how far they are; standard output is for the verdict.
        logging.basicConfig(format="%(message)s")
        logging.getLogger("hanol.claims").setLevel(logging.INFO)
        chosen = [one for name in names for one in claims.find_claims(name)]
        for one in chosen:
            result = claims.run_claim(one, range(seeds), quick=quick)
            if not quick:
                claims.write_result(result, folder)
            found = result.measurement
            if as_json:
                typer.echo(result.model_dump_json())
            else:
                name = f"{one.id} " if len(chosen) > 1 else ""
                typer.echo(f"{name}{found.verdict}: {found.summary}")


@app.command()
def show(
    claim: Annotated[str, typer.Argument(help="Id of the claim.")],
    folder: _Folder = Path("claims"),
    as_json: JsonOption = False,
) -> None:
    """Print what a claim says and what its recorded run gave.

    Example: hanol claims show kimi-linear.kv-cache
    """
    with reported(as_json=as_json):
        from hanol import claims

        found = claims.find_claim(claim)
        results = [r for r in claims.read_results(folder) if r.id == claim]
    if as_json:
        typer.echo(results[0].model_dump_json() if results else json.dumps({"id": claim}))
        return
    page = claims.render(results, [found])
    typer.echo(page[page.index("\n## ") + 1 :].rstrip())


@app.command()
def render(
    folder: _Folder = Path("claims"),
    output: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/claims.md"),
) -> None:
    """Write the documentation page from the recorded results.

    Example: hanol claims render
    """
    with reported():
        from hanol import claims

        output.write_text(claims.render(claims.read_results(folder), claims.all_claims()), "utf-8")
    typer.echo(f"wrote {output}")
