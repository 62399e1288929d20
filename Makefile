# Two commands do everything from a fresh clone: `make run` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test check docs bench lock clean

run: $(VENV)/ok
	$(BIN)/agentload run

test: $(VENV)/ok
	$(BIN)/python -m pytest

check: $(VENV)/ok
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(MAKE) docs
	$(MAKE) test

# The documentation, into dist/docs; a warning is an error.
docs: $(VENV)/ok
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/ok
	$(BIN)/python -m benchmarks

# Everything at the versions of requirements.lock, then this project itself.
$(VENV)/ok: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Newest versions that fit pyproject.toml, written down for CI.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet pip-tools
	$(VENV)-lock/bin/pip-compile --quiet --extra dev --extra docs --extra otel --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--no-header --output-file requirements.lock pyproject.toml
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
