PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo frontier test bare check format

help:  ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed  ## Make .venv and install nec with all that demo and tests need

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,dev]'
	@touch $@

demo: install  ## λ sweep and baselines on generated scenes: table and figure in runs/demo
	$(BIN)/nec run -m experiment=demo

frontier:  ## What each byte buys on UC Merced and Dubai in DATA, by the encoder in WEIGHTS; hours
	$(MAKE) --keep-going frontier_ucmerced frontier_dubai frontier_dubai_ridge

frontier_%: install
	@test -d "$(DATA)" -a -f "$(WEIGHTS)" || { echo 'give both: make frontier DATA=FOLDER WEIGHTS=FILE'; exit 2; }
	NEC_DATA="$(DATA)" $(BIN)/nec run -m experiment=$@ encoder.checkpoint="$(WEIGHTS)"
	NEC_DATA="$(DATA)" $(BIN)/nec run -m experiment=$@ encoder.checkpoint=random bottleneck=identity

test: install  ## Run the tests, on up to four cores
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

bare:  ## Test coding and store with nec's base alone, and the newest numpy and zarr
	$(PYTHON) -m venv $(VENV)-bare
	$(VENV)-bare/bin/pip install --quiet --disable-pip-version-check -e . pytest hypothesis xarray
	$(VENV)-bare/bin/python -m pytest tests/coding tests/store

check: install  ## Lint, format, types, import directions, results in step with their tables
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_boundaries.py tests/test_experiments.py

format: install  ## Format and fix what can be fixed
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .
