"""Files as `torch.save` writes them, made without torch."""

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}


class _Storage:
    """What a pickle of torch refers to by a persistent id."""

    def __init__(self, array):
        self.array = array


def zipped(path, saved, byteorder=b"little"):
    """Writes the format of torch >= 1.6. Arrays in `saved` become tensors."""
    content, storages = _pickled(saved)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", byteorder)
        for i, array in enumerate(storages):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def legacy(path, saved):
    """Writes the format of torch < 1.6."""
    content, storages = _pickled(saved, view_metadata=True)
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            file.write(pickle.dumps(part, protocol=2))
        file.write(content)
        file.write(pickle.dumps([str(i) for i in range(len(storages))], protocol=2))
        for array in storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def _pickled(saved, view_metadata=False):
    """The pickle, and the arrays that it refers to."""
    storages = []
    with _fake_torch() as torch:

        class Pickler(pickle.Pickler):
            def reducer_override(self, value):
                if not isinstance(value, np.ndarray):
                    return NotImplemented
                strides = tuple(s // value.itemsize for s in value.strides)
                place = (_Storage(value), 0, value.shape, strides, False, {})
                return torch["_utils"]._rebuild_tensor_v2, place

            def persistent_id(self, value):
                if not isinstance(value, _Storage):
                    return None
                storages.append(np.asarray(value.array))
                kind = getattr(torch[""], _STORAGES[value.array.dtype.name])
                pid = ("storage", kind, str(len(storages) - 1), "cpu", value.array.size)
                return (*pid, None) if view_metadata else pid

        file = io.BytesIO()
        Pickler(file, protocol=2).dump(saved)
    return file.getvalue(), storages


@contextlib.contextmanager
def _fake_torch():
    """Modules under torch's names, so that pickles may refer to what would be in them."""
    root, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*args):
        raise AssertionError("only its name is used")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in _STORAGES.values():
        setattr(root, name, type(name, (), {"__module__": "torch"}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": root, "torch._utils": utils}
    try:
        yield {"": root, "_utils": utils}
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
