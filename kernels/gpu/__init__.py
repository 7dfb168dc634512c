"""The fused kernels for NVIDIA GPUs, in Pallas and in Triton."""
