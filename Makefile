# Everything a newcomer needs, one line each: `make help`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
# The checks have an environment of their own, without PyTorch and ROS: .pre-commit-config.yaml names it.
LINT   := .venv-lint
# Readers of what is installed have one, too.
SUPPLY := .venv-supply
# PyTorch is only needed to test, train and export. Any CPU or CUDA build from 2.13 on will do.
TORCH  ?= torch==2.13.0
SOURCES := $(shell find dense_perception launch config models resource -type f -not -name '*.pyc' 2>/dev/null)

# A virtual environment in folder $(1).
define make_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "Python 3.10 or later is needed, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(1) \
	  || { rm -rf $(1); echo "No virtual environment could be made: sudo apt install python3-venv"; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-durations fuzz lint types hooks format build docs bounds sbom audit licences corpus train clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Play a small bag through depth_node in real ROS 2 processes, show the answers
	$(BIN)/dense-perception demo --output out/demo --overwrite

test: $(VENV)/.dev $(VENV)/.installed ## Run all tests
	$(BIN)/python .ci/run_tests.py

test-fast: $(VENV)/.dev $(VENV)/.installed ## Run the tests that are neither slow nor start ROS 2 processes
	$(BIN)/python -m pytest -m "not slow and not ros"

test-durations: $(VENV)/.dev $(VENV)/.installed ## Run all tests and list the 30 slowest
	$(BIN)/python .ci/run_tests.py --slowest 30

fuzz: $(VENV)/.dev $(VENV)/.installed ## Try hostile messages, bags, cards and images (half an hour); the tests try a few
	$(BIN)/python -m test.fuzz all

lint: $(LINT)/.installed ## Check everything that .pre-commit-config.yaml lists; needs neither PyTorch nor ROS
	$(LINT)/bin/pre-commit run --all-files

# With a cache of its own: what is known of PyTorch's types differs from lint's, which may run beside it.
types: $(VENV)/.dev ## Check types with those of PyTorch and ROS, too
	$(BIN)/python -m mypy --cache-dir .mypy_cache/types

hooks: $(LINT)/.installed ## Run the checks of `make lint` before each commit from now on
	$(LINT)/bin/pre-commit install

format: $(LINT)/.installed ## Format the code and fix what can be fixed
	$(LINT)/bin/ruff format . && $(LINT)/bin/ruff check --fix .

build: $(VENV)/.dev ## Build the package with colcon into build/ and install/
	$(BIN)/colcon build --packages-select dense_perception

docs: $(VENV)/.demo ## Write docs/nodes, docs/commands.md and config/*_node.yaml from the code
	$(BIN)/python -m dense_perception.commands.reference

bounds: $(SUPPLY)/.installed ## Install the lowest and the newest versions that setup.py allows, run the tests with each
	./.ci/bounds lowest
	./.ci/bounds newest

sbom: $(VENV)/.demo $(SUPPLY)/.installed ## Write dist/sbom.cdx.json: all that is installed in VENV, as CycloneDX
	@mkdir -p dist
	$(SUPPLY)/bin/cyclonedx-py environment --output-reproducible --output-file dist/sbom.cdx.json $(BIN)/python
	@echo "Wrote dist/sbom.cdx.json"

audit: $(SUPPLY)/.installed ## Ask PyPI for known weaknesses of what setup.py resolves to now; fails if PyPI cannot say
	@mkdir -p dist
	$(SUPPLY)/bin/uv pip compile -q setup.py $(addprefix --extra ,ros openvino fetch export train synthetic) \
	  --no-header --no-annotate --generate-hashes --output-file dist/audited.txt
	$(SUPPLY)/bin/pip-audit --strict --disable-pip --progress-spinner off -r dist/audited.txt

licences: $(VENV)/.dev ## Print the licences of what is installed; fails at one that nobody has looked at
	$(BIN)/python .ci/licences.py

corpus: $(VENV)/.train ## Generate the training rooms (installs rendering packages with apt)
	./docker/install_rendering.sh
	$(BIN)/dense-perception data synthesize rooms --out corpora/rooms --frames 12000 --seed 1
	$(BIN)/dense-perception data synthesize rooms --out corpora/rooms_val --frames 600 --seed 9001 --split val

train: $(VENV)/.train ## Train the default model on the generated rooms
	$(BIN)/dense-perception train config/training/dpt_tiny_indoor.yaml \
	  --data corpora/rooms --validation corpora/rooms_val --out runs/tiny --minutes 60 --resume

clean: ## Remove the environment and everything built
	rm -rf $(VENV) $(LINT) $(SUPPLY) .venv-bounds build install log dist out *.egg-info

$(BIN)/python:
	$(call make_environment,$(VENV))
	$(PIP) install --upgrade pip

$(LINT)/.installed: .ci/lint-requirements.txt
	@echo "Installing the checks' tools (about 200 MB, once)"
	@rm -rf $(LINT)
	$(call make_environment,$(LINT))
	$(LINT)/bin/python -m pip --disable-pip-version-check -q install -r .ci/lint-requirements.txt
	@touch $@

$(SUPPLY)/.installed: .ci/supply-requirements.txt
	@rm -rf $(SUPPLY)
	$(call make_environment,$(SUPPLY))
	$(SUPPLY)/bin/python -m pip --disable-pip-version-check -q install -r .ci/supply-requirements.txt
	@touch $@

# Each of these two installs the package, too; the stamp of that is from before pip copied the sources.
$(VENV)/.demo: setup.py | $(BIN)/python
	@echo "Installing the runtime and the ROS 2 wheels (about 700 MB, once)"
	@touch $(VENV)/.begun
	$(PIP) install '.[ros,openvino]'
	@touch -r $(VENV)/.begun $(VENV)/.installed
	@touch $@

# All in one call: pip resolves and builds once. Bytecode of what the tests import comes by itself. The tracker comes
# without what it asks for: opencv-python would write over the files of opencv-python-headless.
$(VENV)/.dev: setup.py | $(BIN)/python
	@echo "Installing the runtime, the ROS 2 wheels and what the tests need (PyTorch among it, once)"
	@touch $(VENV)/.begun
	$(PIP) install --no-compile '$(TORCH)' \
	  '.[ros,openvino,tensorrt_rtx,fetch,export,train,synthetic,dev]'
	$(PIP) install --no-compile --no-deps 'trackers>=2.6,<3' 'supervision>=0.31,<1'
	@touch -r $(VENV)/.begun $(VENV)/.installed
	@touch $(VENV)/.demo $@

$(VENV)/.train: setup.py | $(BIN)/python
	$(PIP) install '$(TORCH)'
	$(PIP) install '.[openvino,export,train,synthetic]'
	@touch $@

# The share/ folder (models, launch, config) exists only in a real install, so it follows the sources.
# Make looks for this file before the environment is made, which may have installed the package.
$(VENV)/.installed: $(SOURCES) | $(VENV)/.demo
	@[ -e $@ ] && [ -z "$$(find $(SOURCES) -newer $@)" ] || { touch $(VENV)/.begun \
	  && $(PIP) install --no-deps --force-reinstall . && touch -r $(VENV)/.begun $@; }
