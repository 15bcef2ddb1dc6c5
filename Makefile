# libmmq. `make help` lists the targets.

config ?= debug
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= cc
AR ?= ar
PKG_CONFIG ?= pkg-config

VERSION := 0.1.0
SOVERSION := 0
B := build/$(config)

CFLAGS_debug := -O1 -g
CFLAGS_release := -O2 -g
CFLAGS_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
CFLAGS_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fsanitize=thread
LDFLAGS_asan := -fsanitize=address
LDFLAGS_ubsan := -fsanitize=undefined
LDFLAGS_tsan := -fsanitize=thread
ifeq ($(filter $(config),debug release asan ubsan tsan),)
$(error config=$(config): one of debug release asan ubsan tsan)
endif

CFLAGS ?= $(CFLAGS_$(config))
ifneq ($(filter $(config),asan ubsan tsan),)
override CFLAGS += $(CFLAGS_$(config))
override LDFLAGS += $(LDFLAGS_$(config))
endif

WARN := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla -Wshadow
BASE := -std=gnu11 -D_GNU_SOURCE $(WARN) -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -Iinclude -Isrc

PKGS := libpng libturbojpeg libutf8proc
DEP_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS))
DEP_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)) -lpthread -lm -ldl
TEST_CFLAGS = $(shell $(PKG_CONFIG) --cflags check jansson)
TEST_LIBS = $(shell $(PKG_CONFIG) --libs check jansson)

SRC := $(wildcard src/*/*.c src/cpu/*/*.c)
OBJ := $(SRC:src/%.c=$B/obj/%.o)

.PHONY: all
all: $B/libmmq.a

$B/obj/%_avx2.o: ISA := -mavx2 -mfma -mf16c
$B/obj/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$B/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) $(ISA) $(DEP_CFLAGS) -MMD -MP -c -o $@ $<

$B/libmmq.a: $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

UNIT := $(patsubst %.c,$B/%,$(wildcard test/unit/test_*.c test/ops/test_*.c test/model/test_*.c))
$B/test/%: test/%.c $B/libmmq.a
	@mkdir -p $(@D)
	$(CC) $(BASE) -Itest $(CFLAGS) $(TEST_CFLAGS) -MMD -MP -o $@ $< $B/libmmq.a $(LDFLAGS) $(DEP_LIBS) $(TEST_LIBS)

.PHONY: unit
unit: $(UNIT)
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

-include $(OBJ:.o=.d)
