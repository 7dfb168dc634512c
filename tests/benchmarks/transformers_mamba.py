"""Times Hugging Face's Mamba without its CUDA kernels, for the speed table of docs/benchmarks.md.

    pip install torch transformers
    python tests/benchmarks/transformers_mamba.py

Four sequences through four layers of 128 channels are as many scans as one sequence through
Caduceus-PS 128 x 4, which reads two strands in two directions; `caduceus-jax bench model` times
that. Not a test: torch is no dependency of this project.
"""

import json
import statistics
import time

import torch
import transformers

SEQUENCES, LENGTH = 4, 1024


def timed(function, repeats):
    """Median time in ms, after one run that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=16, hidden_size=128, num_hidden_layers=4, state_size=16, use_cache=False
    )
    model = transformers.MambaForCausalLM(config)
    ids = torch.randint(7, 11, (SEQUENCES, LENGTH))

    def forward():
        with torch.no_grad():
            model(ids)

    def step():
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    report = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": {"sequences": SEQUENCES, "length": LENGTH, "d_model": 128, "n_layer": 4},
        "forward_ms": timed(forward, 3),
        "forward_backward_ms": timed(step, 1),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
