# Two commands on a fresh machine with Python 3.11+, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Extras of the slow tests: a real cluster, a real server, real pages, the package that the scorer is compared with.
SLOW := dev,parity,playground,ray,serving,tensorboard
# One thread per process: two threads on a small machine wait for each other. Nothing here needs a hub.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
# glibc hands every large tensor back to the system at once; getting it again took a fifth of the training's CPU time.
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export MALLOC_TOP_PAD_ ?= 268435456
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check test-slow headline docs constraints audit clean

demo: $(VENV)/run.stamp
	$(BIN)/tokenskip demo

test: $(VENV)/dev.stamp check
	$(BIN)/python -m pytest

test-slow: $(VENV)/slow.stamp
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy

headline: $(VENV)/run.stamp
	$(BIN)/python benchmarks/headline.py

docs: $(VENV)/run.stamp
	$(BIN)/python docs/make_cli.py

constraints:
	rm -rf .venv-constraints && $(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/pip install -q torch
	.venv-constraints/bin/pip install -q -e '.[$(SLOW)]'
	head -1 constraints.txt > constraints.new
	.venv-constraints/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	mv constraints.new constraints.txt
	.venv-constraints/bin/pip install -q uv
	head -2 requirements.lock > lock.new
	grep -v '^torch==\|^#' constraints.txt | .venv-constraints/bin/uv pip compile -q --no-deps --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header - >> lock.new
	mv lock.new requirements.lock && rm -rf .venv-constraints

audit: $(VENV)/run.stamp
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip -r constraints.txt

clean:
	rm -rf $(VENV) runs

$(VENV)/run.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/slow.stamp: $(VENV)/dev.stamp
	$(BIN)/pip install -q -c constraints.txt -e '.[$(SLOW)]'
	touch $@
