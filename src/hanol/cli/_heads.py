"""What the commands of `hanol autodeco` have in common: rows, and a model with heads."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hanol.autodeco import AutoDecoForCausalLM, Row

STDLIB = "stdlib"  # the functions of the standard library in the place of a file


def rows_of(source: str, *, held_out: bool) -> "list[Row]":
    """Rows of a file, or functions of the standard library."""
    from hanol import autodeco

    if source == STDLIB:
        return autodeco.function_rows(held_out=held_out)
    return autodeco.read_rows(source)


def spread(rows: "list[Row]", number: int | None) -> "list[Row]":
    """So many rows at equal distances."""
    if number is None or number >= len(rows):
        return rows
    return [rows[i * len(rows) // number] for i in range(number)]


def open_heads(
    model: str, base_model: str | None, *, fresh: bool
) -> "tuple[AutoDecoForCausalLM, PreTrainedTokenizerBase]":
    """Heads with their base; with `fresh` also a base without heads, which gets new ones."""
    from hanol import autodeco, models

    if fresh and models.load_config(model).model_type != autodeco.AutoDecoConfig.model_type:
        loaded = models.load(model)
        return autodeco.AutoDecoForCausalLM.from_base(
            loaded.model, base_name=model
        ), loaded.tokenizer
    wrapped = autodeco.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
    return wrapped, autodeco.load_tokenizer(model, base_model=base_model)
