"""Draws at the edges of what float32 holds."""

import pytest
import torch

from hanol.sampling import draw

LOGITS = torch.tensor([[1.0, 3.0, 2.0, -torch.inf, 2.5]])


def drawn(temperature: float, uniform: float, **more: object) -> tuple[int, float]:
    found = draw(
        LOGITS,
        torch.tensor([temperature]),
        torch.tensor([more.pop("top_p", 1.0)]),
        torch.tensor([uniform], dtype=torch.float64),
        **more,  # type: ignore[arg-type]
    )
    return int(found.token_B), float(found.logprob_B)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 1e-40, 1e-38, 1e-8])
@pytest.mark.parametrize("more", [{}, {"top_p": 0.5}, {"top_k": [2]}], ids=str)
def test_the_lowest_temperatures_take_the_likeliest(
    temperature: float, more: dict[str, object]
) -> None:
    for uniform in (0.0, 0.5, 0.999999):
        token, logprob = drawn(temperature, uniform, **more)
        assert token == 1
        assert -10 < logprob <= 0


@pytest.mark.parametrize("temperature", [1e30, 1e38, 1e40, 1e300])
def test_the_highest_temperatures_draw_evenly_from_what_is_left(temperature: float) -> None:
    uniforms = [0.1, 0.3, 0.6, 0.9]
    assert [drawn(temperature, uniform)[0] for uniform in uniforms] == [0, 1, 2, 4]
    assert [drawn(temperature, uniform, top_k=[2])[0] for uniform in uniforms] == [1, 1, 4, 4]
    assert drawn(temperature, 0.9, top_k=[2])[1] == pytest.approx(-0.6931, abs=1e-3)
