"""A pretended CUDA device: tensors "on" it compute on the CPU with real values, and CUDA's rules of devices hold.

    with PretendedDevice() as device:
        ...                  # torch.device("cuda"), .to("cuda"), Generator(device="cuda"), autocast("cuda"), torch.cuda
    device.waits             # Counter of (operation, "file.py:line"): the host waits for what the device computes

Tensors stay plain CPU tensors for C++, so every library runs on them. Which storages are on the device is kept in a
table; `Tensor.device` and its like read that table, and a `TorchDispatchMode` sees every operation, those of the
backward pass included, and raises `DeviceError` where CUDA would.

It is blind to what kernels do: numbers, speed, memory, streams, the dtypes that CUDA's autocast chooses. A process must
have loaded one model by transformers before it enters: the first load inside leaves rotary frequencies unset.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

# Operations that take tensors of both devices: copies, and indices or places on the CPU.
_COPIES = {"copy_", "_to_copy", "_foreach_copy_", "_copy_from", "set_"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_CPU_PLACES = {"tensor_split"}
# Beside pointwise operations, these take scalars of the CPU as tensors without dimensions.
_SCALARS = {"fill_", "fill", "masked_fill", "masked_fill_", "index_fill", "index_fill_", "where", "lerp", "lerp_"}
# Operations whose result or its size the host reads.
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
          "is_nonzero", "item", "bincount"}  # fmt: skip
_FACTORIES = ("Generator", "arange", "empty", "full", "ones", "rand", "tensor", "zeros")


class DeviceError(RuntimeError):
    """What CUDA would refuse."""


class PretendedDevice(TorchDispatchMode):
    """See the module. Attributes: `waits`, and `uploads`, which counts copies from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self._storages: dict[int, StorageWeakRef] = {}  # weak references keep addresses from being used again
        self._generators: set[int] = set()
        self._backward = 0  # depth of calls of autograd
        self._explicit = 0  # depth of copies that Python asked for
        self._patches: list[Any] = []

    # ------------------------------------------------------------------ the table

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor is on the device."""
        try:
            return tensor.untyped_storage()._cdata in self._storages
        except (NotImplementedError, RuntimeError):  # no storage: sparse, meta within functorch
            return False

    def _take(self, tensor: Any) -> Any:
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if len(self._storages) % 20_000 == 19_999:
                self._storages = {key: ref for key, ref in self._storages.items() if not ref.expired()}
            self._storages.setdefault(storage._cdata, StorageWeakRef(storage))
        return tensor

    # ------------------------------------------------------------------ every operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        asked = kwargs.get("device")
        if asked is not None and asked.type == "cuda":
            kwargs["device"] = CPU
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = sum(map(self.holds, tensors))
        if 0 < there < len(tensors):
            self._check_mixture(func, name, args, tensors)
        result_there = self._result_is_there(name, args, asked, len(tensors), there)
        generator = kwargs.get("generator")
        if generator is not None and (generator._cdata in self._generators) != result_there:
            raise DeviceError(f"{name} at {_caller()}: the generator is of another device")
        if there and (name in _WAITS or self._reads_a_size(name, args, kwargs)):
            self.waits[name, _caller()] += 1
        if name == "_to_copy" and asked is not None and result_there != bool(there):
            (self.uploads if result_there else self.waits)["copy", _caller()] += 1
        if name == "copy_" and 0 < there < len(tensors):
            (self.uploads if result_there else self.waits)["copy", _caller()] += 1
        result = func(*args, **kwargs)
        if result_there:
            for leaf in tree_leaves(result):
                self._take(leaf)
        return result

    def _result_is_there(self, name: str, args: Any, asked: torch.device | None, count: int, there: int) -> bool:
        if name == "copy_":
            return self.holds(args[0])
        if self._backward and not self._explicit and (asked is None or asked.type == "cpu") and (there or not count):
            return True  # formulas of autograd make tensors with the options of C++, which says CPU
        return bool(there) if asked is None else asked.type == "cuda"

    def _reads_a_size(self, name: str, args: Any, kwargs: Any) -> bool:
        """Whether the result's size depends on values: a mask as an index, or repeats without their sum."""
        if name in _INDEXING:
            return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        return name == "repeat_interleave" and kwargs.get("output_size") is None

    def _check_mixture(self, func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Raise DeviceError unless CUDA takes these tensors, of which some are on the device and some are not."""
        if name in _COPIES | _CPU_PLACES:
            return
        if name in _INDEXING:
            target, indices, *rest = args
            indices = [index for index in indices if index is not None]
            values = rest[0] if rest else None
            if not self.holds(target) and any(map(self.holds, indices)):
                raise DeviceError(f"{name} at {_caller()}: an index on the device for a tensor on the CPU")
            if isinstance(values, Tensor) and values.dim() and self.holds(values) != self.holds(target):
                raise DeviceError(f"{name} at {_caller()}: values of another device than the tensor")
            self.uploads[name, _caller()] += 1
            return
        foreign = [tensor for tensor in tensors if not self.holds(tensor)]
        if any(_device_in_torch(tensor).type == "meta" for tensor in foreign):
            return
        scalars = torch.Tag.pointwise in func.tags or name in _SCALARS or name.startswith("_foreach")
        if scalars and all(tensor.dim() == 0 for tensor in foreign):
            return
        if self._backward and all(tensor.dim() == 0 or not tensor.any() for tensor in foreign):
            return  # zeros that a formula of autograd made
        shapes = ", ".join(f"{'cuda' if self.holds(tensor) else 'cpu'}{list(tensor.shape)}" for tensor in tensors)
        raise DeviceError(f"{name} at {_caller()}: tensors of both devices: {shapes}")

    # ------------------------------------------------------------------ what Python sees

    def __enter__(self) -> PretendedDevice:
        self._patch_tensors()
        self._patch_autograd()
        self._patch_torch()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> Any:
        result = super().__exit__(*exception)
        while self._patches:
            self._patches.pop().stop()
        return result

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._patches.append(patch.object(owner, name, value))
        self._patches[-1].start()

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor.to` between the CPU and the device."""
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        if not args and not kwargs:
            return tensor
        copied = kwargs.pop("copy", False)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if _device_in_torch(tensor).type != "cpu" or (device is not None and device.type not in ("cpu", "cuda")):
            return torch._C.TensorBase.to(tensor, *args, copy=copied, **kwargs)
        here = self.holds(tensor)
        target = here if device is None else device.type == "cuda"
        if target == here and not copied and dtype in (None, tensor.dtype) and layout is None:
            return tensor
        options = {} if layout is None else {"memory_format": layout}
        self._explicit += 1
        try:
            return torch.ops.aten._to_copy(
                tensor,
                dtype=dtype or tensor.dtype,
                device=CUDA if target else CPU,
                non_blocking=non_blocking,
                **options,
            )
        finally:
            self._explicit -= 1

    def _patch_tensors(self) -> None:
        base, copied = torch._C.TensorBase, Tensor.__deepcopy__

        def tolist(tensor: Tensor) -> Any:
            if self.holds(tensor):
                self.waits["tolist", _caller()] += 1
            return base.tolist(tensor)

        def numpy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.holds(tensor):
                raise DeviceError(f"numpy at {_caller()}: of a tensor on the device")
            return base.numpy(tensor, *args, **kwargs)

        def deepcopy(tensor: Tensor, memo: Any) -> Any:
            made = copied(tensor, memo)
            return self._take(made) if self.holds(tensor) else made

        for name, value in {
            "device": property(lambda tensor: CUDA if self.holds(tensor) else _device_in_torch(tensor)),
            "is_cuda": property(self.holds),
            "is_cpu": property(lambda tensor: not self.holds(tensor) and _device_in_torch(tensor).type == "cpu"),
            "get_device": lambda tensor: 0 if self.holds(tensor) else -1,
            "to": lambda tensor, *args, **kwargs: self._to(tensor, *args, **kwargs),
            "cpu": lambda tensor, *args, **kwargs: self._to(tensor, CPU),
            "cuda": lambda tensor, *args, **kwargs: self._to(tensor, CUDA),
            "pin_memory": lambda tensor, *args: tensor,
            "tolist": tolist,
            "numpy": numpy,
            "__deepcopy__": deepcopy,
            "new_tensor": lambda tensor, data, **kw: torch.tensor(
                data, **{"device": tensor.device, "dtype": tensor.dtype, **kw}
            ),
        }.items():
            self._set(Tensor, name, value)

    def _patch_autograd(self) -> None:
        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                self._backward += 1
                try:
                    return function(*args, **kwargs)
                finally:
                    self._backward -= 1

            return run

        for name in ("backward", "grad"):
            self._set(torch.autograd, name, counted(getattr(torch.autograd, name)))

    def _patch_torch(self) -> None:
        tensor, autocast, load_file = torch.tensor, torch.amp.autocast_mode.autocast, safetensors.torch.load_file
        initialise, generators = autocast.__init__, self._generators

        class Generator(torch.Generator):
            """A generator of the CPU that knows which device it was asked for."""

            def __new__(cls, device: Any = CPU) -> Any:
                made = super().__new__(cls, device=CPU)
                (generators.add if torch.device(device).type == "cuda" else generators.discard)(made._cdata)
                return made

            def __init__(self, device: Any = CPU) -> None:
                pass

        def make(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made = tensor(data, *args, **kwargs) if _is_cuda(device) else tensor(data, *args, device=device, **kwargs)
            if not _is_cuda(device):
                return made
            self.uploads["tensor", _caller()] += 1
            return self._take(made)

        def enter(context: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            initialise(context, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        def for_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: function(*("cpu" if arg == "cuda" else arg for arg in args))

        self._set(torch, "tensor", make)
        self._set(torch, "Generator", Generator)
        self._set(autocast, "__init__", enter)
        for name in ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype"):
            self._set(torch, name, for_the_cpu(getattr(torch, name)))
        self._set(
            safetensors.torch,
            "load_file",
            lambda path, device="cpu": {name: self._to(t, torch.device(device)) for name, t in load_file(path).items()},
        )
        for name, value in {
            "is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "a pretended device",
            "get_device_capability": (9, 0), "mem_get_info": (80 << 30, 80 << 30), "is_bf16_supported": True,
            "memory_allocated": 0, "memory_reserved": 0, "max_memory_allocated": 0, "max_memory_reserved": 0,
            "is_current_stream_capturing": False, "_lazy_init": None, "synchronize": None, "empty_cache": None,
            "set_device": None, "reset_peak_memory_stats": None, "manual_seed_all": None,
        }.items():  # fmt: skip
            self._set(torch.cuda, name, lambda *args, value=value, **kwargs: value)
        self._set(torch.cuda, "get_rng_state", lambda *args: torch.get_rng_state())
        self._set(torch.cuda, "set_rng_state", lambda state, *args: torch.set_rng_state(state))


@contextmanager
def device_forgotten(file: str) -> Iterator[None]:
    """Within this context, code of `file` (the end of its path) names no device: what it makes stays on the CPU."""

    def forgetful(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if sys._getframe(1).f_code.co_filename.endswith(file):
                kwargs.pop("device", None)
                args = tuple(arg for arg in args if not isinstance(arg, torch.device))
            return call(*args, **kwargs)

        return run

    made = {name: forgetful(getattr(torch, name)) for name in _FACTORIES}
    with patch.multiple(torch, **made), patch.object(Tensor, "to", forgetful(Tensor.to)):
        yield


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _device_in_torch(tensor: Tensor, get: Any = torch._C.TensorBase.device) -> torch.device:
    """The device of a tensor as C++ knows it."""
    device: torch.device = get.__get__(tensor)
    return device


def _caller() -> str:
    """File and line of the innermost frame outside torch and this module."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/torch/" not in name and name != __file__ and "contextlib" not in name:
            return f"{name.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
