"""Files written by `torch.save`, read without torch and without running anything in them.

A pickle is a program: it names functions and calls them. This reader knows the few names that
tensors and plain containers need, and puts an inert `Unknown` in place of every other one, so that
the settings of a trainer that lie beside the weights (an OmegaConf `DictConfig`, a class of the
user's) neither run nor stand in the way. Tensors are read only when they are asked for.
"""

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from caduceus_jax.errors import UserError

# torch's names of element types, in classes of storages and as dtypes.
_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "UntypedStorage": np.uint8,
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}
# The first object of a file older than torch 1.6's.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# None of these does more with its arguments than hold them; bytes(10**12) would, for example.
_SAFE_BUILTINS = {t.__name__: t for t in (list, set, frozenset, tuple, float, bool, complex)}


class Storage:
    """Stands for the memory that one or more tensors lie in.

    Args:
        dtype: type of its elements.
        read: returns its bytes.
        swapped: its bytes are those of a big-endian machine.
    """

    def __init__(self, dtype: Any, read: Callable[[], bytes], swapped: bool = False):
        self.dtype, self._read, self._swapped = np.dtype(dtype), read, swapped

    def array(self, dtype: np.dtype) -> np.ndarray:
        """Returns the elements, (numel,)."""
        array = np.frombuffer(self._read(), dtype)
        return array.byteswap() if self._swapped else array


class Tensor(NamedTuple):
    """Stands for a tensor whose elements have not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: np.dtype

    def array(self) -> np.ndarray:
        """Reads the elements.

        Raises:
            ValueError: the storage is too small for the shape.
        """
        flat = self.storage.array(self.dtype)[self.offset :]
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) == 0:
            return np.zeros(self.shape, self.dtype)
        if min(self.strides, default=0) < 0 or last >= len(flat):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, self.shape, strides))


class Unknown:
    """Stands for an object of a class that this reader does not know; it can do nothing.

    Attributes:
        state: the state that the class would have restored itself from, usually a dictionary.
        items: values that were appended to the object, or set under a key.
    """

    name = "?"  # of the class, as the file gives it
    args: tuple
    state: Any
    items: dict

    def __new__(cls, *args: Any, **settings: Any) -> "Unknown":  # noqa: D102
        unknown = super().__new__(cls)
        unknown.args, unknown.state, unknown.items = args, settings, {}
        return unknown

    def __call__(self, *args: Any, **settings: Any) -> "Unknown":  # noqa: D102
        return Unknown(*args, **settings)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Keeps a value that the pickle adds to what it takes for a list."""
        self.items[len(self.items)] = value

    add = append

    def extend(self, values: Any) -> None:
        """Keeps values that the pickle adds to what it takes for a list."""
        for value in values:
            self.append(value)


def load(path: pathlib.Path) -> Any:
    """Reads what was saved, with `Tensor` in place of tensors and `Unknown` of other objects.

    Args:
        path: a file written by `torch.save` of any version.

    Raises:
        UserError: the file is damaged, or was not written by `torch.save`.
    """
    try:
        if zipfile.is_zipfile(path):
            return _load_zip(path)
        return _load_legacy(path)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} is damaged or incomplete, or not a file that torch.save wrote "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from None


def plain(value: Any) -> Any:
    """Turns settings of a trainer into dictionaries, lists and plain values.

    Args:
        value: a value of a loaded file. Unknown objects are replaced by their state, and a node of
            OmegaConf by its content.
    """
    if isinstance(value, Unknown):
        state = value.state if isinstance(value.state, Mapping) else {}
        if "_content" in state:
            return plain(state["_content"])
        return plain(state["_val"]) if "_val" in state else plain(value.items or state)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def module_tensors(module: Unknown, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters and buffers of a whole `torch.nn.Module` that was pickled.

    Args:
        module: the stand-in for it.
        prefix: prefix of the names.
    """
    state = module.state if isinstance(module.state, Mapping) else {}
    for group in ("_parameters", "_buffers"):
        for name, tensor in dict(state.get(group) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, child in dict(state.get("_modules") or {}).items():
        if isinstance(child, Unknown):
            yield from module_tensors(child, f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    """Knows tensors and plain containers; everything else becomes inert."""

    def __init__(self, file: Any, storage_of: Callable[[Any], Any]):
        super().__init__(file, encoding="latin-1")
        self._storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stand-in for a class that a pickle names; never the class itself."""
        if module in ("builtins", "__builtin__") and name in _SAFE_BUILTINS:
            return _SAFE_BUILTINS[name]
        if module in ("builtins", "__builtin__") and name == "dict":
            return _Dict
        if module == "collections" and name in ("OrderedDict", "defaultdict", "Counter"):
            return _Dict
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DType(name)
        if known := _KNOWN.get(f"{module}.{name}"):
            return known
        return type("Unknown", (Unknown,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """Returns the storage that a pickle points to."""
        return self._storage_of(pid)


class _DType(str):
    """Stands for a storage class or dtype of torch, by name."""

    def __call__(self, *_: Any) -> "_DType":
        return self


class _Dict(dict):
    """Stands for any dictionary of the standard library; attributes beside items are left out."""

    def __init__(self, *args: Any):
        # The first argument of a defaultdict makes missing items, and is not an item itself.
        super().__init__(*(value for value in args if isinstance(value, Mapping | list)))

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _rebuild_typed_tensor(
    storage: Storage, offset: int, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: str, *_
) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides), np.dtype(_DTYPES[dtype]))


def _rebuild_from_type(function: Any, _: Any, args: Any, __: Any) -> Any:
    return function(*args) if function in _KNOWN.values() else Unknown(*args)


def _size(shape: Any = ()) -> tuple:
    return tuple(shape)


def _encode(text: str, encoding: str = "latin-1") -> bytes:
    return text.encode("latin-1") if encoding in ("latin1", "latin-1") else b""


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "_codecs.encode": _encode,
}


def _load_zip(path: pathlib.Path) -> Any:
    """Reads the format of torch >= 1.6: a zip with a pickle and one entry per storage."""
    archive = zipfile.ZipFile(path)
    pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise UserError(f"{path} is a zip archive, but not one that torch.save wrote")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    swapped = order in archive.namelist() and archive.read(order).strip() == b"big"

    def storage_of(pid: Any) -> Any:
        _, dtype, key, *_ = pid
        return Storage(_DTYPES[str(dtype)], lambda: archive.read(f"{root}data/{key}"), swapped)

    return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage_of).load()


def _load_legacy(path: pathlib.Path) -> Any:
    """Reads the format of torch < 1.6: small pickles, the object, and its storages' bytes."""
    content = path.read_bytes()
    if not content:
        raise UserError(f"{path} is empty: fetch it again")
    file = io.BytesIO(content)
    storages: dict[str, list] = {}

    def storage_of(pid: Any) -> Any:
        kind, *parts = pid
        if kind != "storage":  # the source of a module's class
            return parts[0] if parts else None
        dtype = np.dtype(_DTYPES[str(parts[0])])
        place = storages.setdefault(str(parts[1]), [dtype, 0, 0])
        return Storage(dtype, lambda: content[place[1] : place[2]])

    def load() -> Any:
        return _Unpickler(file, storage_of).load()

    if load() != _LEGACY_MAGIC:
        raise UserError(f"{path} is a pickle, but not one that torch.save wrote")
    for _ in range(2):
        load()  # the version of the format, and the sizes of C's types
    saved = load()
    for key in load():
        (count,) = struct.unpack("<q", file.read(8))
        place = storages[str(key)]
        place[1] = file.tell()
        place[2] = place[1] + count * place[0].itemsize
        file.seek(place[2])
    return saved
