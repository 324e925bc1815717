# Everything runs in a virtual environment that `setup` builds from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What ours is timed beside, apart from it. PyTorch for CUDA is large and not used here:
# PEERS_PIP_FLAGS='--index-url ...' names an index that has it for CPUs alone.
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready
PEERS_PIP_FLAGS ?=

# What builds the site.
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready

.PHONY: setup demo test test-all bench bench-compare bench-peers docs fuzz torture lint lock clean

setup: $(READY)

$(READY): requirements.lock setup.py
	$(PYTHON) -c 'import sys; sys.exit("o2ojax needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

# IQL, offline then online, four seeds at once, on the data in the package.
demo: setup
	$(BIN)/python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo
	@echo "the picture: runs/demo/curves.png"

test: setup
	$(BIN)/python -m pytest -q -n 2 -m "not slow" tests

# Also what slow tests hold, and what runs hold as XLA compiles them for users.
test-all: setup
	$(BIN)/python -m pytest -q -n 2 tests
	XLA_FLAGS= $(BIN)/python -m pytest -q -n 2 tests/run tests/experiments/test_run.py tests/test_networks.py

bench: setup
	$(BIN)/python -m benchmarks.bench

# What is slower than it was: make bench-compare OLD=a.json NEW=b.json
bench-compare: setup
	$(BIN)/python -m benchmarks.compare $(OLD) $(NEW)

bench-peers: setup $(PEERS_READY)
	$(BIN)/python -m benchmarks.peers

# PyTorch first and by itself, so that the flags are for it alone.
$(PEERS_READY): benchmarks/peers.lock
	started=$$(date +%s) && \
	$(PYTHON) -m venv --clear $(PEERS) && \
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PEERS_PIP_FLAGS) $$(grep '^torch==' $<) && \
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $< && \
	echo $$(($$(date +%s) - started)) > $(PEERS)/.seconds
	touch $@

# The site, into build/docs, by tools of their own. Nothing is fetched to build or to read it.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "the site: build/docs/index.html; with a search: python -m http.server -d build/docs"

$(DOCS_READY): docs.lock
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Damaged files, odd configs, broken runs and environments that misbehave, each for so
# many seconds; and runs that are killed at random moments, and must end as if they had
# not been.
FUZZ_SECONDS ?= 600
KILLS ?= 200

fuzz: setup
	$(BIN)/python -m tests.fuzz all --seconds=$(FUZZ_SECONDS)

torture: setup
	$(BIN)/python -m tests.torture --kills=$(KILLS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Resolves setup.py anew, for Python 3.11 and later.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile setup.py --extra dev --extra minari --extra warp \
	  --extra robotics --extra ogbench --extra dm-control --universal --python-version 3.11 \
	  --fork-strategy fewest --no-emit-index-url --no-annotate --no-header \
	  -o requirements.lock

clean:
	rm -rf $(VENV) $(PEERS) $(DOCS) .cache build *.egg-info
