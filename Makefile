# Two commands: `make run` and `make test`. Needs Python 3.11 and make, on Linux or macOS; everything else lands in .venv.
.DEFAULT_GOAL := help
.PHONY: help run test test-backends lab app notebooks lint clean

# the first of these that is Python 3.11; or say which: make run PYTHON=/path/to/python3.11
IS_311 := 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3 python; do if $$p -c $(IS_311) 2>/dev/null; then echo $$p; break; fi; done)
PROFILE ?= quick
DATA ?=
WEIGHTS ?=
OUT ?=
EXTRAS ?=
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready$(EXTRAS:%=-%)
RUN_OPTIONS = --profile $(PROFILE) $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(OUT),--out "$(OUT)") $(ARGS)

# with ARGS such as "-k word" one of the two parts may hold no test that was asked for, which pytest ends with 5
NONE_CHOSEN = $(if $(ARGS),|| test $$? -eq 5)

help:  ## this list
	@echo "Usage: make TARGET [NAME=value ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  PYTHON   the Python 3.11 that .venv is made with          (now: $(or $(PYTHON),none found))"
	@echo "  PROFILE  run: quick, cpu, paper or gpu                    (now: $(PROFILE))"
	@echo "  DATA     run: phantom, or a folder or zip of patches      (by default the profile's)"
	@echo "  WEIGHTS  run: imagenet, none, or a file                   (by default the profile's)"
	@echo "  OUT      run: the run's folder                            (by default runs/PROFILE)"
	@echo "  EXTRAS   gpu installs TensorFlow's CUDA libraries as well (Linux and WSL2)"
	@echo "  ARGS     run, test, app: any further options, such as ARGS=--resume"

run: $(READY)  ## run the seven notebooks; the figures and a table of metrics at the end
	$(BIN)/python -m bhi_utils run $(RUN_OPTIONS)

test: $(READY)  ## run all tests, the notebooks and the app among them
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=15 tests $(ARGS) $(NONE_CHOSEN)
# one after another: each notebook of the walk builds on what the one before it has left
	$(BIN)/python -m pytest -q --durations=5 notebooks $(ARGS) $(NONE_CHOSEN)

test-backends: $(READY)  ## install PyTorch, and test training and prediction on every Keras backend
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[backends]"
	$(BIN)/python -m pytest -q --durations=15 tests/unit/test_backends.py $(ARGS)

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/python -m jupyter lab notebooks

app: $(READY)  ## start the app with the packaged model, or ARGS="--model RUN"
	$(BIN)/python -m bhi_utils app $(ARGS)

notebooks: $(READY)  ## run the notebooks with their defaults and keep their clean outputs
	$(BIN)/python -m bhi_utils notebooks

lint: $(READY)  ## check style and format of code and notebooks
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

clean:  ## remove .venv and caches; never data or runs
	rm -rf .venv .requirements.txt .pytest_cache .ruff_cache *.egg-info build dist
	find bhi_utils tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# the pip list of environment.yml, word for word; pip reads the constraints that it names
.requirements.txt: environment.yml
	sed -n 's/^      - //p' environment.yml > $@

$(READY): .requirements.txt environment.yml pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c $(IS_311); then \
		echo "Python 3.11 was not found: install it, or say where it is with make PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv .venv; } || \
		{ rm -rf .venv; echo "Python could not make .venv: on Debian and Ubuntu, install python3.11-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check -r .requirements.txt
	$(if $(EXTRAS),$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]")
	@touch $@
