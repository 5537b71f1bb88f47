# Two commands: `make run` and `make test`. Needs Python 3.11, 3.12 or 3.13 and make, on Linux or macOS; everything else lands in .venv.
.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-backends lab app notebooks lint clean

# Each Python is tried by running it: a command may be there that only fails, as pyenv's do, while pyenv's folder holds the very version.
# The newest supported one is taken that can also make a .venv; or say which: make run PYTHON=/path/to/python3
NEEDED := Python 3.11, 3.12 or 3.13
SUPPORTED := 3\.1[123]
PYENV := $(or $(PYENV_ROOT),$(shell pyenv root 2>/dev/null),$(HOME)/.pyenv)
PROBE := 'import importlib.util as u, sys; print("%d.%d" % sys.version_info[:2], "bare" if None in map(u.find_spec, ("venv", "ensurepip")) else "whole", sys.executable)'
# asked for once, and only where it is needed
FOUND = $(eval FOUND := $$(shell for p in python3.13 python3.12 python3.11 python3 python $(PYENV)/versions/3.1[123]*/bin/python; do \
	"$$$$p" -c $(PROBE) 2>/dev/null; done | sort -u -k2,2r -k1,1r -k3 | tr '\n' ';'))$(FOUND)
PYTHON ?= $(shell echo '$(FOUND)' | tr ';' '\n' | sed -n 's/^$(SUPPORTED) [a-z]* //p' | head -n 1)
PROFILE ?= quick
DATA ?=
WEIGHTS ?=
OUT ?=
EXTRAS ?=
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
READY := .venv/.ready$(EXTRAS:%=-%)
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20
RUN_OPTIONS = --profile $(PROFILE) $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(OUT),--out "$(OUT)") $(ARGS)

# with ARGS such as "-k word" one of the two parts may hold no test that was asked for, which pytest ends with 5
NONE_CHOSEN = $(if $(ARGS),|| test $$? -eq 5)

help:  ## this list
	@echo "Usage: make TARGET [NAME=value ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  PYTHON   the Python that .venv is made with               (now: $(or $(PYTHON),none found))"
	@echo "  PROFILE  run: quick, cpu, paper or gpu                    (now: $(PROFILE))"
	@echo "  DATA     run: phantom, or a folder or zip of patches      (by default the profile's)"
	@echo "  WEIGHTS  run: imagenet, none, or a file                   (by default the profile's)"
	@echo "  OUT      run: the run's folder                            (by default runs/PROFILE)"
	@echo "  EXTRAS   gpu installs TensorFlow's CUDA libraries as well (Linux and WSL2)"
	@echo "  ARGS     run, test, test-slow, app: any further options, such as ARGS=--resume"

run: $(READY)  ## run the seven notebooks; the figures and a table of metrics at the end
	$(BIN)/python -m bhi_utils run $(RUN_OPTIONS)

# the walk runs once, in tests/notebooks; whole files go to a worker, those that take longest first (tests/conftest.py)
test: $(READY) .venv/.ready-test  ## run the tests that matter most: every part, the walk and the app among them
	$(PYTEST) -m "not slow" tests notebooks/studies $(ARGS)

test-slow: $(READY) .venv/.ready-test  ## run the other tests, and every notebook of the walk as nbval does
	$(PYTEST) -m slow tests $(ARGS) $(NONE_CHOSEN)
# one after another: each notebook of the walk builds on what the one before it has left
	$(BIN)/python -m pytest -q --durations=5 --nbval-lax --ignore notebooks/studies notebooks $(ARGS) $(NONE_CHOSEN)

test-backends: .venv/.ready-test .venv/.ready-backends  ## install PyTorch, and test training and prediction on every Keras backend
	$(BIN)/python -m pytest -q --durations=15 tests/project/test_backends.py $(ARGS)

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/python -m jupyter lab notebooks

app: $(READY)  ## start the app with the packaged model, or ARGS="--model RUN"
	$(BIN)/python -m bhi_utils app $(ARGS)

notebooks: $(READY)  ## run the notebooks with their defaults and keep their clean outputs
	$(BIN)/python -m bhi_utils notebooks

lint: .venv/.ready-test  ## check style and format of code and notebooks, and the package's types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:  ## remove .venv and caches; never data or runs
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist
	find bhi_utils tests notebooks -name __pycache__ -prune -exec rm -rf {} +

.venv/.ready: pyproject.toml constraints.txt
	@if ! "$(PYTHON)" -c $(PROBE) 2>/dev/null | grep -q '^$(SUPPORTED) '; then \
		echo "$(NEEDED) was not found (tried: $(or $(if $(filter-out file,$(origin PYTHON)),$(PYTHON),$(FOUND)),nothing runs)). Install one, or say where it is: make run PYTHON=/path/to/python3" >&2; exit 2; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; "$(PYTHON)" -m venv .venv; } || \
		{ rm -rf .venv; echo "$(PYTHON) could not make .venv: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 2; }
	$(PIP) -e .
	@touch $@

# what an extra of pyproject.toml adds: test, backends or gpu
.venv/.ready-%: .venv/.ready
	$(PIP) -e ".[$*]"
	@touch $@
