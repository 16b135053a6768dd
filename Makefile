# Two commands do everything: `make demo` and `make test`. A target that needs the environment makes it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo app test tests check oracles round-trips audit mutations bench check-fresh

demo: $(VENV)/.installed ## set up, train on the bundled corpus, open the dashboard
	$(PY) -m carto_core demo $(ARGS)

app: $(VENV)/.installed ## open the dashboard on the runs that are there
	$(PY) -m carto_core open $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, direction of imports
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright

test: $(VENV)/.installed-dev ## everything that CI runs: `check` beside the tests, which wait for browsers and other processes now and then
	@$(MAKE) --no-print-directory --jobs=2 check tests

tests: export PYTHONDONTWRITEBYTECODE =# the tests start some hundred processes; each would compile our modules anew
tests: $(VENV)/.installed-dev
	$(PY) -m pytest -n $$($(PY) -c "import os; print(os.cpu_count() + 1)") --dist loadfile $(ARGS)

oracles: $(VENV)/oracles/.installed ## compare our formulas with other people's programs
	CARTO_ORACLES=required PYTHONPATH=$(VENV)/oracles $(PY) -m pytest tests/oracles $(ARGS)

round-trips: $(VENV)/round-trips/.installed ## apply what plans leave in with the tools that it is for
	CARTO_ROUND_TRIPS=required PYTHONPATH=$(VENV)/round-trips $(PY) -m pytest tests/round_trips $(ARGS)

audit: $(VENV)/audit/.installed ## ask whether a package that we install has a known vulnerability
	$(PY) .ci/audit_dependencies.py $(VENV)/audit/bin/pip-audit "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

mutations: $(VENV)/mutations/.installed ## make wrong programs of the modules whose numbers matter and see which the tests notice
	$(PY) -m benchmarks.mutations $(ARGS)

bench: $(VENV)/.installed-dev ## print every figure of the README anew
	$(PY) -m benchmarks.run_all

check-fresh: ## clone into a temporary folder, without any environment, and run demo and test there
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	git clone --quiet . "$$folder/clone" && cd "$$folder/clone" && \
	$(MAKE) demo ARGS=--no-open && $(MAKE) test

$(VENV)/.installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/.installed

$(VENV)/audit/.installed: | $(VENV)/.installed-dev
	$(PY) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
	touch $@

$(VENV)/oracles/.installed: requirements-oracles.txt | $(VENV)/.installed-dev
	rm -rf $(VENV)/oracles
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/oracles -r requirements-oracles.txt
	touch $@

$(VENV)/round-trips/.installed: requirements-round-trips.txt | $(VENV)/.installed-dev
	rm -rf $(VENV)/round-trips
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/round-trips -r requirements-round-trips.txt
	touch $@

$(VENV)/mutations/.installed: requirements-mutations.txt | $(VENV)/.installed-dev
	rm -rf $(VENV)/mutations
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/mutations -r requirements-mutations.txt
	touch $@
