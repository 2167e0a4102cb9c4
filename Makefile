# Every target is one command that also works by hand. `make help` lists them.

SHELL := bash
PYTHON ?= python3
PRESET ?= lanes40
UNIT ?= all
BOARD ?= ulx3s-85f
FAMILY ?= ecp5
SIZE ?= 370m
export STERNA_SEED ?= 1

BIN := .venv/bin
WHEELS := $(BIN)/python -m pip --disable-pip-version-check -qq install

.PHONY: help install demo test test-all full-size synth bitstream program results figures clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | \
	 column -t -s '|' 2>/dev/null || \
	 grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	 { echo "error: $(PYTHON) is missing or older than 3.11: run make PYTHON=python3.11 (or later)" >&2; exit 1; }
	@echo "creating .venv" >&2
	@$(PYTHON) -m venv .venv || { echo "error: cannot create .venv (Debian: apt-get install python3-venv)" >&2; exit 1; }

# The C++ compiler of a package is installed only where the machine has none.
.venv/.installed: pyproject.toml | $(BIN)/python
	@extra=; [ -n "$$CXX" ] || command -v c++ g++ clang++ >/dev/null || extra='[compiler]'; \
	 echo "installing sterna$$extra into .venv" >&2; $(WHEELS) -e ".$$extra" && touch $@

.venv/.installed-test: pyproject.toml | .venv/.installed
	@echo "installing the test tools into .venv" >&2
	@$(WHEELS) -e '.[test]' && touch $@

.venv/.installed-test-all: pyproject.toml | .venv/.installed-test
	@echo "installing the tools of the other tests into .venv" >&2
	@$(WHEELS) -e '.[test-all]' && touch $@

install: .venv/.installed  ## create .venv and install sterna with its pinned dependencies
	@echo "installed: run $(BIN)/sterna, or source $(BIN)/activate and then sterna" >&2

demo: .venv/.installed  ## generate text on the simulated accelerator
	@$(BIN)/sterna generate -m models/story/story.sterna --device sim -p "Once upon a time" -n 200 --seed 1
	@echo "more of it: $(BIN)/sterna --help, or source $(BIN)/activate and then sterna" >&2

# Which tests of all: a test is in `make test` unless it is marked as one of the rest. What needs torch or Icarus runs
# where these are installed; with CI=true they must be there.
test: WHICH = not rest
test: .venv/.installed-test  ## run the tests (ARGS="-k name" for some of them)
	@$(TESTS)

test-all: WHICH = rest or not rest
test-all: .venv/.installed-test-all  ## run them and the rest: other geometries, seeds and Icarus, synthesis, long runs
	@$(TESTS)

TESTS = marks="not hardware and not ray and ($(WHICH))"; \
 if [ "$$CI" != true ]; then \
   $(BIN)/python -c 'import torch' 2>/dev/null || { \
     marks="$$marks and not torch"; echo "no torch: leaving its tests out" >&2; }; \
   command -v iverilog >/dev/null || { \
     marks="$$marks and not icarus"; [ "$@" = test ] || echo "no iverilog: leaving its tests out" >&2; }; \
   [ "$$(id -u)" = 0 ] || command -v chromium >/dev/null || { \
     marks="$$marks and not browser"; [ "$@" = test ] || echo "no chromium: leaving its test out" >&2; }; \
 fi; \
 $(BIN)/python -m pytest -n 2 --dist worksteal -m "$$marks" $(ARGS)

synth: .venv/.installed-test  ## print the cells of UNIT (all) for PRESET and FAMILY
	@$(BIN)/python -m sterna.hw synth $(UNIT) --preset $(PRESET) --family $(FAMILY)

.venv/.installed-boards: pyproject.toml | .venv/.installed
	@echo "installing the tools of bitstreams into .venv" >&2
	@$(WHEELS) -e '.[boards]' && touch $@

bitstream: .venv/.installed-boards  ## build the bitstream of BOARD (ARGS="--seeds 6,7,8")
	@$(BIN)/python -m sterna.hw bitstream $(BOARD) $(ARGS)

program: .venv/.installed-boards  ## load it into the board (ARGS=--flash to stay)
	@$(BIN)/python -m sterna.hw program $(BOARD) $(ARGS)

# The first run takes an hour or more on two cores; results are kept in build/figures.json while their sources stand.
results: .venv/.installed-boards .venv/.installed-test  ## place every board with 5 seeds, and its simulated speeds (hours)
	@$(BIN)/python -m docs.figures --only boards $(ARGS)

.venv/.installed-versus: pyproject.toml | .venv/.installed
	@echo "installing llama.cpp into .venv" >&2
	@$(WHEELS) -e '.[versus]' && touch $@

figures: .venv/.installed-boards .venv/.installed-test .venv/.installed-versus  ## find every number of the documentation anew (ARGS="--only speed" for some of them)
	@$(BIN)/python -m docs.figures $(ARGS)

full-size: .venv/.installed-test  ## make, convert and run a model of SIZE (370m, 1.3b, 2.7b) on the CPU, or on DEVICE=sim:kv260 DRAM=ideal
	@$(BIN)/python -m docs.figures.$(if $(DEVICE),fullboard $(SIZE) $(DEVICE) $(DRAM),fullsize $(SIZE))

clean:  ## remove .venv and everything that was built
	@rm -rf .venv build *.egg-info
