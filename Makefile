# SPDX-License-Identifier: MIT
# The verbs are: (nothing) demo check lint bench soak kmod load unload install clean; `make help` explains them.
# Objects go to build/; V=1 shows whole command lines; a new .c file in a room needs no edit here.

BUILD ?= build
CC ?= gcc
CLANG ?= clang-14
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
VERSION := 0.1.0

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s%s\n'
endif
MAKEFLAGS += --no-print-directory

PKGS := liburing libzstd openblas libmicrohttpd gnutls libcurl jansson libsodium libxxhash libbpf libnats
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
	-Wno-unused-parameter -Wno-missing-field-initializers -Wno-format-truncation -Werror
BASE_CFLAGS := -std=gnu11 -g $(WARN) -fno-strict-aliasing -fno-math-errno -fvisibility=hidden -pthread \
	-D_GNU_SOURCE -DLSLM_VERSION='"$(VERSION)"' -I. -Iinclude -Iinclude/uapi -Iuser -isystem $(BUILD)/bpf -I$(BUILD)

LIB_SRC := $(sort $(wildcard user/base/*.c user/model/*.c user/compute/*.c user/kv/*.c user/codec/*.c \
	user/net/*.c user/engine/*.c user/serve/*.c))
CLI_SRC := $(sort $(wildcard user/cli/*.c))
TEST_SRC := $(sort $(wildcard tests/unit/*_test.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*_fuzz.c))
EXAMPLES := $(sort $(wildcard tests/examples/*.c))

# setup has run once it has found everything; without a package the compiler's error would be cryptic.
PKG_CFLAGS = $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
PKG_LIBS = $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null) -lm

# variant: NAME, flags, compiler. Each gives $(BUILD)/NAME/ with the library and the unit tests.
OPT_CFLAGS := -O2 -ftree-vectorize -fPIC
ASAN_CFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

# What levels compute is the same number on every machine: no product and sum become one rounding.
EXACT = $(if $(findstring /codec/,$@)$(filter %/compute/kvq.o,$@),-ffp-contract=off)

all: $(BUILD)/lslm $(BUILD)/liblslm.a $(BUILD)/liblslm.so $(EXAMPLES:tests/%.c=$(BUILD)/%) kmod-if-headers

.PHONY: all help demo check check-unit check-asan check-fuzz check-models check-net check-vm check-debug check-arm64 lint bench soak \
	clean

help:
	@sed -n 's/^#: //p' Makefile
#: make            build/lslm, build/liblslm.{a,so}, and lslm.ko where kernel headers are
#: make install    into PREFIX (/usr/local), DESTDIR honoured
#: make demo       install what is missing, build, and answer questions from a streamed context
#: make check      everything that needs no special hardware; ends with N passed, N failed, N skipped
#: make bench      the longer measurements, JSON on standard output
#: make soak       the longer tests, likewise
#: make check-debug    the module on a kernel that finds bugs (KASAN, lockdep, failing allocations), which is built first
#: make lint       format, cppcheck, shellcheck, sparse and checkpatch

$(BUILD)/obj/%.o: user/%.c
	@mkdir -p $(dir $@)
	$(say) CC $<
	$(Q)$(CC) $(BASE_CFLAGS) $(OPT_CFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(EXACT) -MMD -MP -c -o $@ $<

$(BUILD)/asan/%.o: user/%.c
	@mkdir -p $(dir $@)
	$(say) CC "$< (asan)"
	$(Q)$(CC) $(BASE_CFLAGS) $(ASAN_CFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(EXACT) -MMD -MP -c -o $@ $<

# BPF programs travel inside the library, as C arrays. `steer` is made twice: bpf/steer.bpf.c says why.
BPF_SKEL := $(patsubst %,$(BUILD)/bpf/%.skel.h,steer_plain steer_place guard)
BPF_CFLAGS := -target bpf -O2 -g -Wall -Wextra -Wno-unused-parameter -Werror \
	-I/usr/include/$(shell $(CC) -dumpmachine) -Iinclude/uapi -Iinclude
BPF_DEPS := $(wildcard bpf/*.h) include/lslm/wire.h include/uapi/linux/lslm.h

$(BUILD)/bpf/steer_plain.bpf.o: bpf/steer.bpf.c $(BPF_DEPS)
$(BUILD)/bpf/steer_place.bpf.o: bpf/steer.bpf.c $(BPF_DEPS)
$(BUILD)/bpf/steer_place.bpf.o: BPF_CFLAGS += -DSTEER_PLACE
$(BUILD)/bpf/guard.bpf.o: bpf/guard.bpf.c $(BPF_DEPS)

$(BUILD)/bpf/%.bpf.o:
	@mkdir -p $(dir $@)
	$(say) BPF $@
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<

$(BUILD)/bpf/%.skel.h: $(BUILD)/bpf/%.bpf.o
	$(say) SKEL $@
	$(Q)PATH=$$PATH:/usr/sbin bpftool gen skeleton $< name $*_bpf >$@

# The first build has no .d files yet that would say so.
$(foreach v,obj asan fuzz/obj,$(BUILD)/$(v)/net/steer.o $(BUILD)/$(v)/serve/guard.o): $(BPF_SKEL)

# So does the web page: a list of its files, written anew when it differs, which serve/page.c takes in.
PAGE_FILES := $(sort $(wildcard user/serve/page/*))
$(BUILD)/page/files.h: FORCE
	@mkdir -p $(dir $@)
	@n=0; for f in $(PAGE_FILES); do echo "PAGE($$n, \"$${f##*/}\", \"$$f\")"; n=$$((n + 1)); done >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
FORCE:

$(foreach v,obj asan fuzz/obj,$(BUILD)/$(v)/serve/page.o): $(BUILD)/page/files.h $(PAGE_FILES)

LIB_OBJ := $(LIB_SRC:user/%.c=$(BUILD)/obj/%.o)
CLI_OBJ := $(CLI_SRC:user/%.c=$(BUILD)/obj/%.o)
ASAN_OBJ := $(LIB_SRC:user/%.c=$(BUILD)/asan/%.o)

$(BUILD)/liblslm.a: $(LIB_OBJ)
	$(say) AR $@
	$(Q)rm -f $@; ar rcs $@ $^

$(BUILD)/asan/liblslm.a: $(ASAN_OBJ)
	$(say) AR $@
	$(Q)rm -f $@; ar rcs $@ $^

$(BUILD)/liblslm.so: $(LIB_OBJ) user/lslm.map
	$(say) LD $@
	$(Q)$(CC) -shared -Wl,-soname,liblslm.so.0 -Wl,--version-script=user/lslm.map -Wl,--no-undefined \
		-o $@ $(LIB_OBJ) $(PKG_LIBS) -pthread
	$(Q)ln -sf $(notdir $@) $@.0

$(BUILD)/lslm: $(CLI_OBJ) $(BUILD)/liblslm.a
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(PKG_LIBS) -pthread

# Unit tests: one program per file, plain and under the sanitizers.
UNIT := $(TEST_SRC:tests/unit/%.c=$(BUILD)/unit/%)
UNIT_ASAN := $(TEST_SRC:tests/unit/%.c=$(BUILD)/unit-asan/%)

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/liblslm.a
	@mkdir -p $(dir $@)
	$(say) TEST $@
	$(Q)$(CC) $(BASE_CFLAGS) -O1 $(PKG_CFLAGS) -Itests -MMD -MP -o $@ $< $(BUILD)/liblslm.a -lcmocka $(PKG_LIBS)

$(BUILD)/unit-asan/%: tests/unit/%.c $(BUILD)/asan/liblslm.a
	@mkdir -p $(dir $@)
	$(say) TEST $@
	$(Q)$(CC) $(BASE_CFLAGS) $(ASAN_CFLAGS) $(PKG_CFLAGS) -Itests -MMD -MP -o $@ $< \
		$(BUILD)/asan/liblslm.a -lcmocka $(PKG_LIBS)

# Fuzz targets are whole programs of clang's: its own objects, its own sanitizers.
FUZZ := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
FUZZ_CFLAGS := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
	-Wno-unknown-warning-option

# No fuzz target computes, and clang needs minutes to instrument what is unrolled by hand.
$(foreach f,gemm_vnni gemm_avx2 dense kvbf16 kvtile kvtile_avx512,$(BUILD)/fuzz/obj/compute/$(f).o): FUZZ_CFLAGS := -O1 -Wno-unknown-warning-option

$(BUILD)/fuzz/obj/%.o: user/%.c
	@mkdir -p $(dir $@)
	$(say) CC "$< (fuzz)"
	$(Q)$(CLANG) $(BASE_CFLAGS) $(FUZZ_CFLAGS) $(PKG_CFLAGS) $(EXACT) -MMD -MP -c -o $@ $<

$(BUILD)/fuzz/liblslm.a: $(LIB_SRC:user/%.c=$(BUILD)/fuzz/obj/%.o)
	$(say) AR $@
	$(Q)rm -f $@; ar rcs $@ $^

$(BUILD)/fuzz/%: tests/fuzz/%.c $(BUILD)/fuzz/liblslm.a
	$(say) FUZZ $@
	$(Q)$(CLANG) $(BASE_CFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer $(PKG_CFLAGS) -Itests -MMD -MP -o $@ $< \
		$(BUILD)/fuzz/liblslm.a $(PKG_LIBS)

# Examples see what a user of the installed library sees: the public header and the shared library.
$(BUILD)/examples/%: tests/examples/%.c $(BUILD)/liblslm.so include/lslm/lslm.h
	@mkdir -p $(dir $@)
	$(say) LD $@
	$(Q)$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
		-Iinclude -o $@ $< -L$(BUILD) -l:liblslm.so -Wl,-rpath,'$$ORIGIN/..'

# Programs that run inside the virtual machines.
VM_TESTS := $(patsubst tests/vm/%.c,$(BUILD)/vmtests/%,$(wildcard tests/vm/*_test.c)) $(patsubst tests/vm/%.c,$(BUILD)/vmtests/%.o,$(wildcard tests/vm/*.bpf.c))

# --as-needed: the guest is slow, and would load every library of the runtime for each program.
$(BUILD)/vmtests/%: tests/vm/%.c $(BUILD)/liblslm.a
	@mkdir -p $(dir $@)
	$(say) TEST $@
	$(Q)$(CC) $(BASE_CFLAGS) -O1 $(PKG_CFLAGS) -MMD -MP -o $@ $< $(BUILD)/liblslm.a -Wl,--as-needed $(PKG_LIBS)

$(BUILD)/vmtests/%.bpf.o: tests/vm/%.bpf.c $(wildcard tests/vm/*.h) $(BPF_DEPS)
	@mkdir -p $(dir $@)
	$(say) BPF $@
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<

# Programs of the network tests.
NET_TESTS := $(patsubst tests/net/%.c,$(BUILD)/nettests/%,$(wildcard tests/net/*.c))

$(BUILD)/nettests/%: tests/net/%.c
	@mkdir -p $(dir $@)
	$(say) TEST $@
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -o $@ $<

$(BUILD)/nettests/%_tool: tests/net/%_tool.c $(BUILD)/liblslm.a
	@mkdir -p $(dir $@)
	$(say) TEST $@
	$(Q)$(CC) $(BASE_CFLAGS) -O1 $(PKG_CFLAGS) -MMD -MP -o $@ $< $(BUILD)/liblslm.a $(PKG_LIBS)

# Programs of the tests that are no unit tests.
$(BUILD)/models/golden: tests/models/golden.c $(BUILD)/liblslm.a
	@mkdir -p $(dir $@)
	$(say) LD $@
	$(Q)$(CC) $(BASE_CFLAGS) $(OPT_CFLAGS) $(PKG_CFLAGS) -o $@ $< $(BUILD)/liblslm.a $(PKG_LIBS)

.PRECIOUS: $(BUILD)/obj/%.o $(BUILD)/asan/%.o $(BUILD)/fuzz/obj/%.o
.DELETE_ON_ERROR:

-include $(shell find $(BUILD) -path $(BUILD)/vm -prune -o -name '*.d' -type f -print 2>/dev/null)

# The module: one directory per kernel, build/kmod-KVER/. `make` builds it where the running
# kernel's headers are, and leaves a copy as build/lslm.ko.
KDIR ?= /lib/modules/$(shell uname -r)/build
DESTDIR ?=

.PHONY: kmod kmod-if-headers load unload install-kmod install-dkms
#: make kmod KDIR=/usr/src/linux-headers-KVER    build/kmod-KVER/lslm.ko
#: make load       load it, with the modules it needs; PARAMS="limit_mb=512 ..." sets parameters
#: make unload     and remove it again
#: make install-dkms    its source into /usr/src, for DKMS to build for each new kernel
kmod:
	$(say) KMOD $(KDIR)
	$(Q)BUILD=$(BUILD) V=$(V) scripts/kmod-build $(KDIR)

kmod-if-headers:
	$(Q)if [ -e $(KDIR)/Makefile ]; then \
		BUILD=$(BUILD) V=$(V) scripts/kmod-build $(KDIR) || [ $$? = 3 ]; \
	else \
		echo "  no module: no headers of the running kernel ($(KDIR))"; \
	fi

load:
	$(Q)BUILD=$(BUILD) scripts/kmod-load $(PARAMS)

unload:
	$(Q)rmmod lslm

# For the running kernel; another one gets the module from DKMS (scripts/packaging/dkms.conf).
install-kmod: kmod-if-headers
	$(Q)if [ -e $(BUILD)/lslm.ko ]; then \
		install -D -m 644 $(BUILD)/lslm.ko $(DESTDIR)/lib/modules/$$(uname -r)/updates/lslm.ko && \
		install -D -m 644 scripts/packaging/modules-load-lslm.conf \
			$(DESTDIR)/usr/lib/modules-load.d/lslm.conf && \
		{ [ -n "$(DESTDIR)" ] || depmod; }; \
	fi
	$(Q)install -D -m 644 scripts/packaging/60-lslm.rules $(DESTDIR)/usr/lib/udev/rules.d/60-lslm.rules
	$(Q)install -D -m 644 scripts/packaging/sysusers-lslm.conf $(DESTDIR)/usr/lib/sysusers.d/lslm.conf
	$(Q)install -D -m 644 scripts/packaging/modprobe-lslm.conf $(DESTDIR)/usr/lib/modprobe.d/lslm.conf
	$(Q)install -D -m 644 include/uapi/linux/lslm.h $(DESTDIR)$(PREFIX)/include/linux/lslm.h
# What DKMS builds from, for kernels to come.
install-dkms:
	$(Q)for f in Kbuild scripts/kmod-build scripts/kmod-btf scripts/extract-vmlinux kmod/* include/uapi/linux/lslm.h include/lslm/*.h; do \
		install -D -m $$(test -x $$f && echo 755 || echo 644) $$f $(DESTDIR)/usr/src/lslm-$(VERSION)/$$f || exit 1; \
	done
	$(Q)sed 's/@VERSION@/$(VERSION)/' scripts/packaging/dkms.conf >$(DESTDIR)/usr/src/lslm-$(VERSION)/dkms.conf

install: all install-kmod
	$(Q)install -D -m 755 $(BUILD)/lslm $(DESTDIR)$(PREFIX)/bin/lslm
	$(Q)install -D -m 644 $(BUILD)/liblslm.a $(DESTDIR)$(PREFIX)/lib/liblslm.a
	$(Q)install -D -m 755 $(BUILD)/liblslm.so $(DESTDIR)$(PREFIX)/lib/liblslm.so.0
	$(Q)ln -sf liblslm.so.0 $(DESTDIR)$(PREFIX)/lib/liblslm.so
	$(Q)install -D -m 644 include/lslm/lslm.h $(DESTDIR)$(PREFIX)/include/lslm/lslm.h
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@PKGS@|$(PKGS)|' \
		scripts/packaging/liblslm.pc.in >$(BUILD)/liblslm.pc
	$(Q)install -D -m 644 $(BUILD)/liblslm.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/liblslm.pc

# setup comes first: without the packages nothing below would compile.
demo:
	$(Q)scripts/setup
	$(Q)$(MAKE) $(BUILD)/lslm
	$(Q)scripts/demo

check-unit: $(UNIT)
	tests/run unit
check-asan: $(UNIT_ASAN)
	tests/run asan
check-fuzz: $(FUZZ)
	tests/run fuzz
check-models: all $(BUILD)/models/golden
	tests/run models
check-net: all $(NET_TESTS)
	tests/run net
check-vm: all $(VM_TESTS) $(NET_TESTS) \
		$(addprefix $(BUILD)/unit/,buffer_test hugemem_test session_test session_place_test session_drop_test)
	tests/run vm
check-debug: all $(VM_TESTS) $(NET_TESTS) $(addprefix $(BUILD)/unit/,buffer_test session_test session_place_test session_drop_test)
	scripts/vm/debug-kernel
	tests/run debug
check-arm64:
	tests/run arm64
lint:
	tests/run lint
check:
	$(Q)scripts/setup
	$(Q)$(MAKE) -j$$(nproc) all $(UNIT) $(UNIT_ASAN) $(FUZZ) $(BUILD)/models/golden $(NET_TESTS) $(VM_TESTS)
	tests/run lint unit asan arm64 fuzz models net vm

bench: $(BUILD)/lslm $(NET_TESTS) $(VM_TESTS)
	$(Q)for bench in tests/bench/*; do $$bench || exit 1; done
soak: all $(FUZZ) $(BUILD)/vmtests/hostile_test
	$(Q)tests/soak/run

clean:
	rm -rf $(BUILD)
