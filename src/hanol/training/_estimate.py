"""What a run will take, and how fast this machine could be at most."""

import time

import torch
from pydantic import BaseModel, Field


class StageEstimate(BaseModel):
    """What one stage of a run will take."""

    name: str
    kind: str
    tokens: int | None = Field(
        description="Trained tokens at most, of `grpo` sampled ones too; None: it depends on data."
    )
    steps: int | None = Field(description="Optimizer steps at least; short rows make more.")
    rollouts: int = Field(description="Attempts at questions.")


class Estimate(BaseModel):
    """What a run will take, computed without allocating a model."""

    parameters: int
    active_parameters: int
    steps: int
    tokens: int
    rollouts: int = 0
    train_flops: float = Field(description="Floating-point operations of the training.")
    state_gib: float = Field(
        description="GiB of weights, gradients and optimizer state, all processes together."
    )
    hours: float | None = Field(
        None,
        description="FLOPs divided by the speed of a matrix product on this device: small "
        "models take longer.",
    )
    stages: list[StageEstimate] = []


def state_gib(parameters: int, *, with_muon: bool) -> float:
    """GiB of float32 weights and gradients, and one moment for Muon or two for AdamW."""
    return parameters * 4 * (3 if with_muon else 4) / 2**30


def with_hours(estimate: Estimate) -> Estimate:
    """The estimate with the time at the speed of this machine's matrix products."""
    hours = estimate.train_flops / _product_speed() / 3600
    return estimate.model_copy(update={"hours": hours})


def _product_speed(size: int = 512, seconds: float = 0.05) -> float:
    """Floating-point operations a second of float32 matrix products on the device in use."""
    on_gpu = torch.cuda.is_available()
    # The time of the processor: what else runs on the machine does not count.
    clock = time.perf_counter if on_gpu else time.process_time
    a = torch.ones(size, size, device="cuda" if on_gpu else "cpu")
    (a @ a).sum().item()  # the first one sets things up
    began, count = clock(), 0
    while clock() - began < seconds:
        (a @ a)[0, 0].item()
        count += 1
    used = clock() - began
    return 2 * size**3 * count / used * (1 if on_gpu else torch.get_num_threads())
