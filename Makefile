# Builds, checks and shows build-oci. Every goal makes what it needs, on a fresh machine too; `make help` lists them.
#
# Tests run on the installed wheel, never on the checkout: the wheel is what users get, and one wheel must serve every
# CPython from 3.11 on. `.venv` has it with everything else, `.venv-3.12` and so on only with pytest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench fuzz wheel clients clean

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Keeps the checkout off sys.path: `python -m build_oci` here means the installed package.
export PYTHONSAFEPATH := 1
unexport PYTHONPATH PYTHONHOME

# Interpreters that can make a venv and build an extension, one for each minor version, as VERSION=PATH. They are
# found by running them: a version manager may put a name on the PATH that has nothing behind it.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 $(wildcard $(HOME)/.pyenv/versions/3.*/bin/python)
PROBE := import ensurepip, os, sys, sysconfig; \
	fit = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED"); \
	fit and os.path.exists(sysconfig.get_path("include") + "/Python.h") and print("%d.%d=%s" % (*sys.version_info[:2], sys.executable))
FIND := for python in $(CANDIDATES); do "$$python" -c '$(PROBE)' 2> /dev/null || true; done | sort -s -u -t= -k1,1V
INTERPRETERS = $(shell $(FIND))
PYTHON ?= $(lastword $(subst =, ,$(firstword $(INTERPRETERS))))

# With the directories, whose times tell of files that have gone.
SOURCES := pyproject.toml setup.py MANIFEST.in $(wildcard README.md LICENSE) \
	$(shell find build_oci -name __pycache__ -prune -o ! -name '*.so' -print)
# The real clients of the tests, as COMMAND=PACKAGE of Debian.
CLIENTS := skopeo=skopeo umoci=umoci buildah=buildah debootstrap=debootstrap fakeroot=fakeroot zstd=zstd setfattr=attr setcap=libcap2-bin

# $(call apt_get,PACKAGES): those of them that can be had without asking anybody. Silent; the caller looks at what is there.
define apt_get
get() { DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq -o DPkg::Lock::Timeout=60 "$$@" < /dev/null > /dev/null 2>&1; }
if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
	get update || true
	get install -y $(1) || for package in $(1); do get install -y "$$package" || true; done
fi
endef

# $(call install,VENV,EXTRAS): the wheel over whatever the venv has of this version, and its dependencies.
define install
$(1)/bin/pip install --quiet "$$(ls ./dist/*.whl)$(2)"
$(1)/bin/pip install --quiet --no-deps --force-reinstall ./dist/*.whl
endef

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# What `make demo` prints of the layout in demo-image/.
define SHOW
import hashlib, json, pathlib
layout = pathlib.Path("demo-image")
index = (layout / "index.json").read_bytes()
print("index     sha256:" + hashlib.sha256(index).hexdigest())
for image in json.loads(index)["manifests"]:
    print("manifest ", image["digest"])
    for layer in json.loads((layout / "blobs" / image["digest"].replace(":", "/")).read_bytes())["layers"]:
        print("layer    ", layer["digest"], "%.1f MB" % (layer["size"] / 1e6), layer["mediaType"])
endef
export SHOW

demo: .venv/.package ## build a real image of this Python environment into demo-image/
	@rm -rf demo-image
	case "$$(uname -m)" in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch="$$(uname -m)" ;; esac
	# No bytecode written meanwhile: a tree that changes while it is packed fails the build.
	PYTHONDONTWRITEBYTECODE=1 .venv/bin/build-oci -v -o demo-image \
		<<< "{compression: zstd, images: [{architecture: $$arch, os: linux, layer: .venv, comment: make demo}]}"
	.venv/bin/python -c "$$SHOW"
	echo 'load it:  skopeo copy oci:demo-image containers-storage:localhost/build-oci-demo'
	echo '     or:  podman pull oci:demo-image'

test: lint clients ## every check: lint, types, and pytest on each CPython >= 3.11 that is here
	@own="$$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
	others=
	for found in $(INTERPRETERS); do
		version="$${found%%=*}" venv=".venv-$${found%%=*}"
		[ "$$version" != "$$own" ] || continue
		if [ ! "$$venv/.package" -nt dist/.built ]; then
			echo "installing the wheel into $$venv"
			"$$venv/bin/python" -c '' 2> /dev/null || "$${found#*=}" -m venv --clear "$$venv"
			echo '*' > "$$venv/.gitignore"
			$(call install,"$$venv",[test])
			touch "$$venv/.package"
		fi
		echo "pytest on CPython $$version, without the clients"
		"$$venv/bin/pytest" --quiet -m 'not clients and not slow'
		others+=":$(CURDIR)/$$venv/bin/python"
	done
	echo "pytest on CPython $$own"
	BUILD_OCI_PYTHONS="$${others#:}" .venv/bin/pytest

lint: .venv/.tools ## ruff, cython-lint, mypy --strict
	@.venv/bin/ruff check --quiet
	.venv/bin/ruff format --check --quiet
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint build_oci  # it looks for pycodestyle there
	.venv/bin/mypy

bench: .venv/.tools ## the benchmarks, on the installed wheel
	@.venv/bin/pytest benchmarks --benchmark-enable --benchmark-only

FUZZED := $(addprefix build_oci/_native/kernel/,scanner.c block.c records.c arena.c tree.c sha256.c sha256_x86.c sha256_arm.c)
fuzz: ## libFuzzer on the reader of parent archives, FUZZ_SECONDS (600) long; needs clang and its runtime
	@mkdir -p build/fuzz/corpus
	clang -std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-Ibuild_oci/_native/kernel tests/fuzz_scanner.c $(FUZZED) -o build/fuzz/scanner
	build/fuzz/scanner -max_total_time=$(or $(FUZZ_SECONDS),600) -max_len=16384 -rss_limit_mb=1024 -timeout=10 \
		-artifact_prefix=build/fuzz/ build/fuzz/corpus

wheel: dist/.built ## one abi3 wheel into dist/
	@ls dist/*.whl

clients: # what the tests want of Debian, as far as it can be had
	@PATH="$$PATH:/usr/sbin:/sbin"
	lacking() { for pair in $(CLIENTS); do command -v "$${pair%=*}" > /dev/null || echo "$${pair#*=}"; done; }
	packages="$$(lacking)"
	[ -z "$$packages" ] || { $(call apt_get,$$packages); }
	packages="$$(lacking | xargs)"
	[ -z "$$packages" ] || echo "not to be had here, so their tests skip: $$packages"

dist/.built: $(SOURCES) | .venv/bin/python
	@echo "building the wheel"
	rm -rf build/lib* build/bdist* dist  # setuptools would pack what an earlier source left there
	.venv/bin/pip wheel --quiet --no-deps --wheel-dir dist .
	touch $@

.venv/bin/python:
	@python='$(PYTHON)'
	if [ -z "$$python" ]; then
		$(call apt_get,python3-venv python3-dev gcc libc6-dev)
		python="$$($(FIND) | sed -n '1s/.*=//p')"
	fi
	if [ -z "$$python" ]; then
		echo 'no CPython >= 3.11 with venv and C headers found (Debian: python3-venv python3-dev gcc); or give one: make PYTHON=...' >&2
		exit 1
	fi
	"$$python" -m venv --clear .venv

.venv/.package: dist/.built
	@echo "installing the wheel into .venv"
	$(call install,.venv)
	touch $@

.venv/.tools: .venv/.package
	@echo "installing the tools into .venv"
	.venv/bin/pip install --quiet "$$(ls ./dist/*.whl)[dev]"
	touch $@

clean: ## away with everything that was made here
	@rm -rf .venv .venv-* build dist demo-image *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find build_oci tests benchmarks -name __pycache__ -prune -exec rm -rf {} + -o -name '*.so' -exec rm -f {} +
