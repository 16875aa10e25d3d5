"""`hanol mcp`: the tools over a folder, for other agents."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._report import reported


def mcp(
    folder: Annotated[Path, typer.Argument(help="Folder with the documents, indexed.")],
    place: Annotated[
        Path | None,
        typer.Option("--index", help="Folder of the index, if not FOLDER/.hanol."),
    ] = None,
    python: Annotated[
        bool, typer.Option("--python", help="Also serve PythonInterpreter, in its sandbox.")
    ] = False,
) -> None:
    """Serve search, visit, google_scholar and parse_file over MCP on standard input and output.

    Example: hanol mcp notes
    """
    with reported():
        import asyncio

        from hanol.retrieval import Index
        from hanol.tools import PythonInterpreter, local_tools, serve_mcp

        with Index.open(folder, index_folder=place) as corpus:
            tools = local_tools(corpus)
            if python:
                tools.append(PythonInterpreter())
            names = ", ".join(tool.name for tool in tools)
            # Standard output belongs to the protocol.
            typer.echo(f"{folder}: serving {names} over MCP; Ctrl-C ends it", err=True)
            asyncio.run(serve_mcp(tools, corpus))
