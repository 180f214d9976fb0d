# SPDX-License-Identifier: Apache-2.0
"""What the binding asks of NumPy and of other array libraries. Imported with the first call, not with attn."""

import sys

import numpy
from numpy import asarray, empty, ndarray

__all__ = ["asarray", "bfloat16", "check_mutable", "dtypes", "empty", "importer", "lender", "ndarray", "plain", "share_memory"]

# In the order of attn.h's ATTN_F32, ...; bfloat16 travels as float16.
dtypes = tuple(map(numpy.dtype, ("f4", "f2", "f2", "f8", "?", "i1", "u1", "i4", "i8")))


def plain(name, array):
    """A bfloat16 array as float16; any other that cannot be read through the buffer protocol is refused."""
    if array.dtype.name == "bfloat16" and array.dtype.itemsize == 2:
        if not array.dtype.isnative:
            raise TypeError(f"{name} is in the byte order of other machines")
        return array.view(dtypes[1])
    raise TypeError(
        f"{name} is {array.dtype}: attn knows float32, float64, float16, bfloat16, bool, int8, uint8, int32 and int64"
    )


def bfloat16(array):
    """A float16 array whose bits are those of bfloat16, as such."""
    import ml_dtypes

    return array.view(ml_dtypes.bfloat16)


def _torch_of(array):
    """The module torch if the array is a tensor of its own: subclasses may mean something else by their methods."""
    torch = sys.modules.get("torch")
    return torch if torch and type(array) in (torch.Tensor, torch.nn.Parameter) else None


def importer(array):
    """from_dlpack of the library that `array` is of; None where results are to be NumPy's."""
    torch = _torch_of(array)
    if torch:
        from_capsule = torch.utils.dlpack.from_dlpack
        return lambda memory: from_capsule(memory.__dlpack__())  # an object takes it three times as long
    if not hasattr(array, "__dlpack__"):
        return None
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__().from_dlpack
    for kind in type(array).__mro__:
        library = sys.modules.get(kind.__module__.partition(".")[0])
        if hasattr(library, "from_dlpack"):
            return library.from_dlpack
    return None


def lender(array):
    """A function that does what `__dlpack__` of the array's type does, in less time; None where there is none."""
    torch = _torch_of(array)
    if not torch:
        return None
    strided, to_capsule = torch.strided, torch.utils.dlpack.to_dlpack

    def lend(tensor):
        if tensor.requires_grad or tensor.is_conj() or tensor.layout is not strided:
            return tensor.__dlpack__()  # says in its words why not
        return to_capsule(tensor)

    return lend


def check_mutable(name, array):
    """Refuses JAX's arrays as outputs: they must not change, and lend their memory all the same."""
    if type(array).__module__.partition(".")[0] in ("jax", "jaxlib"):
        raise ValueError(f"{name} is an array of JAX's, which is immutable")


class _View:
    def __init__(self, address, size, shape, strides):
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "typestr": f"|V{size}",
            "shape": shape,
            "strides": strides,
        }


def share_memory(one, other):
    """Whether two views (address, element size, shape, strides in bytes) have a byte in common, or it takes too long to tell."""
    try:
        return numpy.shares_memory(asarray(_View(*one)), asarray(_View(*other)), max_work=1_000_000)
    except Exception as error:  # numpy.TooHardError moved between versions of NumPy
        if type(error).__name__ == "TooHardError":
            return True
        raise
