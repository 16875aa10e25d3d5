"""transformers with fewer imports, for programs that do nothing but run a model.

Its model classes import what FSDP, tensor parallelism, FP8 kernels, `torch.compile` and losses of
object detection need: 1,900 modules, and half of the time until a first token. Most of that gives
names to functions which are never called. In their place stand objects that import it when they are
used; nothing else is replaced, and nothing stays behind in `sys.modules`.
"""

import gc
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Self

from hanol.lazy import when_imported

_loading = threading.RLock()  # what is replaced for a load belongs to all threads
_MODELS = ("modeling_utils", "masking_utils", "generation.utils")
# Modules of which these take names alone: while they are imported, and one process runs a model.
_UNUSED = frozenset((
    "accelerate", "accelerate.hooks", "accelerate.utils", "accelerate.utils.modeling",
    "scipy", "scipy.optimize",
    "torch._dynamo", "torch._dynamo._trace_wrapped_higher_order_op",
    "torch.distributed._composable", "torch.distributed._composable.fsdp",
    "torch.distributed.checkpoint", "torch.distributed.checkpoint.hf_storage",
    "torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed.tensor._utils",
    "torch.distributed.tensor.placement_types", "torch.nn.attention.flex_attention",
    "transformers.distributed.expert_parallel", "transformers.distributed.parallel_utils",
    "transformers.distributed.pipeline_parallel", "transformers.distributed.tensor_parallel",
    "transformers.integrations.deepgemm", "transformers.integrations.flex_attention",
    "transformers.integrations.sonicmoe",
))  # fmt: skip


def light_imports() -> None:
    """Import transformers' model classes without what one process that runs a model does not use.

    For programs that do no more than that, such as `hanol chat`: whatever else is called imports
    what it needs then. Does nothing where the classes are imported already.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    # What modules hold stays: looking through it for garbage, time and again, takes a seventh.
    gc.disable()
    try:
        _import()
    finally:
        gc.enable()
        gc.freeze()


def _import() -> None:
    when_imported("transformers.utils.import_utils", _read_sources_once)
    import torch  # noqa: F401  # all of it: what it needs itself is no stand-in
    import transformers.distributed.utils as distributed

    is_dtensor = distributed.is_dtensor
    # Asked of every weight: nobody has such a tensor before its module is imported.
    distributed.is_dtensor = lambda x: "torch.distributed.tensor" in sys.modules and is_dtensor(x)
    with _Finder():
        for name in _MODELS:
            importlib.import_module(f"transformers.{name}")


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within, models are made on the "meta" device without importing torch's compiler.

    There arithmetic and the initialisers of layers run in Python, which imports 1,100 modules for
    that. The initialisers have nothing to do: there are no numbers. Frequencies of rotary
    positions, which follow from the configuration alone, are computed where numbers are.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def skipping(initialise: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, *args, **kwargs: x if x.is_meta else initialise(x, *args, **kwargs)

    def counting(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_code.co_name
        if kwargs.get("device") is None and caller.startswith("compute_default_rope"):
            kwargs["device"] = "cpu"
        return arange(*args, **kwargs)

    def on_cpu(compute: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.device("cpu"):
                return compute(*args, **kwargs)

        return run

    with _loading:
        scaled = dict(ROPE_INIT_FUNCTIONS)
        init, arange = torch.nn.init, torch.arange
        plain = {name: getattr(init, name) for name in ("kaiming_uniform_", "normal_", "uniform_")}
        try:
            vars(torch)["arange"] = counting
            ROPE_INIT_FUNCTIONS.update({name: on_cpu(scale) for name, scale in scaled.items()})
            vars(init).update({name: skipping(function) for name, function in plain.items()})
            yield
        finally:
            vars(torch)["arange"] = arange
            ROPE_INIT_FUNCTIONS.update(scaled)
            vars(init).update(plain)


def _read_sources_once() -> None:
    """At import transformers reads the sources of all its models twice, for the names in them."""
    from transformers.utils import import_utils

    import_utils.create_import_structure_from_path = cache(
        import_utils.create_import_structure_from_path
    )


class _Finder(Loader, MetaPathFinder):
    """Gives modules that are `_UNUSED` as stand-ins, until it stops."""

    def __init__(self) -> None:
        self._in_graph: list[Callable[..., Any]] = []

    def __enter__(self) -> Self:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        real = PathFinder.find_spec(fullname, path, target) if fullname in _UNUSED else None
        if real is None:
            return None  # not installed, too
        spec = ModuleSpec(fullname, self, is_package=True)
        spec.submodule_search_locations = real.submodule_search_locations or []
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "torch._dynamo":  # decorators, used at once
            from torch._compile import _disable_dynamo  # imports it when the function is called

            vars(module).update(
                allow_in_graph=self._allow_in_graph,
                disable=lambda fn=None, recursive=True, **_: _disable_dynamo(fn, recursive),
            )

    def stop(self) -> None:
        """Take the stand-ins out of `sys.modules`: from now on everybody gets the real modules."""
        if self not in sys.meta_path:
            return
        sys.meta_path.remove(self)
        for name in [x for x in _UNUSED if isinstance(sys.modules.get(x), _StandIn)]:
            del sys.modules[name]
            parent, _, last = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(last, None)
        for name in ("torch._dynamo", "torch.distributed.tensor"):
            when_imported(name, self._make_whole, settled=("torch", "transformers", "accelerate"))

    def _allow_in_graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._in_graph.append(function)
        return function

    def _make_whole(self) -> None:
        """Give transformers everything: the compiler does not see through stand-ins."""
        dynamo = importlib.import_module("torch._dynamo")  # comes back here first
        while self._in_graph:
            dynamo.allow_in_graph(self._in_graph.pop())
        for module in [x for name, x in sys.modules.items() if name.startswith("transformers.")]:
            for name, value in list(vars(module).items()):
                if type(value) is _Later:
                    setattr(module, name, value._real())


class _StandIn(ModuleType):
    """A module that was not imported."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> "_Later":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self.__name__, name, self._finder.stop)


class _Later:
    """A function or class that is imported when it is called or looked into."""

    def __init__(self, module: str, name: str, stop: Callable[[], None]) -> None:
        self._module, self._name, self._stop = module, name, stop

    def _real(self) -> Any:
        self._stop()  # where transformers uses it while it is imported, there is nothing to save
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who asks whether it is something special
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, one: Any) -> bool:
        # Of a class that nobody imported there are no objects.
        module = sys.modules.get(self._module)
        return (
            module is not None
            and not isinstance(module, _StandIn)
            and isinstance(one, getattr(module, self._name))
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:  # in annotations
        return Any

    __ror__ = __or__
