# GPU image. `docker build -t tokenskip .`; `docker run --gpus all -v "$PWD/runs:/runs" tokenskip demo --out /runs/demo`
# torch from PyPI brings its CUDA libraries, so the base needs only the driver that `--gpus` mounts.
FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
WORKDIR /opt/tokenskip
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# KubeRay asks for jobs over Ray's dashboard and probes its pods with wget
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN pip install -c constraints.txt '.[ray]' 'ray[default]'
RUN useradd --create-home tokenskip && mkdir /runs && chown tokenskip /runs
USER tokenskip
WORKDIR /runs
ENTRYPOINT ["tokenskip"]
