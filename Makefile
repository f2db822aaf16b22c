VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN = $(BIN)/python -m

PML_MIN = 2.0.0
.PHONY: help demo emoji test test-all test-pml-min test-browser docs upstream release lint types clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.installed  ## Train on the embedded glyphs: base losses against Symm
	$(RUN) benchmarks demo

# The trunk's weights are in its package. Three seeds at the rate that a search had found, so
# that it takes half an hour on two cores.
emoji: $(VENV)/.emoji  ## Get emoji in nine designs by npm, and compare base losses with Symm on them
	$(RUN) benchmarks emoji runs/emoji-data
	$(RUN) benchmarks compare --preset emoji --dataset folder --data-root runs/emoji-data \
		--out runs/emoji --seeds 0 1 2 --learning-rates --methods \
		N-pairs 'N-pairs, hardest originals' 'Symm + N-pairs' \
		Triplet 'Triplet, hardest originals' 'Symm + Triplet'

test: $(VENV)/.installed  ## Run the tests, about 5 minutes on two cores
	$(RUN) pytest -n auto

test-all: $(VENV)/.installed  ## Run the slow tests too
	$(RUN) pytest -n auto -m 'not browser'

test-pml-min: $(VENV)/.pml-min  ## Run the library's tests on the oldest PML that it supports
	PYTHONPATH=$(VENV)/pml-min $(RUN) pytest -n auto pml_symm tests --ignore tests/benchmarks

test-browser: $(VENV)/.browser  ## Look at the report in headless Chromium
	$(RUN) pytest -m browser

docs: $(VENV)/.docs  ## Build the documentation's site in site/
	$(RUN) mkdocs build --strict

upstream: $(VENV)/.installed  ## Write it into a checkout of PML: make upstream PML=/path [ONLY=miner]
	$(RUN) upstream $(PML) $(if $(ONLY),--only $(ONLY))

release: $(VENV)/.release  ## Build source and wheel, and check them
	rm -rf dist
	$(RUN) build
	$(RUN) twine check --strict dist/*

lint: $(VENV)/.installed  ## Check style and formatting
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/.installed  ## Check types
	$(RUN) mypy

clean:  ## Remove the virtual environment and what was built
	rm -rf $(VENV) build dist site *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[cpu,benchmarks,test]'
	touch $@

PIP = $(RUN) pip install --quiet --constraint constraints.txt

$(VENV)/.pml-min: $(VENV)/.installed
	$(RUN) pip install --quiet --no-deps --target $(VENV)/pml-min pytorch-metric-learning==$(PML_MIN)
	touch $@

$(VENV)/.emoji: $(VENV)/.installed
	$(PIP) --editable '.[emoji,images]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	touch $@

$(VENV)/.release: $(VENV)/.installed
	$(PIP) build twine
	touch $@

# Debian's chromium, where there is none.
$(VENV)/.browser: $(VENV)/.installed
	$(PIP) --editable '.[browser]'
	command -v chromium || (apt-get update && apt-get install --yes chromium)
	touch $@
