# The command line in a container: `docker build -t caduceus-jax .`, and for NVIDIA GPUs with
# CUDA 13 `docker build -t caduceus-jax:gpu --build-arg EXTRAS=train,genomics,gpu .` (gpu12 for CUDA
# 12). CUDA's libraries come from PyPI; the host needs the driver and the NVIDIA container toolkit.
#
#   docker run --rm -v "$PWD:/data" caduceus-jax models
#   docker run --rm --gpus all -v "$PWD:/data" caduceus-jax:gpu embed MODEL reads.fa --out reads.npz
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:${PYTHON}
ARG EXTRAS=train,genomics
LABEL org.opencontainers.image.title="caduceus-jax" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/caduceus-jax/caduceus-jax"
# Nextflow asks `ps` for what a task uses.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps=2:* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]" \
    && caduceus-jax --version
RUN useradd --create-home --uid 10001 caduceus
USER 10001
# Downloaded models are kept here: mount a folder to keep them between runs.
ENV HF_HOME=/home/caduceus/models
WORKDIR /data
ENTRYPOINT ["caduceus-jax"]
CMD ["--help"]
