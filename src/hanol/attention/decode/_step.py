"""What the decode steps of all models share: the layers that they were made from, and a walk.

A step has views of the parameters of a model. It is thrown away when one of them, or a layer, is
another than it was, or when somebody listens to a layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, ModelOutput

NONE = np.empty(0, np.float32)


class Positions(NamedTuple):
    """Where the new tokens are, and which tokens count."""

    cos_R1D: Any  # None where the model has no positions
    sin_R1D: Any
    valid_RL: Any  # with the new tokens, or of no columns where all count


class DecodeStep(ABC):
    """The arrays of a model's layers, views of its own parameters, and the walk through them."""

    output: type[ModelOutput] = BaseModelOutputWithPast  # what the model's own forward returns

    def __init__(self, model: Any) -> None:
        self._num_layers = model.config.num_hidden_layers
        self._norm = model.norm.weight.detach().numpy()
        self._tensors = [*_tensors(model.layers), model.norm.weight]
        self._pointers = [x.data_ptr() for x in self._tensors]
        self._children = [
            (parent._modules, name, child)
            for parent in model.layers.modules()
            for name, child in parent._modules.items()
        ]
        modules = [*model.layers.modules(), model.norm]
        self._hooks = [
            hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks)
        ]
        self._attributes = [one.__dict__ for one in modules]

    def is_current(self, config: Any) -> bool:
        """Whether the model still has the parameters and layers of this step, and no listener."""
        return (
            self._num_layers == config.num_hidden_layers  # fewer where its first layers assist
            and all(children[name] is child for children, name, child in self._children)
            and not any(map(_listens, filter(None, self._hooks)))
            and not any("forward" in attributes for attributes in self._attributes)
            and all(x.data_ptr() == p for x, p in zip(self._tensors, self._pointers, strict=True))
        )

    @abstractmethod
    def __call__(self, embeds_R1K: Tensor, positions: Positions, cache: Cache) -> Tensor:
        """Hidden states after the last norm, [R, 1, K]; the cache gets the token."""


def is_on_cpu(layers: nn.Module) -> bool:
    """Whether all weights are, and there are some."""
    return all(x.is_cpu for x in _tensors(layers) if x.is_floating_point())


def _listens(hooks: dict[int, Any]) -> bool:
    """Whether somebody does, other than transformers, whose hooks stay and wait for its flags."""
    return any(getattr(hook, "__name__", "") != "output_capturing_hook" for hook in hooks.values())


def _tensors(layers: nn.Module) -> Iterator[Tensor]:
    yield from layers.parameters()
    yield from layers.buffers()


def is_own(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether a module is of one of these classes of transformers."""
    cls = type(module)
    return cls.__name__ in names and cls.__module__.startswith("transformers.models.")


def norm_weight(norm: Any) -> Any:
    return NONE if norm is None else norm.weight.detach().numpy()


def flat(x: Tensor) -> Any:
    """All that a strided tensor spans, as one row of memory."""
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((span,), (1,)).numpy()
