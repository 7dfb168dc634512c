"""The optional dependencies, and which extra of this package installs each."""

_EXTRAS = {
    "train": ("grain", "matplotlib", "optax", "orbax", "sklearn", "tensorboardX"),
    "genomics": ("anndata", "h5py", "polars", "pyBigWig", "pyarrow", "pysam"),
    "gpu": ("jax_triton", "triton"),
}


def how_to_install(error: ModuleNotFoundError) -> str | None:
    """Says how to install the optional dependency that an import did not find.

    Args:
        error: the error of the import.

    Returns:
        A sentence such as "needs polars: pip install 'caduceus-jax[genomics]'"; None where the
        missing module is not an optional dependency.
    """
    missing = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if missing in modules:
            return f"needs {error.name}: pip install 'caduceus-jax[{extra}]'"
    return None
