"""On a CUDA device: the same choices, the same kept tokens, the same gradients as on a CPU."""

import copy

import pytest
import torch

from hanol import models
from hanol.autodeco import (
    AutoDecoForCausalLM,
    LossSettings,
    TemperatureHead,
    TopPHead,
    autodeco_loss,
)
from hanol.sampling import top_p_keep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0], ids=["flat", "medium", "peaked"])
@pytest.mark.parametrize("method", ["auto", "sort", "prefilter", "histogram"])
def test_kept_tokens(scale: float, method: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logits_NV = scale * torch.randn(16, 151_936, generator=rng, dtype=torch.float64)
    top_p_N = torch.linspace(-0.1, 1.1, 16)
    on_cpu = top_p_keep(logits_NV, top_p_N, "sort")
    on_gpu = top_p_keep(logits_NV.cuda(), top_p_N.cuda(), method)
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("recipe", ["hf", "megatron"])
def test_loss_and_gradients(recipe: str) -> None:
    torch.manual_seed(0)
    heads = [TemperatureHead(64), TopPHead(64)]
    hidden_NH, logits_NV = torch.randn(40, 64), 3 * torch.randn(40, 32_000)
    labels_N = logits_NV.argmax(-1)
    labels_N[::3] = -100

    def gradients(device: str) -> list[torch.Tensor]:
        own = [copy.deepcopy(head).to(device) for head in heads]
        loss = autodeco_loss(
            logits_NV.to(device), hidden_NH.to(device), labels_N.to(device), *own,
            LossSettings(recipe=recipe, easy_token_drop=0.0),
        ).loss  # fmt: skip
        parameters = [p for head in own for p in head.parameters()]
        return [loss.cpu(), *(g.cpu() for g in torch.autograd.grad(loss, parameters))]

    for ours, reference in zip(gradients("cuda"), gradients("cpu"), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-6)


def test_model() -> None:
    model = AutoDecoForCausalLM.from_base(models.build("llama-3m", vocab_size=512, seed=0))
    ids = torch.randint(512, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        on_cpu = model(ids)
        model.cuda()
        on_gpu = model(ids.cuda())
        greedy = model.generate(ids.cuda(), do_sample=False, max_new_tokens=16)
        plain = model.llm.generate(ids.cuda(), do_sample=False, max_new_tokens=16)
    torch.testing.assert_close(on_gpu.temperature.cpu(), on_cpu.temperature, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(on_gpu.top_p.cpu(), on_cpu.top_p, rtol=1e-3, atol=1e-4)
    assert torch.equal(greedy, plain)
