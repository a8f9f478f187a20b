# `make chat` starts DLLM; `make test` checks it. The rest serves those who work on it.
.POSIX:
.PHONY: help setup chat test test-long lint bench guide-model lock clean conformance fuzz setup-test cometbft

BIN = .venv/bin
# Two processes: enough for two cores, and real end-to-end processes run beside them. A file stays in one process,
# so that its tests share the networks that they start.
TEST_PROCESSES = 2 --dist loadfile

help:
	@echo "make chat         set up on the first run, then open the terminal chat"
	@echo "make setup        only set up: .venv/ with dllm, dllm-chat, dllm-node, dllm-worker"
	@echo "make cometbft     install the consensus engine for networks of several validators (wants Go)"
	@echo "make test         everything that has to hold (under 25 minutes on two cores)"
	@echo "make test-long    the same tests, deeper"
	@echo "make lint         format, lint, types and import rules only"
	@echo "make conformance  agreement with other implementations, counted by family"
	@echo "make fuzz         every decoder, coverage-guided, FUZZ_SECONDS (60) a room"
	@echo "make bench        the benchmarks, as ratios"
	@echo "make guide-model  train the model that ships in the package (under 40 minutes)"
	@echo "make lock         write requirements/*.lock anew (wants the extra dev)"
	@echo "make clean        remove everything that was built, .venv/ included"

setup:
	@sh tools/setup/setup.sh worker

setup-test:
	@sh tools/setup/setup.sh test

cometbft: setup
	@sh tools/setup/cometbft.sh

chat: setup
	@exec $(BIN)/dllm-chat

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Tests over the real consensus engine run wherever it is, or where Go is there to build it.
test: lint
	@sh tools/setup/cometbft.sh --where-possible
	$(BIN)/pytest -n $(TEST_PROCESSES) -m "not long" $(PYTEST_ARGS)

test-long: lint
	@sh tools/setup/cometbft.sh --where-possible
	HYPOTHESIS_PROFILE=long $(BIN)/pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

conformance: setup-test
	@sh tools/setup/cometbft.sh --where-possible
	@$(BIN)/python -m tools.conformance

fuzz: setup-test
	@$(BIN)/python -c "import atheris" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/fuzz.lock
	@$(BIN)/python -m tests.fuzz $(FUZZ_ROOMS)

bench: setup-test
	@$(BIN)/python -m benchmarks

guide-model: setup-test
	@$(BIN)/python -m tools.guide_model

lock:
	@bash tools/setup/lock.sh

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f snapshot_report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
