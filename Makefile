# `make demo` and `make test` do all the set-up themselves, in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export MMTOOL_DATA

.PHONY: install demo test lint bench bench-quick faults fuzz clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml plugins/mmtool-starter/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmtool needs Python 3.11 or newer; say make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]' -e 'plugins/mmtool-starter[speech]'
	touch $@

demo: install
	@echo '$$ mmtool predict cat.jpg --text "my new puppy"'
	@$(BIN)/mmtool predict mmtool/samples/cat.jpg --text "my new puppy"
	@echo
	@echo '$$ mmtool predict cat.jpg voice.ogg --labels cat,dog,horse,"cup of coffee"'
	@$(BIN)/mmtool predict mmtool/samples/cat.jpg mmtool/samples/voice.ogg --labels 'cat,dog,horse,cup of coffee'
	@echo
	@echo '$$ mmtool predict cat.jpg coffee.jpg --labels cat,dog,horse,"cup of coffee"'
	@$(BIN)/mmtool predict mmtool/samples/cat.jpg mmtool/samples/coffee.jpg --labels 'cat,dog,horse,cup of coffee'
	@echo
	@echo 'the whole chain, in demo/ (docs/chain.sh):'
	@rm -rf demo && mkdir demo
	@cd demo && PATH="$(abspath $(BIN)):$$PATH" bash -euvo pipefail $(CURDIR)/docs/chain.sh
	@echo
	@echo 'the report: demo/report/report.html'

test: install lint
	cd docs && $(abspath $(BIN))/python -m pytest -q --pyargs mmtool.testing  # away from tests/, whose plugins break rules
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy plugins/mmtool-starter/mmtool_starter

# In under 15 minutes on 2 idle cores, after a first time that installs what a peer needs and makes 5,000 pictures (two minutes).
bench: $(VENV)/.bench
	$(BIN)/python tests/benchmarks/run.py --json bench.json --baseline tests/benchmarks/baseline.json

bench-quick: $(VENV)/.bench
	$(BIN)/python tests/benchmarks/run.py --quick --json bench.json --baseline tests/benchmarks/baseline.json

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python tests/benchmarks/pictures.py 5000
	touch $@

# Half an hour or more: every write, fsync and rename of small runs is killed, or fails; then 500 kills at random moments.
faults: install
	$(BIN)/python tests/faults/campaign.py --kills 500 --json faults.json

# Ten minutes: 100,000 damaged files of ours, 60,000 damaged media files.
fuzz: install
	$(BIN)/python tests/benchmarks/fuzz_artefacts.py 100000
	$(BIN)/python tests/benchmarks/fuzz_media.py --count 60000

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build
