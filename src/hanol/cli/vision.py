"""`hanol vision`: what a model that sees makes of an image."""

from pathlib import Path
from typing import Literal

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.files import whole_file

app = typer.Typer(
    help="Show what models that see make of an image.\n\nExample: hanol vision tiles page.png"
)


@app.callback()
def group() -> None:
    """Keep the name of the only command."""


@app.command()
@command
def tiles(
    image: Path = argument("Image: PNG, JPEG or any other format that Pillow reads."),
    max_tiles: int = option(6, "Maximum number of tiles, without the thumbnail.", "--tiles", min=1),
    size: int = option(448, "Side of a tile in pixels.", min=8),
    rule: Literal["official", "log_ratio", "area_weighted"] = option(
        "official",
        "How the grid is chosen: official by the difference of the ratios of width to height, "
        "log_ratio by their quotient, area_weighted by the area too.",
    ),
    slots: int = option(256, "Visual tokens of a tile.", min=1),
    output: Path | None = option(
        None, "PNG to write, with the tiles in their grid and their tags. Omitted: none."
    ),
) -> Result:
    """Show the tiles of an image, their tags and their cost.

    A page of text needs more tiles than a photograph: what is too small to read in the picture
    that --output writes, no model reads. The cost is that of NVLM-D, -X and -H, with tags of 5
    tokens as in Qwen2's tokenizer.

    Example: hanol vision tiles page.png --output tiles.png
    """
    from hanol.multimodal import read_image, tile_costs, tile_grid, tile_sheet

    picture = read_image(image)
    cols, rows = tile_grid(*picture.size, max_tiles=max_tiles, rule=rule, size=size)
    count = cols * rows + (cols * rows > 1)
    costs = tile_costs(count, slots_per_tile=slots)
    plain = {
        "image": str(image),
        "width": picture.width,
        "height": picture.height,
        "columns": cols,
        "rows": rows,
        "tiles": count,
        "costs": [cost._asdict() for cost in costs],
        "output": None if output is None else str(output),
    }
    lines = [
        f"{image}: {picture.width} by {picture.height} pixels, {cols} by {rows} tiles of {size}"
        + (" and a thumbnail" if count > 1 else "")
    ]
    lines += [
        f"NVLM-{cost.kind.upper()}: {cost.sequence:,} tokens in the sequence"
        + (f", {cost.keys:,} to attend to" if cost.keys else "")
        for cost in costs
    ]
    if output is not None:
        sheet = tile_sheet(picture, size=size, max_tiles=max_tiles, rule=rule)
        with whole_file(output) as part:
            sheet.save(part, "PNG")
        lines.append(f"tiles and tags: {output}")
    return Result(plain, lines)
