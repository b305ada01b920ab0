# Everything here is a few words around `python tools/...`; without make, call those directly.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help lab test test-all notebooks site bench clinic-bench matrix links

help:
	@echo "make lab                     open JupyterLab on your own copy of the notebooks"
	@echo "make test                    ruff, unit and structure tests, notebooks on the embedded images"
	@echo "make test-all                that, then companions, the slow tests, the web site and the browser tests"
	@echo "make notebooks [NB='00 01']  run notebooks on the real images, write outputs and figures back"
	@echo "make site                    the web site, in build/site"
	@echo "make bench                   time the package against the usual training loop"
	@echo "make clinic-bench            how often the check-up is right, on public VAEs and faults put into them"
	@echo "make matrix [ROWS=oldest]    every notebook on several Pythons, with current and oldest libraries"
	@echo "make links [REPO=owner/name] stamp every link with this repository's address"
	@echo "The first of them sets up $(VENV) (PYTHON=... picks the Python, 3.11 or newer)."

lab: $(VENV)/.lab-installed
	@$(RUN) tools/lab.py

test: $(VENV)/.test-installed
	@$(RUN) tools/check.py

test-all: $(VENV)/.test-installed
	@$(RUN) tools/check.py --all

notebooks: $(VENV)/.test-installed
	@$(RUN) tools/notebooks.py $(NB)

site: $(VENV)/.docs-installed
	@$(RUN) tools/website.py

bench: $(VENV)/.test-installed
	@$(RUN) tools/bench.py

clinic-bench: $(VENV)/.benchmark-installed
	@$(RUN) tests/benchmark/run.py

matrix: $(VENV)/.matrix-installed
	@$(RUN) tools/matrix.py $(NB) $(if $(ROWS),--only $(ROWS))

# Needs no .venv. REPO reaches the tool by the environment, so neither make nor a shell reads it.
ifdef REPO
override export REPO := $(value REPO)
endif
links:
	@$(PYTHON) tools/links.py

$(VENV)/.lab-installed: EXTRAS := lab
$(VENV)/.test-installed: EXTRAS := lab,test,docs
$(VENV)/.docs-installed: EXTRAS := docs
$(VENV)/.matrix-installed: EXTRAS := lab,test,docs,matrix
$(VENV)/.benchmark-installed: EXTRAS := lab,test,docs,benchmark

$(VENV)/.lab-installed $(VENV)/.test-installed $(VENV)/.docs-installed $(VENV)/.matrix-installed $(VENV)/.benchmark-installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "vaelab needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); } || \
	    { echo "no virtual environment could be made (on Debian or Ubuntu: apt install python3-venv)"; exit 1; }
	@$(RUN) -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))' || \
	    echo "first install: about 3 minutes, 6 GB with the registry's CUDA build"
	@echo "installing vaelab[$(EXTRAS)] into $(VENV)"
	@quiet=--quiet; [ -t 1 ] && quiet=; $(RUN) -m pip install $$quiet --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@ $(if $(findstring test,$(EXTRAS)),$(addprefix $(VENV)/,.lab-installed .docs-installed .test-installed))
