# Two commands do everything from a fresh clone: `make run` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test check docs bench lock audit fuzz dist clean

run: $(VENV)/ok
	$(BIN)/agentload run

# JOBS tests at once. Two, however many cores there are: many of them start servers, and much that waits on a clock.
JOBS ?= 2
test: $(VENV)/ok interpreted
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

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

.PHONY: crash
# A run's processes killed at random moments, a hundred times each, and faults under load: half an hour on two quiet cores;
# writes docs/crashes.md.
crash: $(VENV)/ok
	$(BIN)/python -m tests.crashes --each 100 --page docs/crashes.md

.PHONY: pythons
# The same seed on every Python from 3.11 to 3.14 that is here: the same sessions.
pythons: $(VENV)/ok
	$(BIN)/python -m tests.pythons

.PHONY: validation
# What the simulated cluster is worth, into docs/validation.md: 20 minutes on a quiet machine, since two of its sections take
# real time. `make validation ONLY="anchors heldout stepping cliff storm"` makes the others, in two minutes of any machine.
validation: $(VENV)/ok
	$(BIN)/python -m benchmarks.validation $(if $(ONLY),--only $(ONLY))

.PHONY: compiled interpreted
# Simulations as machine code, in place, where there is a C compiler: a call takes a third of the CPU. Then its tests.
COMPILED := tests/test_box_*.py tests/test_simulate.py tests/test_shards.py tests/test_chains.py tests/test_archetypes.py \
	tests/test_draws.py tests/test_joins.py
compiled: $(VENV)/ok interpreted
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir dist .
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(COMPILED)

# And back, as `make test` goes: what is tested is the source.
interpreted:
	rm -f *.so agents/*.so agentload/*.so agentload/box/*.so

.PHONY: soak
# Half an hour and two million calls or more, which nothing may grow with; writes docs/soak.md and its chart.
soak: $(VENV)/ok
	$(BIN)/python -m benchmarks.soak --page docs

# Everything at the versions of requirements.lock, as the files whose hashes stand there, then this project itself.
$(VENV)/ok: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Versions that fit pyproject.toml, written down for CI with the hashes of all their files: one lock for every Python.
# Those that stand there stay where they fit; `make lock UPGRADE=--upgrade` takes the newest.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet pip-tools
	$(VENV)-lock/bin/pip-compile --quiet $(UPGRADE) --generate-hashes --allow-unsafe --extra dev --extra docs --extra otel --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--no-header --output-file requirements.lock pyproject.toml
	rm -rf $(VENV)-lock

# Files of strangers, many: FUZZ is how many for each kind. Says how many there were; bounded to an hour.
FUZZ ?= 5000
fuzz: $(VENV)/ok
	FUZZ=$(FUZZ) timeout 3600 $(BIN)/python -m pytest --quiet --capture=no tests/test_hostile_files.py

# What is known to be wrong with the versions in requirements.lock. Says so, and passes, where nobody can be asked.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit || echo "audit: pip-audit cannot be had here"
	$(PYTHON) -m release.audit $(VENV)-audit/bin/pip-audit requirements.lock
	rm -rf $(VENV)-audit

# What is released: sdist and wheel of the last commit, the same bytes whoever makes them, with a list of what they need.
dist: $(VENV)/ok
	$(BIN)/python -m release.dist dist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
