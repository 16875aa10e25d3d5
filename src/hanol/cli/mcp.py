"""`hanol mcp`: the tools over a folder, for other agents."""

from typing import Annotated

import typer

from hanol.cli._options import FolderArgument, IndexOption, command


@command
def mcp(
    folder: FolderArgument,
    index_folder: IndexOption = None,
    python: Annotated[
        bool, typer.Option("--python", help="Also serve the sandboxed Python interpreter.")
    ] = False,
) -> None:
    """Serve the search tools of an indexed folder over MCP.

    The tools are search, visit, google_scholar and parse_file, on standard input and output.

    Example: hanol mcp notes
    """
    import asyncio

    from hanol.retrieval import Index
    from hanol.tools import PythonInterpreter, local_tools, serve_mcp

    with Index.open(folder, index_folder=index_folder) as corpus:
        tools = local_tools(corpus)
        if python:
            tools.append(PythonInterpreter())
        names = ", ".join(tool.name for tool in tools)
        # Standard output belongs to the protocol.
        typer.echo(f"{folder}: serving {names} over MCP; press Ctrl-C to stop", err=True)
        asyncio.run(serve_mcp(tools, corpus))
