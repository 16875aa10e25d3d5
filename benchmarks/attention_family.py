"""Qwen3.5 and GLM-5.3-Flash with hanol's kernels against transformers' own: prefill, training.

    python benchmarks/attention_family.py [--quick] [--json] [--record] [--threads 2]

Eight layers with the real counts and widths of heads; vocabularies and experts are small. Both
sides run one model: hanol's kernels are put in and taken out between the turns.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.glm5_next.configuration_glm5_next import Glm5NextTextConfig
from transformers.models.glm5_next.modeling_glm5_next import Glm5NextTextModel
from transformers.models.qwen3_5 import modeling_qwen3_5
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

from _bench import Report, Table, arguments, finish, interleaved, medians
from hanol import attention

HANOL, PEER = "hanol", "transformers"
QWEN, GLM = "Qwen3.5", "GLM-5.3-Flash"
LENGTHS = (512, 1024, 4096, 8192)
MOST = {QWEN: 8192, GLM: 1024}  # transformers takes minutes for more


def qwen(quick: bool) -> Any:
    """The heads of Qwen3.5-0.8B."""
    size = 64 if quick else 128
    return Qwen3_5TextModel(
        Qwen3_5TextConfig(
            vocab_size=512, hidden_size=128 if quick else 1024,
            intermediate_size=256 if quick else 3584, num_hidden_layers=4 if quick else 8,
            num_attention_heads=2 if quick else 8, num_key_value_heads=2, head_dim=2 * size,
            linear_num_key_heads=2 if quick else 16, linear_num_value_heads=2 if quick else 16,
            linear_key_head_dim=size, linear_value_head_dim=size, pad_token_id=0,
        )
    )  # fmt: skip


def glm(quick: bool) -> Any:
    """The delta heads of GLM-5.3-Flash on a quarter of its width."""
    return Glm5NextTextModel(
        Glm5NextTextConfig(
            vocab_size=512, hidden_size=128 if quick else 1024,
            intermediate_size=256 if quick else 2048, moe_intermediate_size=64 if quick else 512,
            num_hidden_layers=4 if quick else 8, num_attention_heads=4, num_key_value_heads=4,
            n_routed_experts=4, num_experts_per_tok=2, kv_lora_rank=64 if quick else 512,
            q_lora_rank=64 if quick else 512, qk_nope_head_dim=64, v_head_dim=64,
            index_head_dim=64, index_n_heads=4, linear_head_dim=64 if quick else 128,
            linear_num_heads=2 if quick else 64, pad_token_id=0,
        )
    )  # fmt: skip


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    transformers.logging.set_verbosity_error()  # it warns of every slow path that it takes
    quick, rounds = options.quick, 1 if options.quick else 5
    report = Report(
        "attention-family",
        "The delta-rule family on CPU",
        f"python benchmarks/attention_family.py --threads {options.threads}",
    )
    lengths = (64, 128) if quick else LENGTHS
    core(report, 2 if quick else 16, 64 if quick else 128, lengths, rounds)
    for name, build in ((QWEN, qwen), (GLM, glm)):
        torch.manual_seed(0)
        model = build(quick).eval()
        rows = [
            row(report, name, model, T, training, rounds)
            for training in (False, True)
            for T in lengths
            if MOST[name] >= T
        ]
        report.tables.append(
            Table(
                f"{name}, {model.config.num_hidden_layers} layers, "
                f"{sum(x.numel() for x in model.parameters()) / 1e6:,.0f} M parameters",
                ["", "transformers", "hanol", "ratio"],
                rows,
            )
        )
    attention.unregister()
    finish(report, options, ("transformers", "numba"))


def core(report: Report, heads: int, width: int, lengths: tuple[int, ...], rounds: int) -> None:
    """The gated delta rule with one decay a head, alone."""
    rows = []
    attention.unregister()
    theirs_of_head = modeling_qwen3_5.torch_chunk_gated_delta_rule
    for T in lengths:
        rng = torch.Generator().manual_seed(0)
        shape = (1, T, heads, width)
        q, k, v, grad = (torch.randn(shape, generator=rng) for _ in range(4))
        g = -torch.nn.functional.softplus(torch.randn(shape[:3], generator=rng))
        inputs = (q, k, v, g, torch.rand(shape[:3], generator=rng))

        def theirs(*x: Tensor) -> Tensor:
            return theirs_of_head(*x[:3], g=x[3], beta=x[4], use_qk_l2norm_in_kernel=True)[0]

        def ours(*x: Tensor) -> Tensor:
            return attention.chunk_kda(*x, use_qk_l2norm=True)[0]

        def both(run: Callable[..., Tensor], inputs=inputs, grad=grad) -> None:  # noqa: ANN001
            leaves = [x.detach().requires_grad_() for x in inputs]
            torch.autograd.grad(run(*leaves), leaves, grad)

        error = float((theirs(*inputs) - ours(*inputs)).abs().max())
        if error > 1e-4:
            sys.exit(f"The two cores differ by {error:.1e}: no speed is worth reporting.")
        for what, runs in {
            "forward": {PEER: lambda x=inputs: theirs(*x), HANOL: lambda x=inputs: ours(*x)},
            "forward and backward": {PEER: lambda: both(theirs), HANOL: lambda: both(ours)},
        }.items():
            for run in runs.values():
                run()
            with torch.set_grad_enabled(what != "forward"):
                seconds = medians(interleaved(runs, _rounds(T, rounds), f"core, {T:,}, {what}"))
            ratio = seconds[PEER] / seconds[HANOL]
            report.figures[f"gated delta core {T} {what} ratio"] = ratio
            rows.append([f"{T:,} tokens, {what}", *_shown(seconds), f"{ratio:.2f}x"])
    report.tables.append(
        Table(
            f"Gated delta rule, {heads} heads of {width}",
            ["", "transformers", "hanol", "ratio"],
            rows,
        )
    )


def row(report: Report, name: str, model: Any, T: int, training: bool, rounds: int) -> list[str]:
    """Seconds of both, in turn."""
    ids = torch.randint(3, model.config.vocab_size, (1, T), generator=torch.Generator())

    def run() -> Tensor:
        if not training:
            with torch.inference_mode():
                return model(ids, use_cache=True).last_hidden_state
        out = model(ids, use_cache=False).last_hidden_state
        out.square().mean().backward()
        model.zero_grad()
        return out.detach()

    def with_hanol() -> Tensor:
        attention.register()
        return run()

    def without() -> Tensor:
        attention.unregister()
        return run()

    model.train(training)
    error = float((with_hanol() - without()).abs().max())
    if error > 1e-3:
        sys.exit(f"The hidden states of {name} differ by {error:.1e}.")
    what = "training step" if training else "prefill"
    runs = {PEER: without, HANOL: with_hanol}
    seconds = medians(interleaved(runs, _rounds(T, rounds), f"{name}, {what} of {T:,}"))
    ratio = seconds[PEER] / seconds[HANOL]
    report.figures[f"{name} {what} {T} ratio"] = ratio
    return [f"{what}, {T:,} tokens", *_shown(seconds), f"{ratio:.2f}x"]


def _rounds(T: int, rounds: int) -> int:
    return rounds if T <= 1024 else max(1, rounds // 2)


def _shown(seconds: dict[str, float]) -> list[str]:
    return [f"{seconds[name]:.2f} s" for name in (PEER, HANOL)]


if __name__ == "__main__":
    main()
