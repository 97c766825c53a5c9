# Unbuilt: written where no container could be built. `docker build -t rlcsd .` on a machine with Docker is its first test.
# It installs the set of requirements-gpu.lock, as docs/cluster.md does. The host needs an NVIDIA driver of 580 or newer.
#     docker run --gpus all --shm-size 32g -v $PWD/runs:/workspace/runs rlcsd rlcsd doctor model=qwen3_1p7b task=logic_kk
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends build-essential git ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/rlcsd
ENV PATH=/opt/rlcsd/bin:$PATH
WORKDIR /opt/source
COPY pyproject.toml README.md LICENSE requirements-gpu.lock constraints-gpu.txt constraints.txt ./
COPY src src
RUN pip install --no-cache-dir -c requirements-gpu.lock '.[vllm,verl,data,quantization,trackers]'
# Compiled for the torch installed above, for an hour without many cores. Without it attention is torch's own (sdpa).
ARG FLASH_ATTN=
RUN if [ -n "$FLASH_ATTN" ]; then pip install --no-cache-dir packaging psutil setuptools wheel \
    && pip install --no-cache-dir --no-build-isolation "flash-attn==$FLASH_ATTN"; fi
WORKDIR /workspace
