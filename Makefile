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
.PHONY: help demo test lint bench docs sanitize fuzz tsan test-aarch64 test-musl wheel clients clean

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
CLIENTS := skopeo=skopeo umoci=umoci buildah=buildah debootstrap=debootstrap fakeroot=fakeroot zstd=zstd docker-registry=docker-registry setfattr=attr setcap=libcap2-bin

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
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

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

lint: .venv/.tools ## ruff, cython-lint, mypy --strict, the stubs against the extensions, the pages
	@.venv/bin/ruff check --quiet
	.venv/bin/ruff format --check --quiet
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint build_oci  # it looks for pycodestyle there
	.venv/bin/mypy
	.venv/bin/python -m mypy.stubtest --allowlist tests/stubtest-allowed.txt $(patsubst build_oci/_native/%.pyx,build_oci._native.%,$(wildcard build_oci/_native/*.pyx))
	.venv/bin/mkdocs build --quiet

docs: .venv/.tools ## the pages as a web site, in build/site
	@.venv/bin/mkdocs build --quiet
	echo 'look at build/site/index.html'

test-aarch64: .venv/.tools ## wheel, native tests and images on AArch64, emulated by qemu; needs root
	@tests/emulated.sh .venv/bin/python

test-musl: .venv/.tools ## the same on musl
	@tests/musl.sh .venv/bin/python

bench: .venv/.tools ## the benchmarks, on the installed wheel
	@.venv/bin/pytest benchmarks --benchmark-enable --benchmark-only

# The kernels under the sanitizers, in a venv of their own: neither .venv nor what was built in place is touched.
SANITIZED := build/sanitize
# What cannot be run on them: a library that is preloaded before the sanitizer's own (shims that fail or change calls, fakeroot), and limits of
# memory that the sanitizer's shadow alone exceeds.
UNSANITIZED := test_changing_trees.py test_fidelity_shims.py test_signals.py $(addprefix test_faults.py::, \
	test_disk_error test_disk_error_in_parent test_disk_error_later test_disk_full test_every_call_fails test_one_image_fails \
	test_output_changes test_little_memory test_memory_of_what_does_not_shrink \
	test_memory_of_slow_levels test_memory_of_many_layers)
sanitize: $(SANITIZED)/.package ## the tests on extensions under ASan and UBSan, whose every finding is an end
	@libasan="$$(gcc -print-file-name=libasan.so)"
	[ -e "$$libasan" ] || { echo 'no libasan found (Debian: gcc, or libasan8)' >&2; exit 1; }
	# Python never gives back all that it takes, so leaks are not looked for. Its own allocator would hide what is read behind an object.
	LD_PRELOAD="$$libasan" ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		$(SANITIZED)/venv/bin/pytest --quiet -m 'not clients' $(addprefix --deselect=tests/,$(UNSANITIZED))

$(SANITIZED)/.package: $(SOURCES) | .venv/bin/python
	@echo "building with the sanitizers"
	rm -rf $(SANITIZED)/source
	mkdir -p $(SANITIZED)/source
	tar -c --exclude='*.so' --exclude=__pycache__ $(wildcard pyproject.toml setup.py MANIFEST.in README.md LICENSE build_oci) |
		tar -x -C $(SANITIZED)/source
	$(SANITIZED)/venv/bin/python -c '' 2> /dev/null || .venv/bin/python -m venv --clear $(SANITIZED)/venv
	$(SANITIZED)/venv/bin/pip uninstall --quiet --yes build-oci 2> /dev/null
	BUILD_OCI_SANITIZE=1 $(SANITIZED)/venv/bin/pip install --quiet "./$(SANITIZED)/source[test]"
	touch $@

KERNEL := build_oci/_native/kernel
CLANG := clang -std=c11 -D_GNU_SOURCE -g -O1 -fno-sanitize-recover=all $(addprefix -I$(KERNEL)/,. tree tar parent pack sha256 join)
SHA256 := $(addprefix sha256/,sha256.c sha256_avx.c sha256_x86.c sha256_arm.c)
FUZZED := $(addprefix $(KERNEL)/,tar/scanner.c tar/block.c tar/records.c arena.c tree/tree.c $(SHA256))
fuzz: .venv/.tools ## MINUTES (10) of fuzzing: archives, deflate and zstd streams, trees, round trips, documents, parents; needs clang and zlib.h
	@each=$$(( $(or $(MINUTES),10) * 60 / 7 ))
	mkdir -p build/fuzz
	PYTHONPATH=tests .venv/bin/python tests/fuzz.py seeds build/fuzz
	$(CLANG) -fsanitize=fuzzer,address,undefined tests/fuzz_scanner.c $(FUZZED) -o build/fuzz/scanner
	$(CLANG) -fsanitize=fuzzer,address,undefined tests/fuzz_deflate.c $(KERNEL)/join/deflate.c -lz -o build/fuzz/deflate
	$(CLANG) -fsanitize=fuzzer,address,undefined tests/fuzz_zstd.c $(KERNEL)/join/frame.c $(KERNEL)/join/sequences.c -o build/fuzz/zstd
	libfuzzer() {
		echo "fuzzing $$1 for $$each s; what fails is saved in build/fuzz/failed"
		build/fuzz/$$1 -max_total_time=$$each -max_len=$$2 -rss_limit_mb=1024 -timeout=10 -artifact_prefix=build/fuzz/failed/$$1- \
			-verbosity=0 -print_final_stats=1 build/fuzz/corpus/$$1 2>&1
	}
	mkdir -p build/fuzz/failed
	libfuzzer scanner 16384
	libfuzzer deflate 4096
	libfuzzer zstd 4096
	PYTHONPATH=tests .venv/bin/python tests/fuzz.py run --seconds $$each --keep build/fuzz/failed trees round-trips documents parents

# CPython itself is not clean under ThreadSanitizer, so a harness in C drives the kernels. Without address randomisation, which some of its
# versions do not bear with.
THREADED := $(addprefix $(KERNEL)/,arena.c tree/tree.c tree/scan.c tree/inodes.c \
	pack/content.c pack/digest.c tar/header.c pack/pack.c $(SHA256))
tsan: ## the threads of the kernels under ThreadSanitizer; needs clang
	@mkdir -p build/tsan
	$(CLANG) -fsanitize=thread tests/tsan_kernels.c $(THREADED) -pthread -o build/tsan/kernels
	TSAN_OPTIONS=halt_on_error=1 setarch -R build/tsan/kernels $(or $(TREE),build_oci)

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
