# `make help` says what there is. Needs only make and Python 3.11 or newer.

PYTHON ?= python3
MINUTES ?= 78
OUT ?= .cache/shapes
PROCESSES ?= 2

VENV := .venv
BIN := $(VENV)/bin
PEERS := .cache/bench-peers
STATED := pyproject.toml constraints.txt models/shapes/pyproject.toml
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check bench bench-serving model terminal clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.installed ## Draw "a red circle on a blue background" with everything on this machine
	@examples/demo.sh

# Each module stays in one process, for its fixtures; in the order of the files, in which those that
# take long come first. PROCESSES=0: one after the other.
test: $(VENV)/.installed-dev ## Run the whole test suite
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadscope --no-loadscope-reorder

chaos: $(VENV)/.installed-dev ## Kill every part in the middle, again and again; nothing is lost (SEED=7 repeats)
	$(BIN)/python -m sdq.testing.chaos $(if $(SEED),--seed $(SEED))

check: $(VENV)/.installed-dev ## Format, lint, types and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## Measure what the README claims
	set -e; for name in startup cli hits overhead neighbours queues engine first_step; do $(BIN)/python bench/$$name.py; done

bench-serving: $(VENV)/.installed-dev $(PEERS)/.installed ## Latency under load beside LitServe and Ray Serve (8 minutes)
	$(BIN)/python bench/serving.py --peers $(PEERS) --json .cache/serving.json
	$(BIN)/python bench/plot_serving.py .cache/serving.json .cache/performance-serving.svg

model: $(VENV)/.installed ## Train the built-in model anew (MINUTES=78 OUT=.cache/shapes)
	cd models/shapes && $(CURDIR)/$(BIN)/python -m training.make_model \
		--minutes $(MINUTES) --out $(abspath $(OUT))

terminal: $(VENV)/.installed-dev ## Record docs/terminal*.svg anew, from real runs (needs tmux)
	$(BIN)/python examples/terminal.py

clean: ## Remove what make and the tools have made; .venv too
	rm -rf $(VENV) .demo .cache out.png dist build
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find sdq tests bench models examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "sdq needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made $(STATED)
	@echo "installing sdq and what it needs into $(VENV) (torch is large: some minutes the first time)"
	$(INSTALL) -e '.[all]' ./models/shapes
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[all,dev]'
	@touch $@

# Whom we compare with, in a folder of its own: hundreds of megabytes that nothing else needs.
$(PEERS)/.installed: $(VENV)/.installed bench/requirements.txt
	rm -rf $(PEERS)
	$(INSTALL) --target $(PEERS) -r bench/requirements.txt
	@touch $@
