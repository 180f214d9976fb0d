# SPDX-License-Identifier: Apache-2.0
# A courtesy: forwards to CMake. `make help` lists what there is.
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?= python3

.PHONY: all run test coverage bench peers sweep install format clean help configure

all: configure
	@cmake --build $(BUILD) -j $(JOBS) --target attn attn_static attn_program

run: configure
	@cmake --build $(BUILD) -j $(JOBS) --target attn_program
	@examples/fashion-mnist/run $(BUILD)

test:
	@./setup test
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)
	@$(PYTHON) tests/run.py $(BUILD)

# The counts of one run: those of an earlier one, of other objects, would mix with them.
coverage:
	@./setup test
	@cmake -S . -B $(BUILD)/coverage -DATTN_COVERAGE=ON $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD)/coverage -j $(JOBS) -- --quiet
	@find $(BUILD)/coverage -name '*.gcda' -delete
	@$(PYTHON) tests/run.py $(BUILD)/coverage --quick >$(BUILD)/coverage/tests.log || { cat $(BUILD)/coverage/tests.log; exit 1; }
	@$(PYTHON) tests/coverage.py $(BUILD)/coverage

bench: configure
	@cmake --build $(BUILD) -j $(JOBS) --target attn_program
	@$(BUILD)/attn bench full

peers: configure
	@cmake --build $(BUILD) -j $(JOBS) --target attn_python attn_python_files
	@$(PYTHON) bench/peers.py $(BUILD) --json $(BUILD)/peers.json

sweep: configure
	@cmake --build $(BUILD) -j $(JOBS) --target sweep
	@$(BUILD)/tests/sweep

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

format:
	@clang-format-14 -i $$(git ls-files '*.c' '*.h' '*.inc')

clean:
	@rm -rf $(BUILD)

configure:
	@./setup build
	@command -v cmake >/dev/null || { echo "cmake is missing: install it, or build the library by hand (README.md)"; exit 5; }
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }

help:
	@echo "make          set up what is missing and build the program ($(BUILD)/attn) and the library"
	@echo "make run      the main job: train, evaluate and explain an image classifier; writes $(BUILD)/run/report.html"
	@echo "make test     every test; the last line counts them"
	@echo "make coverage which lines and branches of src, outside its kernels, the tests run"
	@echo "make bench    the kernels' speed against this machine's peak"
	@echo "make peers    the same beside numpy, torch and onnxruntime, as far as PYTHON ($(PYTHON)) has them"
	@echo "make sweep    the vector functions at every float there is, against libm: the figures of docs/ACCURACY.md"
	@echo "make install  headers, libraries, attn.pc, CMake package and man pages to PREFIX ($(PREFIX))"
