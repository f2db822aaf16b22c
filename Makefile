VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN = $(BIN)/python -m

.PHONY: help demo test test-all lint types clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.installed  ## Train on the embedded glyphs: base losses against Symm
	$(RUN) benchmarks demo

test: $(VENV)/.installed  ## Run the tests, about 5 minutes on two cores
	$(RUN) pytest -n auto

test-all: $(VENV)/.installed  ## Run the slow tests too
	$(RUN) pytest -n auto -m ''

lint: $(VENV)/.installed  ## Check style and formatting
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/.installed  ## Check types
	$(RUN) mypy

clean:  ## Remove the virtual environment and what was built
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[cpu,benchmarks,test]'
	touch $@
