"""The fused kernels for TPUs, in Mosaic."""
