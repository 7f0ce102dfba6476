# make demo   set up .venv and compare MRA attention with exact attention on real text
# make bench  set up .venv, measure what takes less than ten minutes, and write report/
# make bench-full  the same with every length and budget
# make test   set up .venv, lint, check types, run the tests
# make docs   build the documentation as a site, to be opened in site/index.html
# make wheel  build a wheel for this platform in dist/, with the compiled attention, and its sources
# make dist   the same, a wheel for any platform too, and all of them checked as they are for a release
# make test-oldest  the tests with the oldest versions of other libraries that are accepted
# make clean  remove .venv, .venv-oldest and everything that was built

# The first of these that is Python 3.11 or later; `make PYTHON=...` takes any other.
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := constraints.txt
INSTALL := $(PIP) install -c $(CONSTRAINTS) --no-build-isolation
SETUP := pyproject.toml setup.py $(wildcard ops/native/source/*) $(CONSTRAINTS)
MEASURE := mkdir -p report && $(BIN)/python -m pytest benchmarks --ignore=benchmarks/gpu \
	--benchmark-json report/results.json
# Kernels, compiled and then interpreted, and the operators: on a core of their own beside all other
# tests.
OPERATORS := { $(BIN)/python -m pytest tests/kernels tests/ops && \
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m interpreter tests/kernels; }

.PHONY: demo bench bench-full test test-oldest docs wheel dist clean

demo: $(VENV)/.demo
	$(BIN)/mra compare

bench: $(VENV)/.bench
	$(MEASURE)
	$(BIN)/mra report report/results.json --out report

bench-full: $(VENV)/.bench
	$(MEASURE) --full
	$(BIN)/mra report report/results.json --out report

test: $(VENV)/.test $(VENV)/typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV)/typecheck && ../bin/mypy --config-file ../../pyproject.toml -p mra_plugin
	@$(OPERATORS) > $(VENV)/operators.log 2>&1 & operators=$$!; \
	$(BIN)/python -m pytest --ignore=tests/kernels --ignore=tests/ops; rest=$$?; \
	wait $$operators; operators=$$?; cat $(VENV)/operators.log; exit $$((rest | operators))

# In a .venv of its own. torch is not the oldest, as constraints-oldest.txt explains, nor is triton.
test-oldest:
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt .venv-oldest/.test
	.venv-oldest/bin/python -m pytest -p no:cacheprovider \
		--ignore=tests/kernels --ignore=tests/benchmarks

# Docstrings are read from a plain installation, as types are.
docs: $(VENV)/.docs $(VENV)/typecheck
	$(BIN)/python -m mkdocs build --quiet
	$(BIN)/python docs/site/check.py site

wheel: $(VENV)/.test
	$(BIN)/python -m build --no-isolation --outdir dist .
	rm -rf build

# The second wheel has no compiled code: PyTorch computes what that would.
dist: $(VENV)/.release
	rm -rf dist build
	$(MAKE) wheel
	MRA_NATIVE=0 $(BIN)/python -m build --no-isolation --wheel --outdir dist .
	rm -rf build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .ci/check_wheels.py dist

clean:
	rm -rf $(VENV) .venv-oldest build dist site *.egg-info ops/native/libmra.so

# torch comes first and alone, in the exact version: a package that accepts any torch, asked for
# first, would fetch gigabytes that the next step throws away.
$(VENV)/.base: $(SETUP)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $$(grep -E '^(torch|setuptools)==' $(CONSTRAINTS))
	touch $@

$(VENV)/.demo: $(VENV)/.base
	$(INSTALL) -e '.[demo]'
	touch $@

$(VENV)/.bench: $(VENV)/.base
	$(INSTALL) -e '.[bench]'
	touch $@

$(VENV)/.release: $(VENV)/.test
	$(INSTALL) -e '.[release]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(INSTALL) -e '.[docs]'
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(INSTALL) -e '.[test]'
	touch $@

# mypy can't follow the package-dir mapping of pyproject.toml in the source tree, so it checks a
# plain installation, made anew each time: setuptools would keep deleted modules in build/. It needs
# no compiled code.
.PHONY: $(VENV)/typecheck
$(VENV)/typecheck: $(VENV)/.test
	rm -rf build $@
	MRA_NATIVE=0 $(PIP) install --quiet --no-deps --no-build-isolation --target $@ .
	rm -rf build
