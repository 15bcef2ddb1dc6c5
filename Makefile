# libmmq. `make help` lists the targets.

# Without config=, a goal build/NAME/... builds in that configuration, anything else in release.
CONFIGS := debug release asan ubsan tsan
config ?= $(or $(filter $(CONFIGS),$(word 2,$(subst /, ,$(filter build/%,$(firstword \
	$(MAKECMDGOALS)))))),release)
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
CC ?= cc
AR ?= ar
OBJCOPY ?= objcopy
PKG_CONFIG ?= pkg-config
PYTHON ?= python3
CLANG_FORMAT ?= clang-format

VERSION := 0.1.0
SOVERSION := 0
B := build/$(config)

ifeq ($(filter $(config),$(CONFIGS)),)
$(error config=$(config): one of debug release asan ubsan tsan)
endif

# V=1 shows whole commands.
say = $(if $(V),,@printf '%-4s %s\n' '$1' '$@';)

# ---- flags -----------------------------------------------------------------------------------
# CFLAGS and LDFLAGS are the user's; what the library needs is kept apart and comes after them.

CFLAGS_debug := -O1 -g
CFLAGS_release := -O2 -g
CFLAGS_asan := -O1 -g
CFLAGS_ubsan := -O1 -g
CFLAGS_tsan := -O1 -g
CFLAGS ?= $(CFLAGS_$(config))

SANITIZE_asan := -fsanitize=address -fno-omit-frame-pointer
SANITIZE_ubsan := -fsanitize=undefined -fno-sanitize-recover=all
SANITIZE_tsan := -fsanitize=thread
SANITIZE := $(SANITIZE_$(config))

WARN := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings \
	-Wvla -Wshadow $(if $(WERROR),-Werror)
# Bits of results are promised: no fast math, no contraction of a * b + c.
NUMBERS := -fno-fast-math -ffp-contract=off -fno-math-errno
COMMON = $(WARN) $(CPPFLAGS) $(CFLAGS) -std=gnu11 $(SANITIZE)
BASE = $(COMMON) -D_GNU_SOURCE $(NUMBERS) -fPIC -fvisibility=hidden -Iinclude -Isrc

PACKAGES := libutf8proc
ifdef MMQ_NO_PNG
BASE += -DMMQ_NO_PNG
else
PACKAGES := libpng $(PACKAGES)
endif
ifdef MMQ_NO_JPEG
BASE += -DMMQ_NO_JPEG
else
PACKAGES := $(PACKAGES) libturbojpeg
endif
DEP_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES))
DEP_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES)) -lpthread -ldl -lm
# Read only where tests are built, so that the library needs neither package.
TEST_CFLAGS = $(shell $(PKG_CONFIG) --cflags check jansson libpng libturbojpeg) -Itest -DSOURCE_ROOT='"$(CURDIR)"' -DBUILD_FOLDER='"$B"' \
	-DSPEED_COUNTS=$(if $(filter release,$(config)),1,0)
TEST_LIBS = $(shell $(PKG_CONFIG) --libs check jansson libpng libturbojpeg)

.PHONY: all
all: libraries examples ## build the libraries and the programs into build/$(config) and lib/

.PHONY: FORCE
FORCE:

# Whoever changes a flag gets everything built anew.
$B/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(subst ','\'',$(BASE) | $(LDFLAGS) | $(DEP_CFLAGS) $(DEP_LIBS))' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# ---- the library -----------------------------------------------------------------------------

SRC := $(wildcard src/*/*.c src/cpu/*/*.c)
MACHINE := $(shell $(CC) -dumpmachine)
ifeq ($(filter x86_64% amd64%,$(MACHINE)),)
SRC := $(filter-out src/cpu/x86/%,$(SRC))
endif
ifeq ($(filter aarch64% arm64%,$(MACHINE)),)
SRC := $(filter-out src/cpu/arm/%,$(SRC))
endif
OBJ := $(SRC:src/%.c=$B/obj/%.o)

$B/obj/%_avx2.o: ISA := -mavx2 -mfma -mf16c
$B/obj/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$B/obj/%.o: src/%.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BASE) $(ISA) $(DEP_CFLAGS) -MMD -MP -c -o $@ $<

# Deleted sources leave no member behind.
$B/objects: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(OBJ) >$@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# For tests: every shared symbol can be reached.
$B/libmmq.a: $(OBJ) $B/objects
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $(OBJ)

# For users: one member whose only global symbols are those of mmq.h.
$B/lib/libmmq.a: $(OBJ) $B/objects
	@mkdir -p $(@D) && rm -f $@
	$(call say,AR)$(CC) -r -nostdlib -o $B/obj/libmmq.o $(OBJ) && \
		$(OBJCOPY) --localize-hidden $B/obj/libmmq.o && $(AR) rcs $@ $B/obj/libmmq.o

SO := libmmq.so.$(VERSION)
$B/lib/$(SO): $(OBJ) $B/objects src/libmmq.map
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -shared -o $@ $(OBJ) -Wl,-soname,libmmq.so.$(SOVERSION) \
		-Wl,--version-script,src/libmmq.map $(if $(SANITIZE),,-Wl$(,)--no-undefined) \
		-Wl,-z,relro,-z,now -Wl,--as-needed $(SANITIZE) $(LDFLAGS) $(DEP_LIBS)
, := ,

.DELETE_ON_ERROR:

$B/lib/libmmq.so.$(SOVERSION): $B/lib/$(SO)
	@ln -sf $(SO) $@
$B/lib/libmmq.so: $B/lib/libmmq.so.$(SOVERSION)
	@ln -sf libmmq.so.$(SOVERSION) $@
$B/libmmq.so: $B/lib/libmmq.so
	@ln -sf lib/libmmq.so $@

# A sanitized library is of no use to a program that is not: lib/ gets the plain ones only.
.PHONY: libraries
libraries: $B/libmmq.so $B/lib/libmmq.a ## build the shared and the static library
ifeq ($(SANITIZE),)
	@mkdir -p lib
	@for file in $(SO) libmmq.a; do \
		cmp -s $B/lib/$$file lib/$$file || { cp $B/lib/$$file lib/.$$file.$(config) && \
		mv lib/.$$file.$(config) lib/$$file; } || exit 1; \
	done
	@ln -sf $(SO) lib/libmmq.so.$(SOVERSION)
	@ln -sf libmmq.so.$(SOVERSION) lib/libmmq.so
endif

# ---- the CUDA backend: a library of its own, opened by libmmq at run time ----------------------

NVCC ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
CUDA_LIB ?= $(firstword $(wildcard $(CUDA_HOME)/lib64 $(CUDA_HOME)/targets/*/lib $(CUDA_HOME)/lib))
# Code for each of these, and PTX of the last for those to come.
CUDA_ARCHS ?= 75 80 89 90a 100 120
CUDA_CODE = $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
	$(if $(filter %a,$(lastword $(CUDA_ARCHS))),,-gencode \
	arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS)))
NVCCFLAGS ?= -O3 -lineinfo
# What keeps libstdc++ and locks of static data out.
NVCC_BASE = $(NVCCFLAGS) -std=c++17 $(if $(WERROR),-Werror all-warnings) -Iinclude -Isrc -I. $(CUDA_CODE) \
	-Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
CUDA_SO := $B/lib/libmmq-cuda.so
# Tables and arithmetic of formats, const, which both libraries hold.
CUDA_SHARED := src/quant/format_nested.c
CUDA_OBJ := $(patsubst cuda/%.cu,$B/cuda/%.cu.o,$(wildcard cuda/*.cu)) \
	$(patsubst cuda/%.c,$B/cuda/%.c.o,$(wildcard cuda/*.c)) \
	$(CUDA_SHARED:src/%.c=$B/cuda/src/%.c.o)

# Without SANITIZE: a sanitized library is opened with a sanitized libmmq alone, which is not here.
$B/cuda/%.c.o: cuda/%.c $B/cuda/flags
	$(call say,CC)$(CC) $(filter-out $(SANITIZE),$(BASE)) -I. -isystem $(CUDA_HOME)/include -MMD -MP -c -o $@ $<
$B/cuda/src/%.c.o: src/%.c $B/cuda/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(filter-out $(SANITIZE),$(BASE)) -MMD -MP -c -o $@ $<
# Packed bytes are promised to the bit: no contraction of a * b + c there either.
$B/cuda/pack_kernel.cu.o: EXACT := --fmad=false -Xcompiler -ffp-contract=off
$B/cuda/%.cu.o: cuda/%.cu $B/cuda/flags
	$(call say,NVCC)$(NVCC) $(NVCC_BASE) $(EXACT) -MMD -MP -c -o $@ $<

# Whoever changes a flag, or adds or deletes a source, gets it built anew.
$B/cuda/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(BASE) $(NVCC) $(NVCC_BASE)' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$B/cuda/objects: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(CUDA_OBJ) >$@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(CUDA_SO): $(CUDA_OBJ) $B/cuda/objects cuda/libmmq-cuda.map
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -shared -o $@ $(CUDA_OBJ) -Wl,-soname,libmmq-cuda.so \
		-Wl,--version-script,cuda/libmmq-cuda.map -Wl,--no-undefined -Wl,-z,relro,-z,now \
		-Wl,--as-needed $(LDFLAGS) -L$(CUDA_LIB) -Wl,-rpath,'$$ORIGIN:$(CUDA_LIB)' -lcublasLt -lcudart -lm

# The kernels on the host, for TEST_CUDA_LIBRARY: what they compute and touch, without a device.
EMULATED_SO := $B/lib/libmmq-emulated.so
EMULATED_CU := $(filter-out cuda/probe.cu cuda/measure.cu cuda/pack%,$(wildcard cuda/*.cu))
EMULATED_OBJ := $(EMULATED_CU:%.cu=$B/emulated/%.cu.o) \
	$(patsubst %.c,$B/emulated/%.c.o,$(wildcard test/emulated/*.c) cuda/call.c cuda/ops.c cuda/scratch.c src/core/dtype.c $(CUDA_SHARED))
EMULATED_C = $(filter-out -Wstrict-prototypes -Wmissing-prototypes,$(BASE)) -I. -Itest -isystem $(CUDA_HOME)/include
$B/emulated/%.cu.o: %.cu test/emulated/emulate.h $B/cuda/flags
	@mkdir -p $(@D)
	$(call say,CXX)$(CXX) $(filter-out -std=gnu11 -Wshadow,$(EMULATED_C)) -std=gnu++17 -Wno-unused-function -Wno-unknown-pragmas -fno-exceptions -fno-rtti \
		-include test/emulated/emulate.h -MMD -MP -x c++ -c -o $@ $<
$B/emulated/%.c.o: %.c $B/cuda/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(EMULATED_C) -MMD -MP -c -o $@ $<
$(EMULATED_SO): $(EMULATED_OBJ)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -shared -o $@ $(EMULATED_OBJ) $(SANITIZE) $(LDFLAGS) -lpthread -lm

# Needs the headers of CUDA and a C++ compiler, nothing to link and no device.
OP_SUITES ?= $(patsubst test/ops/%.c,%,$(wildcard test/ops/test_*.c))
EMULATED_RUNS := $(OP_SUITES:%=$B/test/ops/%)
.PHONY: check-emulated
check-emulated: $(EMULATED_SO) $(EMULATED_RUNS) ## run OP_SUITES on the CUDA kernels, emulated on the host
	@status=0; for suite in $(EMULATED_RUNS); do TEST_DEVICE=cuda:0 TEST_CUDA_LIBRARY=$(CURDIR)/$(EMULATED_SO) \
		$$suite || status=1; done; exit $$status

.PHONY: cuda
cuda: ## build the CUDA backend where nvcc is: CUDA_ARCHS='80 90a' NVCC=...
	$(if $(NVCC),,$(error there is no nvcc: NVCC=/path/to/nvcc))
	@$(MAKE) --no-print-directory $(CUDA_SO)
ifeq ($(SANITIZE),)
	@mkdir -p lib
	@cmp -s $(CUDA_SO) lib/libmmq-cuda.so || { cp $(CUDA_SO) lib/.libmmq-cuda.$(config) && \
		mv lib/.libmmq-cuda.$(config) lib/libmmq-cuda.so; }
endif

# ---- the programs: they see the public header and the shared object, as any user does -----------

PROGRAM_NAMES := $(patsubst examples/%.c,%,$(wildcard examples/mmq-*.c))
PROGRAMS := $(PROGRAM_NAMES:%=$B/examples/%)
# What the programs share, as an archive: each takes only what it calls.
EXAMPLE_HELP := $(patsubst examples/%.c,$B/examples/%.o,$(filter-out examples/mmq-%.c,$(wildcard examples/*.c)))

$B/examples/%.o: examples/%.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(COMMON) -Iinclude -MMD -MP -c -o $@ $<

$B/examples/help.a: $(EXAMPLE_HELP)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

$(PROGRAMS): $B/examples/%: $B/examples/%.o $B/examples/help.a $B/lib/libmmq.so
	$(call say,LD)$(CC) -o $@ $< $B/examples/help.a $(SANITIZE) -L$B/lib -Wl,-rpath,'$$ORIGIN/../lib' $(LDFLAGS) -lmmq -lpthread -lm
.SECONDARY: $(PROGRAMS:=.o) $(EXAMPLE_HELP)

.PHONY: examples
examples: $(PROGRAMS)

# ---- tests -----------------------------------------------------------------------------------

SUITES := $(patsubst %.c,$B/%,$(wildcard test/unit/test_*.c test/ops/test_*.c test/model/test_*.c))
$B/test/%: test/%.c $B/libmmq.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(BASE) $(TEST_CFLAGS) -MMD -MP -o $@ $< $B/libmmq.a $(LDFLAGS) $(DEP_LIBS) $(TEST_LIBS)

# A memory limit is tested by asking for more than there is; Check's clock is for a quiet machine.
export ASAN_OPTIONS ?= allocator_may_return_null=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= second_deadlock_stack=1
export CK_TIMEOUT_MULTIPLIER ?= $(if $(SANITIZE),15,5)

GOLDEN := $B/test/golden/golden_case
GOLDEN_PROGRAMS := $(patsubst %.c,$B/%,$(wildcard test/golden/*_case.c))
COMMITTED_CASES := $(patsubst %/golden.json,%,$(wildcard test/golden/*/golden.json))
COMMITTED_VECTORS := $(patsubst %/preproc.json,%,$(wildcard test/golden/*/preproc.json))
SHARED := $(firstword $(wildcard ../shared ../../shared) ../shared)
SHARED_CASES := $(shell grep -v '^\#' test/golden/shared_cases)
CASES ?= $(COMMITTED_CASES) $(COMMITTED_VECTORS)

# The tokenizer of Llama-2, which may not be shipped, made from the SentencePiece model beside the
# checkout; the test of its vectors is skipped where it cannot be made.
LLAMA2 := build/tokenizers/llama2/tokenizer.json
$(LLAMA2): test/tools/llama2_tokenizer_json.py
	@mkdir -p $(@D)
	$(call say,GEN)$(PYTHON) $< $(SHARED)/data/tokenizers.tar.xz $@
# The other real ones, each in a folder of its own.
TOKENIZERS := build/tokenizers/unpacked
$(TOKENIZERS): $(SHARED)/data/tokenizers.tar.xz
	@mkdir -p $(@D)/llava_flickr
	$(call say,GEN)tar xJf $< -C build --exclude='*/llama2/*' && \
		cp $(wildcard $(SHARED)/models/llava-flickr/tokenizer*.json) $(@D)/llava_flickr && touch $@
# Llama-2's once more, from its SentencePiece model and the two tokens that LLaVA added.
PIECES := build/tokenizers/pieces
$(PIECES): $(SHARED)/data/tokenizers.tar.xz
	@mkdir -p $@/llama2
	$(call say,GEN)tar xJOf $< tokenizers/llama2/tokenizer.model >$@/llama2/tokenizer.model && \
		echo '{"<image>": 32000, "<pad>": 32001}' >$@/llama2/added_tokens.json && \
		echo '{"additional_special_tokens": ["<image>", "<pad>"]}' >$@/llama2/special_tokens_map.json && touch $@
ifneq ($(wildcard $(SHARED)/data/tokenizers.tar.xz),)
REAL_TOKENIZERS := $(TOKENIZERS) $(PIECES) $(if $(shell command -v $(PYTHON)),$(LLAMA2))
endif
VECTORS := $(SHARED)/golden/tokenizer

# One target per suite, so that -j runs them side by side; each leaves its output and its exit
# status in build/$(config)/results, and none stops the others.
RESULTS := $B/results
RUN = CC='$(CC)' test/tools/run_suite.sh $(RESULTS)
SUITE_RUNS := $(SUITES:%=run/%)
GOLDEN_RUNS := $(if $(wildcard test/golden/golden_case.c),\
	$(COMMITTED_CASES:%=run/%) $(SHARED_CASES:%=run/shared/golden/%))
RUNS := $(SUITE_RUNS) $(GOLDEN_RUNS) run/golden/tokenizer run/golden/pieces run/golden/tokenizers \
	run/golden/preproc $(COMMITTED_VECTORS:%=run/%) run/abi run/install run/programs run/pack-host \
	run/lint-selftest
suite_name = $(subst /,.,$(patsubst test/%,%,$(patsubst $B/%,%,$(1:run/%=%))))

.PHONY: $(RUNS)
$(SUITE_RUNS): run/%: %
	@$(RUN) $(call suite_name,$@) $<
$(COMMITTED_CASES:%=run/%): run/%: $(GOLDEN)
	@$(RUN) $(call suite_name,$@) $< $*
$(SHARED_CASES:%=run/shared/golden/%): run/shared/golden/%: $(GOLDEN)
	@$(RUN) $(call suite_name,$@) test/golden/shared_case.sh $< $(SHARED)/golden/$*
run/golden/tokenizer: $B/test/golden/tokenizer_case $(REAL_TOKENIZERS)
	@$(RUN) $(call suite_name,$@) test/golden/shared_case.sh $< $(VECTORS)
run/golden/preproc: $B/test/golden/preproc_case
	@$(RUN) $(call suite_name,$@) test/golden/shared_case.sh $< $(SHARED)/golden/preproc
$(COMMITTED_VECTORS:%=run/%): run/%: $B/test/golden/preproc_case
	@$(RUN) $(call suite_name,$@) $< $*
run/golden/pieces: $B/test/golden/tokenizer_case $(REAL_TOKENIZERS)
	@$(RUN) $(call suite_name,$@) test/golden/shared_case.sh $< $(VECTORS)/llama2.json \
		--tokenizers $(PIECES)
run/golden/tokenizers: $B/test/golden/tokenizer_case
	@$(RUN) $(call suite_name,$@) $< --tokenizers test/golden/tokenizers test/golden/tokenizers
run/abi:
	@$(RUN) abi test/abi/run.sh $B/abi
run/install: all
	+@SANITIZE='$(SANITIZE)' MAKE='$(MAKE)' $(RUN) install test/install/run.sh $(config)
run/pack-host: $B/libmmq.a
	@SANITIZE='$(SANITIZE)' $(RUN) pack-host test/cuda/pack_host.sh $B
run/programs: examples
	@$(RUN) programs test/programs/run.sh $B
run/lint-selftest:
	@$(RUN) lint-selftest test/lint/selftest.sh

TOKENIZER_TESTS := test_tokenizer test_tokenizer_hostile
$(TOKENIZER_TESTS:%=run/$B/test/unit/%): $(REAL_TOKENIZERS)

.PHONY: check
check: all $(RUNS) ## build and run every test
	@test/tools/sum_up.sh $(RESULTS) $(foreach run,$(RUNS),$(call suite_name,$(run)))

.PHONY: unit
unit: $(SUITE_RUNS) ## build and run the Check suites alone
	@test/tools/sum_up.sh $(RESULTS) $(foreach run,$(SUITE_RUNS),$(call suite_name,$(run)))

# What test/gpu/run.sh runs; libraries that a machine may lack lie beside, so that the build folder
# can be taken to one that has a device and no compiler.
GPU_PROGRAMS := $(addprefix $B/test/,ops/test_device ops/test_pack_rows ops/test_rows ops/test_matmul ops/test_together \
	ops/test_attention ops/test_ops model/test_cuda_library model/test_cuda_model \
	model/test_split model/test_steps golden/golden_case)
.PHONY: gpu-programs
gpu-programs: $(GPU_PROGRAMS) examples ## build all that check-gpu runs, without running it
	+@$(MAKE) --no-print-directory cuda
	@mkdir -p $B/needed
	@ldd $(GPU_PROGRAMS) $(PROGRAMS) | awk '$$2 == "=>" && $$3 !~ /lib(c|m|pthread|dl|rt)\.so|libmmq/ {print $$3}' | \
		sort -u | xargs -r cp -uL -t $B/needed

DEVICE ?= cuda:0
GPU_SUITES ?=
.PHONY: check-gpu
check-gpu: gpu-programs ## build all, run ops, golden cases, model tests and benches on DEVICE=cuda:0
	@test/gpu/run.sh $B $(DEVICE) $(GPU_SUITES)

# make gpu-bundle DIR=somewhere REAL=... REAL_EVAL=... SCENES=... HELD=... PART=...: see the script.
DIR ?= build/bundle
.PHONY: gpu-bundle
gpu-bundle: gpu-programs ## copy what a machine with a device and without this tree needs into DIR
	@REAL='$(REAL)' REAL_EVAL='$(REAL_EVAL)' SCENES='$(SCENES)' HELD='$(HELD)' SHARED='$(SHARED)' PART='$(PART)' \
		PYTHON='$(PYTHON)' test/gpu/bundle.sh $B '$(DIR)'

# The suites that mean something without a decoder, each in a build of its own.
DECODER_SUITES := unit/test_image model/test_api model/test_runtime
.PHONY: check-no-decoders
check-no-decoders: ## build without PNG, and without JPEG, and run the suites that pictures touch
	+@test/tools/no_decoders.sh '$(MAKE)' $(config) $(DECODER_SUITES)

.PHONY: golden
golden: $(GOLDEN_PROGRAMS) $(if $(findstring tokenizer,$(CASES)),$(REAL_TOKENIZERS)) ## compare with reference values: make golden CASES='DIR ...'
	@status=0; for case in $(CASES); do test/golden/pick.sh $B/test/golden "$$case" || status=1; done; exit $$status

.PHONY: test-all
test-all: ## everything that must hold: check in debug, asan and ubsan, then lint
	@test/tools/test_all.sh '$(MAKE)'

.PHONY: lint
lint: libraries ## check the rules of the house: include law, symbols, layout, lengths, documentation
	@CLANG_FORMAT='$(CLANG_FORMAT)' PYTHON='$(PYTHON)' test/lint/run.sh $B

.PHONY: cppcheck
cppcheck: ## static analysis, by hand: not a part of lint
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability \
		--suppress=unmatchedSuppression --inline-suppr -Iinclude -Isrc src examples

.PHONY: format
format: ## lay out every C file with clang-format
	git ls-files -co --exclude-standard '*.c' '*.h' | xargs $(CLANG_FORMAT) -i

.PHONY: abi-record
abi-record: ## write the ABI of include/mmq.h into test/abi/abi.txt, after a look at the difference
	test/abi/run.sh $B/abi --record

SHAPE ?= llava-1b
FORMATS ?= bf16 int8 nf4 int4
.PHONY: bench
bench: $B/examples/mmq-bench ## time SHAPE in FORMATS, and PyTorch in turn where PYTHON has torch
	@PYTHON='$(PYTHON)' examples/bench.sh $B $(SHAPE) $(FORMATS)

.PHONY: demo
demo: all ## describe a picture (IMAGE=...) with the repository's model, in 16 bit and in nf4
	@examples/demo.sh $B $(if $(IMAGE),'$(IMAGE)')

.PHONY: real-model
real-model: ## unpack the model of ../shared into build/models, for the tests that want a larger one
	@test/tools/real_model.sh '$(SHARED)/models'

# Writes 4.4 GB under build/sized, one checkpoint at a time. SIZES='smolvlm-256m describe' for some.
SIZES ?=
.PHONY: sized-check
sized-check: $(PROGRAMS) ## count checkpoints of real size, and run one under a limit of 3 GB; logs in test/sized
	@mkdir -p build/sized
	@$(PYTHON) test/tools/sized_check.py $B '$(SHARED)' $(SIZES) >build/sized/check.log 2>&1; status=$$?; \
		cat build/sized/check.log; $(if $(SIZES),,cp build/sized/check.log test/sized/check.log;) exit $$status

# Hours on a small machine: LIMIT=3 OUT=/dev/stdout for a look.
LIMIT ?= 100
OUT ?= docs/QUALITY.md
.PHONY: quality
quality: all ## write docs/QUALITY.md: quality and bytes of each format on the model in ../shared
	@test/tools/quality.sh $B '$(SHARED)/models' $(LIMIT) >build/quality.md && cat build/quality.md >$(OUT)

# ---- install ---------------------------------------------------------------------------------

DOCDIR := $(PREFIX)/share/doc/libmmq
DOCS := LICENSE README.md CHANGELOG.md
DATA_OF_INSTALL = $(PREFIX)/include/mmq.h $(LIBDIR)/pkgconfig/libmmq.pc $(LIBDIR)/libmmq.a \
	$(LIBDIR)/$(SO) $(LIBDIR)/libmmq-cuda.so $(LIBDIR)/libmmq.so.$(SOVERSION) $(LIBDIR)/libmmq.so \
	$(PROGRAM_NAMES:%=$(PREFIX)/bin/%) $(DOCS:%=$(DOCDIR)/%)

.PHONY: install
install: all ## install into DESTDIR/PREFIX
	install -d '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(DOCDIR)'
	install -m 644 include/mmq.h '$(DESTDIR)$(PREFIX)/include'
	install -m 755 $B/lib/$(SO) '$(DESTDIR)$(LIBDIR)'
	ln -sf $(SO) '$(DESTDIR)$(LIBDIR)/libmmq.so.$(SOVERSION)'
	ln -sf libmmq.so.$(SOVERSION) '$(DESTDIR)$(LIBDIR)/libmmq.so'
	install -m 644 $B/lib/libmmq.a '$(DESTDIR)$(LIBDIR)'
	test ! -f $(CUDA_SO) || install -m 755 $(CUDA_SO) '$(DESTDIR)$(LIBDIR)'
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
		-e 's|@VERSION@|$(VERSION)|' -e 's|@PACKAGES@|$(PACKAGES)|' \
		pkgconfig/libmmq.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/libmmq.pc'
	install -m 644 $(DOCS) '$(DESTDIR)$(DOCDIR)'
ifneq ($(PROGRAMS),)
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 $(PROGRAMS) '$(DESTDIR)$(PREFIX)/bin'
endif

.PHONY: uninstall
uninstall: ## remove what install put there, and nothing else
	rm -f $(foreach file,$(DATA_OF_INSTALL),'$(DESTDIR)$(file)')
	-test ! -d '$(DESTDIR)$(DOCDIR)' || rmdir '$(DESTDIR)$(DOCDIR)'

.PHONY: dist
dist: ## pack the committed tree into dist/
	@mkdir -p dist
	git archive --prefix=libmmq-$(VERSION)/ -o dist/libmmq-$(VERSION).tar HEAD
	xz -9f dist/libmmq-$(VERSION).tar
	@echo dist/libmmq-$(VERSION).tar.xz

.PHONY: clean
clean: ## remove what was built; unpacked models under build/models stay
	rm -rf $(addprefix build/,debug release asan ubsan tsan no-png no-jpeg) lib/*.a lib/*.so* dist

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14
	@echo
	@echo 'config=debug|release|asan|ubsan|tsan  what is built, into build/$$(config); release is the default'
	@echo 'CC CFLAGS LDFLAGS PREFIX LIBDIR DESTDIR  as usual; CFLAGS replaces the optimisation flags only'
	@echo 'MMQ_NO_PNG=1 MMQ_NO_JPEG=1            leave a picture format and its library out'
	@echo 'WERROR=1                              a warning is an error; V=1: show whole commands'

-include $(OBJ:.o=.d) $(CUDA_OBJ:.o=.d) $(EMULATED_OBJ:.o=.d) $(wildcard $B/test/*/*.d $B/examples/*.d)
