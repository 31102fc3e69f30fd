"""Object arrays of .npy files, read without executing anything of the file.

NumPy writes an array of objects as a pickle, and a pickle is a program that can run any code. This module accepts only
the few operations that arrays of whole numbers, lists and tuples need. Two checks are independent of each other:

1. Before anything is loaded, `pickletools.genops` lists the opcodes, and each must be in `OPCODES`.
2. The unpickler resolves only the names in `NAMES`, and each name is a stand-in. A stand-in keeps its arguments and
   calls nothing, so not even functions of NumPy run.

Limits on sizes come first, so that a small file can't ask for much memory.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PROTOCOLS = range(2, 6)
MAX_OPCODES = 1_000_000
MEMO_WRITES = frozenset({"BINPUT", "LONG_BINPUT"})
# What NumPy's arrays of whole numbers, lists and tuples need in the protocols 2 to 5. No opcode that makes an object of
# another class, reads a buffer from outside, or makes a dictionary (which could change attributes) is here.
OPCODES = MEMO_WRITES | {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BYTEARRAY8", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL",
    "REDUCE", "BUILD",
}  # fmt: skip
# Codes of the types of whole numbers; the byte order stands in the state of the type.
INTEGERS = frozenset({"i4", "i8"})
OBJECTS = frozenset({"O4", "O8"})
BYTE_ORDERS = frozenset({"<", ">"})


class ObjectArrayError(ValueError):
    """The file holds something else than arrays of whole numbers, lists and tuples, or it is damaged."""


class _ArrayClass:
    """Stand-in for the class `numpy.ndarray`."""

    __slots__ = ()


class _Recorded:
    """An object of the pickle: the arguments of its constructor, and its state, both unchecked.

    Attributes:
        arguments: of the constructor.
        state: of the opcode BUILD; None without one.
    """

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        if self.state is not None:
            raise ObjectArrayError("an object with two states")
        self.state = state


class _Array(_Recorded):
    """Stand-in for an array by `_reconstruct(ndarray, (0,), b"b")`, with the state (1, shape, type, order, content)."""

    __slots__ = ()


class _Buffer(_Recorded):
    """Stand-in for an array of protocol 5, by `_frombuffer(content, type, shape, order)`."""

    __slots__ = ()


class _Type(_Recorded):
    """Stand-in for a type by `dtype("i8", False, True)`, with the state (3, byte order, ...)."""

    __slots__ = ()


class _Encoded(_Recorded):
    """Stand-in for `_codecs.encode(text, "latin1")`, which is how protocol 2 writes bytes."""

    __slots__ = ()


# NumPy 1 and 2 have different names for the module of their functions.
NAMES: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
}


@dataclass(frozen=True)
class ObjectArray:
    """An array of objects.

    Attributes:
        shape: of the array.
        items: whole numbers, lists, tuples, and stand-ins for arrays, see `indices`. NumPy writes them in C order,
            whatever the order in its memory was.
    """

    shape: tuple[int, ...]
    items: list[Any]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        """The stand-in of a name; any other name is an error."""
        if (module, name) not in NAMES:
            raise ObjectArrayError(f"the name {f'{module}.{name}'[:80]}")
        return NAMES[module, name]


def read_object_array(content: bytes) -> ObjectArray:
    """The array in a pickle of NumPy, without executing anything of it.

    Args:
        content: the pickle, all of it.

    Raises:
        ObjectArrayError: the pickle holds something else, or it is damaged.
    """
    _check_opcodes(content)
    try:
        loaded = _Unpickler(io.BytesIO(content)).load()
    except ObjectArrayError:
        raise
    # A damaged pickle raises many types of exceptions.
    except Exception as error:
        raise ObjectArrayError(f"a damaged pickle ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(loaded, _Array):
        raise ObjectArrayError("no array")
    shape, code, _, items = _state(loaded)
    if code not in OBJECTS or not isinstance(items, list) or len(shape) not in {1, 2} or math.prod(shape) != len(items):
        raise ObjectArrayError(f"an array of shape {str(shape)[:40]} with other content")
    return ObjectArray(shape, items)


def indices(item: Any, most: int) -> npt.NDArray[np.int64]:
    """The whole numbers of an item of an object array.

    Args:
        item: a stand-in for an array of int32 or int64, or a list or tuple of whole numbers.
        most: largest allowed number of numbers.

    Returns:
        Shape (n,).

    Raises:
        ObjectArrayError: the item is something else, or has too many numbers.
    """
    if isinstance(item, _Array | _Buffer):
        return _integers(item, most)
    if not isinstance(item, list | tuple):
        raise ObjectArrayError("an item that is neither an array nor a list")
    if len(item) > most:
        raise ObjectArrayError(f"a list of {len(item)} numbers for {most} rows")
    if not all(type(number) is int and abs(number) < 2**63 for number in item):
        raise ObjectArrayError("a list with other items than whole numbers")
    return np.array(item, dtype=np.int64)


def _check_opcodes(content: bytes) -> None:
    """Check each opcode, before anything is loaded."""
    count, end, protocol = 0, 0, None
    try:
        for opcode, argument, position in pickletools.genops(content):
            count, end = count + 1, (position or 0) + 1
            if opcode.name not in OPCODES:
                raise ObjectArrayError(f"the pickle opcode {opcode.name}")
            if count > MAX_OPCODES:
                raise ObjectArrayError(f"more than {MAX_OPCODES:,} pickle opcodes")
            # The unpickler allocates memory up to the position in its memo.
            if opcode.name in MEMO_WRITES and int(argument or 0) > count:
                raise ObjectArrayError(f"the memo position {argument} after {count} opcodes")
            if opcode.name == "PROTO":
                protocol = argument
    except ObjectArrayError:
        raise
    except Exception as error:
        raise ObjectArrayError(f"a damaged pickle ({str(error)[:80]})") from error
    if protocol not in PROTOCOLS:
        raise ObjectArrayError(f"a pickle of protocol {protocol}")
    if end != len(content):
        raise ObjectArrayError(f"{len(content) - end} bytes after the end of the pickle")


def _integers(array: _Array | _Buffer, most: int) -> npt.NDArray[np.int64]:
    shape, code, byte_order, content = _buffer(array) if isinstance(array, _Buffer) else _state(array)
    if code not in INTEGERS or byte_order not in BYTE_ORDERS:
        raise ObjectArrayError(f"an array inside the array, of other numbers than int32 or int64 ({code!r:.20})")
    if len(shape) != 1 or shape[0] > most:
        raise ObjectArrayError(f"an array of shape {str(shape)[:40]} for {most} rows")
    data = _bytes(content)
    kind = np.dtype(f"{byte_order}{code}")
    if len(data) != shape[0] * kind.itemsize:
        raise ObjectArrayError(f"an array of {shape[0]} numbers in {len(data)} bytes")
    return np.frombuffer(data, kind).astype(np.int64)


_Fields = tuple[tuple[int, ...], str, str, Any]


def _state(array: _Array) -> _Fields:
    """Shape, code of the type, byte order, and content."""
    state = array.state
    if array.arguments[:1] != (_ArrayClass,) or not isinstance(state, tuple) or len(state) != 5:
        raise ObjectArrayError("an array without its shape and type")
    _, shape, kind, _, content = state
    return _shape(shape), *_type(kind), content


def _buffer(array: _Buffer) -> _Fields:
    if len(array.arguments) < 3:
        raise ObjectArrayError("an array without its shape and type")
    content, kind, shape = array.arguments[:3]
    return _shape(shape), *_type(kind), content


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 2**63 for side in shape):
        raise ObjectArrayError("an array with a wrong shape")
    return shape


def _type(kind: Any) -> tuple[str, str]:
    """Code of a type, such as i8, and its byte order."""
    state = kind.state if isinstance(kind, _Type) else None
    if not isinstance(state, tuple) or len(state) < 2 or not all(type(text) is str for text in kind.arguments[:1]):
        raise ObjectArrayError("an array without a type")
    return kind.arguments[0], state[1] if isinstance(state[1], str) else ""


def _bytes(content: Any) -> bytes:
    if isinstance(content, _Encoded):
        text, *encoding = content.arguments or ("",)
        if not isinstance(text, str) or encoding != ["latin1"]:
            raise ObjectArrayError("a text in an unknown encoding")
        try:
            return text.encode("latin1")
        except UnicodeEncodeError as error:
            raise ObjectArrayError("a text that stands for no bytes") from error
    if not isinstance(content, bytes | bytearray):
        raise ObjectArrayError("an array without content")
    return bytes(content)
