"""One Muon step on the matrices of a 30 M model: hanol in float32 against torch.optim.Muon.

    python benchmarks/optimizer.py [--quick] [--json] [--record] [--threads 2]

torch's Muon runs its Newton-Schulz iteration in bfloat16, which CPUs without units for it emulate;
hanol's has both types. All get the same gradients; how far an update is from the one that float64
gives is measured beside the time.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from _bench import Report, Table, arguments, finish, interleaved, medians, spread
from hanol import models, training


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    preset, rounds = ("llama-3m", 1) if options.quick else ("llama-30m", 7)
    model = models.build(preset, seed=0)
    groups = training.parameter_groups(model, muon_lr=0.01, adamw_lr=0.01, weight_decay=0.1)
    matrices = [p for group in groups if group.get("muon") for p in group["params"]]
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn(p.shape, generator=rng) for p in matrices]

    peers: dict[str, tuple[list[nn.Parameter], Any]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        ours = [nn.Parameter(p.detach().clone()) for p in matrices]
        parts = [[len(p)] for p in ours]
        group = {"params": ours, "parts": parts, "lr": 0.01, "weight_decay": 0.1, "muon": True}
        name = f"hanol, {str(dtype).removeprefix('torch.')}"
        peers[name] = (ours, training.MuonAdamW([group], dtype=dtype))
    theirs = [nn.Parameter(p.detach().clone()) for p in matrices]
    peers["torch.optim.Muon, bfloat16"] = (
        theirs,
        torch.optim.Muon(
            theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
    )
    start = copy.deepcopy([p.detach() for p in matrices])
    wanted = [exact_update(p, g) for p, g in zip(start, gradients, strict=True)]
    errors = {}
    for name, (parameters, optimizer) in peers.items():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        off = [
            float((p.detach().double() - b - w).norm() / w.norm())
            for p, b, w in zip(parameters, start, wanted, strict=True)
        ]
        errors[name] = max(off)
    seconds = interleaved(
        {name: optimizer.step for name, (_, optimizer) in peers.items()}, rounds, "optimizer step"
    )
    middle = medians(seconds)
    report = Report(
        "optimizer",
        "Muon on CPU",
        f"python benchmarks/optimizer.py --threads {options.threads}",
    )
    single, half, theirs_name = peers
    report.figures |= {f"{name} seconds": value for name, value in middle.items()}
    report.figures |= {f"{name} error": value for name, value in errors.items()}
    for name in (single, half):
        report.figures[f"{name} ratio"] = middle[theirs_name] / middle[name]
    report.tables.append(
        Table(
            f"A step of Muon on {len(matrices)} matrices, "
            f"{sum(p.numel() for p in matrices) / 1e6:.1f} M parameters",
            ["", "time", "range", "largest relative error of an update"],
            [
                [
                    name,
                    f"{1e3 * middle[name]:,.0f} ms",
                    spread(seconds[name]),
                    f"{errors[name]:.1e}",
                ]
                for name in peers
            ],
            f"Against torch.optim.Muon: {report.figures[f'{single} ratio']:.1f}x as fast in "
            f"float32, {report.figures[f'{half} ratio']:.1f}x in bfloat16. The processor "
            f"{'has' if torch.cpu._is_avx512_bf16_supported() else 'has no'} units for bfloat16 "
            "(AVX512-BF16), which decide this. The error is against the same five steps in "
            "float64, the weight decay included.",
        )
    )
    finish(report, options, ())


def exact_update(parameter: Tensor, gradient: Tensor) -> Tensor:
    """First Muon step in float64: Nesterov momentum, five Newton-Schulz steps, scale, decay."""
    x = gradient.double()
    # The buffer is 0.05 g, the direction g + 0.95 (0.05 g - g): a multiple of g, scaled away.
    flipped = x.shape[0] > x.shape[1]
    x = x.T if flipped else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    x = x.T if flipped else x
    scale = 0.2 * max(parameter.shape) ** 0.5
    return -0.01 * scale * x - 0.01 * 0.1 * parameter.double()


if __name__ == "__main__":
    main()
