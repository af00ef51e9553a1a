# Builds, checks and shows build-oci: a table of contents over tools/, where each script says what it does. Every goal makes what it needs, on
# a fresh machine too; `make help` lists them.
#
# Tests run on the installed wheel, never on the checkout: the wheel is what users get, and one wheel must serve every
# CPython from 3.11 on. `.venv` has it with everything else, `.venv-3.12` and so on only with pytest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs sanitize fuzz tsan test-buildstream test-composefs test-packaging test-aarch64 test-musl wheel clients clean

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Keeps the checkout off sys.path: `python -m build_oci` here means the installed package.
export PYTHONSAFEPATH := 1
unexport PYTHONPATH PYTHONHOME

# With the directories, whose times change when a file in them goes.
SOURCES := pyproject.toml setup.py MANIFEST.in $(wildcard README.md LICENSE) \
	$(shell find build_oci -name __pycache__ -prune -o ! -name '*.so' -print)

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/.package ## build a real image of this Python environment into demo-image/
	@tools/demo

test: lint clients ## every check: lint, types, and pytest on each CPython >= 3.11 that is here
	@tools/test

lint: .venv/.tools ## ruff, cython-lint, clang-format, warnings of the C compiler, mypy --strict, the stubs and the pages
	@tools/lint

docs: .venv/.tools ## the pages as a web site, in build/site
	@.venv/bin/mkdocs build --quiet
	@echo 'look at build/site/index.html'

test-buildstream: .venv/.tools ## the BuildStream element, built locally and through remote execution; needs bubblewrap and FUSE
	@tools/test-buildstream

test-composefs: .venv/.tools clients ## composefs digests of images and of directories, held equal; needs cfsctl, or cargo to build it
	@tools/test-composefs $(TREES)

test-packaging: .venv/.tools ## the sketches of an rpm and a deb, built as far as their tools are here
	@tools/test-packaging

test-aarch64: .venv/.tools ## wheel, native tests and images on AArch64, emulated by qemu; needs root
	@tests/elsewhere/emulated.sh .venv/bin/python

test-musl: .venv/.tools ## the same on musl
	@tests/elsewhere/musl.sh .venv/bin/python

bench: .venv/.tools ## the benchmarks, on the installed wheel
	@.venv/bin/pytest benchmarks --benchmark-enable --benchmark-only

sanitize: build/sanitize/.package ## the tests on extensions under ASan and UBSan, whose every finding is an end
	@tools/sanitize test

fuzz: .venv/.tools ## MINUTES (10) of fuzzing: archives, deflate and zstd streams, trees, round trips, documents, parents; needs clang and zlib.h
	@tools/fuzz $(or $(MINUTES),10)

tsan: ## the threads of the kernels under ThreadSanitizer; needs clang
	@tools/tsan $(TREE)

wheel: dist/.built ## one abi3 wheel into dist/
	@ls dist/*.whl

clients: # the programs of Debian that the tests want: as root installs what is missing, otherwise names it
	@tools/clients

clean: ## away with everything that was made here
	@rm -rf .venv .venv-* build dist demo-image *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find build_oci tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} + -o -name '*.so' -exec rm -f {} +

.venv/bin/python:
	@tools/venv $(PYTHON)

dist/.built: $(SOURCES) | .venv/bin/python
	@echo "building the wheel"
	@rm -rf build/lib* build/bdist* dist  # setuptools would pack what an earlier source left there
	@.venv/bin/pip wheel --quiet --no-deps --wheel-dir dist .
	@touch $@

.venv/.package: dist/.built
	@echo "installing the wheel into .venv"
	@tools/install .venv
	@touch $@

.venv/.tools: .venv/.package
	@echo "installing the tools into .venv"
	@.venv/bin/pip install --quiet "$$(ls ./dist/*.whl)[dev]"
	@touch $@

build/sanitize/.package: $(SOURCES) | .venv/bin/python
	@tools/sanitize build
	@touch $@
