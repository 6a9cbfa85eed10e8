# shmalloc: `make help` lists the targets.
#
# One build directory per flavour: build/plain, build/asan, build/tsan, build/coverage, build/fuzz. Your CFLAGS and LDFLAGS
# are appended. Sources are found by wildcard: a new file in a folder is built.

VERSION := 0.1.0
FLAVOUR ?= plain
BUILD   := build/$(FLAVOUR)

prefix     ?= /usr/local
bindir     ?= $(prefix)/bin
sbindir    ?= $(prefix)/sbin
libdir     ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir     ?= $(prefix)/share/man
completionsdir ?= $(prefix)/share/bash-completion/completions
docdir     ?= $(prefix)/share/doc/shmalloc
# Debian's interpreter looks below /usr for modules of every version, below /usr/local for those of its own
PYTHON     ?= /usr/bin/python3
pythondir  ?= $(prefix)/lib/python$(if $(filter /usr,$(prefix)),3,$(PY_VERSION))/dist-packages
# systemd looks below /usr/local/lib and /usr/lib
unitdir     ?= $(prefix)/lib/systemd/system
userunitdir ?= $(prefix)/lib/systemd/user
sysusersdir ?= $(prefix)/lib/sysusers.d
tmpfilesdir ?= $(prefix)/lib/tmpfiles.d

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(patsubst $(BUILD)/%,%,$(2)))

CC := $(if $(filter fuzz,$(FLAVOUR)),clang,$(if $(filter default,$(origin CC)),gcc,$(CC)))

WARN := -Wall -Wextra -Wundef -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 \
	$(if $(CI),-Werror)
OPT_plain     = -O2 -g -D_FORTIFY_SOURCE=$(FORTIFY)
OPT_asan     := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan     := -O1 -g -fsanitize=thread -Wno-tsan
OPT_coverage := -O0 -g --coverage -fprofile-update=atomic
OPT_fuzz     := -O1 -g -fsanitize=address,undefined,float-cast-overflow,fuzzer-no-link -fno-sanitize-recover=all
# tests/system/hardening.sh looks for each of these in what is built. CET is of x86 alone; landing pads cost an instruction each, so
# the library's own functions, which are called by the million, are built with shadow stacks only.
has = $(shell $(CC) $(1) -E -x c /dev/null >/dev/null 2>&1 && echo $(1))
CET      := $(call has,-fcf-protection=full)
HARDEN   := -fstack-protector-strong -fstack-clash-protection
LD_HARDEN = -Wl,-z,relro,-z,now,-z,noexecstack,-z,defs $(if $(CET),-Wl$(comma)-z$(comma)shstk)
comma    := ,
BASE  = -std=c11 -D_GNU_SOURCE -DSHMALLOC_VERSION='"$(VERSION)"' -I. -I$(BUILD) -fPIC -fvisibility=hidden \
	$(HARDEN) $(CET) -MMD -MP
$(BUILD)/client/%.o: CET := $(if $(CET),-fcf-protection=return)
$(BUILD)/client/ctl/%.o: CET := $(CET)
# Level 3 takes the size that was asked for as the block's; tests write as far as shma_usable_size() says.
FORTIFY := 3
$(BUILD)/tests/%.o: FORTIFY := 2
CF   = $(BASE) $(OPT_$(FLAVOUR)) $(CFLAGS)
LF   = $(filter -fsanitize% --coverage,$(OPT_$(FLAVOUR))) -Wl,-z,relro,-z,now $(LDFLAGS)

LIBS_PROTO  := -lprotobuf-c
LIBS_DAEMON := -levent_extra -levent_core -lsystemd -linih -ljansson $(LIBS_PROTO)
LIBS_CTL    := -ljansson -lncursesw -ltinfo $(LIBS_PROTO)
LIBS_TEST   := -lcriterion

SHM_O    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard shm/*.c))
PROTO_O  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard proto/*.c)) $(BUILD)/proto/shmalloc.pb-c.o
REPORT_O := $(patsubst %.c,$(BUILD)/%.o,$(wildcard proto/report/*.c))
DAEMON_O := $(patsubst %.c,$(BUILD)/%.o,$(wildcard daemon/*.c))
PRELOAD_O := $(patsubst %.c,$(BUILD)/%.o,$(wildcard client/preload*.c))
RUN_O    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard client/run*.c))
CLIENT_O := $(filter-out $(PRELOAD_O) $(RUN_O),$(patsubst %.c,$(BUILD)/%.o,$(wildcard client/*.c)))
CTL_O    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard client/ctl/*.c client/ctl/top/*.c))
LIB_O    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/lib/*.c))

# What the client links of libshm: only what reads, and what a thread may do to its own record.
CLIENT_SHM_O := $(patsubst %,$(BUILD)/shm/%.o,image sizeclass slots threadrec roots)

# The package for Python, for the interpreter $(PYTHON), if its headers are there.
PY_INC     := $(patsubst -I%,-isystem %,$(sort $(shell $(PYTHON)-config --includes 2>/dev/null)))
PY_HERE    := $(wildcard $(addsuffix /Python.h,$(filter-out -isystem,$(PY_INC))))
PY_VERSION  = $(patsubst python%,%,$(notdir $(patsubst %/,%,$(dir $(firstword $(PY_HERE))))))
PY_SUFFIX  := $(if $(PY_HERE),$(shell $(PYTHON)-config --extension-suffix))
PY_DIR     := $(BUILD)/python/shmalloc
PY_MODULE  := $(PY_DIR)/_shmalloc$(PY_SUFFIX)
PY_FILES   := $(notdir $(wildcard $(addprefix client/python/shmalloc/*,.py .pyi py.typed)))
PY_O       := $(patsubst %.c,$(BUILD)/%.o,$(wildcard client/python/*.c))
PY_ALL     := $(if $(PY_HERE),$(PY_MODULE) $(addprefix $(PY_DIR)/,$(PY_FILES)))

SO := libshmalloc.so.0
PRELOAD := libshmalloc-preload.so
PROGRAMS := $(BUILD)/shmallocd $(BUILD)/shmallocctl $(BUILD)/shmalloc-run $(BUILD)/$(SO) $(BUILD)/$(PRELOAD) $(BUILD)/libshmalloc.a
# C++ is for the tests of shmalloc.hpp, each built by both compilers and for both standards, and for an example.
CPP_BUILDS := $(if $(filter plain,$(FLAVOUR)),$(foreach c,g++ clang++,$(if $(shell command -v $(c)),$(c)-17 $(c)-20)),g++-20)
CPP_WARN   := -Wall -Wextra -Wconversion -Wshadow -Wold-style-cast -Wnon-virtual-dtor $(if $(CI),-Werror)
CPP_TESTS  := $(foreach b,$(CPP_BUILDS),$(patsubst tests/client/cpp/%.cpp,$(BUILD)/cpp/%-$(b),$(wildcard tests/client/cpp/*.cpp)))
CPP_EXAMPLES := $(patsubst client/examples/%.cpp,$(BUILD)/examples/%,$(wildcard client/examples/*.cpp))
EXAMPLES := $(patsubst client/examples/%.c,$(BUILD)/examples/%,$(wildcard client/examples/*.c))
BENCHES  := $(patsubst %,$(BUILD)/bench/%,replay pageheap micro-malloc micro-shmalloc)
MICRO    := $(patsubst tests/bench/micro/%.c,%,$(wildcard tests/bench/micro/*.c))
REPLAY_O := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/bench/replay/*.c))
STRESS   := $(patsubst tests/stress/%.c,$(BUILD)/stress/%,$(wildcard tests/stress/*.c))
KILLS_O  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/stress/kills/*.c)) $(BUILD)/tests/bench/replay/trace.o
STEPPING_O := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/stress/stepping/*.c))
HOOKED_O := $(patsubst %.c,$(BUILD)/hooked/%.o,$(patsubst %,shm/%.c,slots threadrec reclaim seize central span ledger adopt arena image sizeclass) \
	$(patsubst %,client/%.c,tcache tcask tcput tcspan held) $(wildcard tests/interleave/*.c))
INTERLEAVE := $(if $(filter plain,$(FLAVOUR)),$(BUILD)/interleave)
MISUSE   := $(patsubst tests/misuse/%.c,$(BUILD)/misuse/%,$(wildcard tests/misuse/*.c))
# Programs that know nothing of the heap, and libraries of one: a sanitizer's malloc and a preloaded one exclude each other.
PRELOADED := $(if $(filter plain,$(FLAVOUR)),$(patsubst tests/preload/%,$(BUILD)/preload/%,$(filter-out %/plugin %/throws %/loaded,$(basename \
	$(wildcard tests/preload/*.c tests/preload/*.cpp)))) $(addprefix $(BUILD)/preload/,libplugin.so libguest.so libloaded.so libthrows.so \
	libthrows-static.so $(if $(and $(shell command -v clang++),$(wildcard /usr/lib/llvm-*/include/c++/v1/new /usr/include/c++/v1/new)),libthrows-libcxx.so)))
# Clients for the shell tests, and the daemon of another layout version.
SHELL_CLIENTS := $(addprefix $(BUILD)/system/,across load neighbour tenant)
SERVICE  := $(SHELL_CLIENTS) $(BUILD)/system/shmallocd-next $(BUILD)/system/orphan.so
SUITES   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/shm/test_*.c tests/proto/test_*.c \
	tests/daemon/test_*.c tests/client/test_*.c tests/system/test_*.c))
ifneq ($(FLAVOUR),plain)
SUITES   := $(filter-out %/test_preload,$(SUITES))
endif

.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all help programs suites stress everything clean

all: programs ## build the daemon, the library and the tools
programs: $(PROGRAMS) $(EXAMPLES) $(BENCHES)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

# ---- objects and libraries ----

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CF) $(WARN) -c $< -o $@

$(BUILD)/proto/shmalloc.pb-c.c $(BUILD)/proto/shmalloc.pb-c.h &: proto/shmalloc.proto
	@mkdir -p $(@D)
	$(call say,PROTO,$@)
	$(Q)protoc-c --c_out=$(BUILD) $<

$(BUILD)/proto/shmalloc.pb-c.o: $(BUILD)/proto/shmalloc.pb-c.c
	$(call say,CC,$@)
	$(Q)$(CC) $(CF) -c $< -o $@

$(BUILD)/proto/codec.o: $(BUILD)/proto/shmalloc.pb-c.h

# The page that the daemon serves, as the inside of an array.
$(BUILD)/daemon/page.inc: daemon/page.html
	@mkdir -p $(@D)
	$(call say,PAGE,$@)
	$(Q)od -An -v -tx1 $< | sed -E 's/ (..)/0x\1,/g' >$@
$(BUILD)/daemon/page.o: $(BUILD)/daemon/page.inc

$(BUILD)/libshm.a: $(SHM_O)
$(BUILD)/libproto.a: $(PROTO_O)
$(BUILD)/libreport.a: $(REPORT_O)
$(BUILD)/libdaemon.a: $(filter-out %/main.o,$(DAEMON_O))
$(BUILD)/libtest.a: $(LIB_O)
$(BUILD)/libctl.a: $(filter-out %/main.o,$(CTL_O)) $(BUILD)/client/sockpath.o
$(BUILD)/libshmalloc.a: $(CLIENT_O) $(CLIENT_SHM_O) $(PROTO_O)
%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/$(SO): $(CLIENT_O) $(CLIENT_SHM_O) $(PROTO_O) client/libshmalloc.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(SO) -Wl,--version-script=client/libshmalloc.map $(LD_HARDEN) $(LF) \
		$(filter %.o,$^) $(LIBS_PROTO) -pthread -o $@
	$(Q)ln -sf $(SO) $(BUILD)/libshmalloc.so

# Its functions stand before everybody's, so they must not be built as calls of each other: calloc as malloc and memset, and so on. It is
# initialized before all other libraries: its handlers of a fork are then the first.
$(PRELOAD_O): BASE += -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free -fexceptions
$(BUILD)/$(PRELOAD): $(PRELOAD_O) $(CLIENT_O) $(CLIENT_SHM_O) $(PROTO_O) client/libshmalloc-preload.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(PRELOAD) -Wl,--version-script=client/libshmalloc-preload.map -Wl,-Bsymbolic-functions \
		-Wl,-z,initfirst $(LD_HARDEN) $(LF) $(filter %.o,$^) $(LIBS_PROTO) -pthread -o $@

# Where it looks for the library and the daemon when they are not beside it.
$(RUN_O): CET := $(CET)
$(BUILD)/client/runplaces.o: BASE += -DSHMALLOC_LIBDIR='"$(libdir)"' -DSHMALLOC_SBINDIR='"$(sbindir)"' -DSHMALLOC_BINDIR='"$(bindir)"'
$(BUILD)/shmalloc-run: $(RUN_O) $(BUILD)/libshmalloc.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LD_HARDEN) $(LF) $^ $(LIBS_PROTO) -pthread -pie -o $@

$(BUILD)/shmallocd: $(BUILD)/daemon/main.o $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LD_HARDEN) $(LF) $^ $(LIBS_DAEMON) -pie -o $@

$(BUILD)/shmallocctl: $(BUILD)/client/ctl/main.o $(BUILD)/libctl.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LD_HARDEN) $(LF) $^ $(LIBS_CTL) -pie -o $@

# Examples are built as a user would: against the installed header and the shared library.
$(BUILD)/examples/%: client/examples/%.c $(BUILD)/$(SO)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CF) $(WARN) -Iclient $< $(LF) -L$(BUILD) -lshmalloc $(LIBS_EXAMPLE) -Wl,-rpath,'$$ORIGIN/..' -pthread -o $@
$(BUILD)/examples/pipeline: LIBS_EXAMPLE := -lzstd
$(BUILD)/examples/%: client/examples/%.cpp client/shmalloc.hpp $(BUILD)/$(SO)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CXX) $(filter-out -std=%,$(CF)) -std=c++17 $(CPP_WARN) -Iclient $< $(LF) -L$(BUILD) -lshmalloc -Wl,-rpath,'$$ORIGIN/..' -pthread -o $@

# The interpreter has the symbols that the module does not find in the library, so -z defs is not for it.
$(BUILD)/client/python/%.o: CF += $(PY_INC)
$(PY_MODULE): $(PY_O) $(BUILD)/$(SO)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(subst $(comma)-z$(comma)defs,,$(LD_HARDEN)) $(LF) $(filter %.o,$^) -L$(BUILD) -lshmalloc \
		-Wl,-rpath,'$$ORIGIN/../..' -pthread -o $@
$(addprefix $(PY_DIR)/,$(PY_FILES)): $(PY_DIR)/%: client/python/shmalloc/%
	@mkdir -p $(@D)
	$(Q)cp $< $@

.PHONY: python
python: $(PY_ALL) ## the package for Python: PYTHONPATH=build/plain/python; PYTHON=... says for which
	$(if $(PY_HERE),,$(error no headers of $(PYTHON): make deps, or PYTHON=...))

$(BUILD)/bench/replay: $(REPLAY_O) $(BUILD)/libtest.a $(BUILD)/$(SO)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LF) $(filter %.o %.a,$^) -L$(BUILD) -lshmalloc -Wl,-rpath,'$$ORIGIN/..' -lzstd -pthread -o $@

# The rows of micro, compiled for each kind of heap that there is (tests/bench/micro/heap.h).
define micro_rule
$(BUILD)/bench/$(1)/%.o: tests/bench/micro/%.c
	@mkdir -p $$(@D)
	$$(call say,CC,$$@)
	$$(Q)$$(CC) $$(CF) $$(WARN) -fno-builtin -DHEAP_$(1) -c $$< -o $$@
MICRO_$(1) := $$(patsubst %,$(BUILD)/bench/$(1)/%.o,$$(MICRO))
endef
$(foreach h,MALLOC SHMA PEER,$(eval $(call micro_rule,$(h))))

$(BUILD)/bench/micro-malloc: $(MICRO_MALLOC) $(BUILD)/tests/bench/heaps/malloc.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LF) $^ -pthread -o $@

$(BUILD)/bench/micro-shmalloc: $(MICRO_SHMA) $(BUILD)/tests/bench/heaps/shmalloc.o $(BUILD)/libtest.a $(BUILD)/$(SO)
	$(call say,LD,$@)
	$(Q)$(CC) $(LF) $(filter %.o %.a,$^) -L$(BUILD) -lshmalloc -Wl,-rpath,'$$ORIGIN/..' -pthread -o $@

$(BUILD)/bench/pageheap: $(BUILD)/tests/bench/pageheap.o $(BUILD)/bench/MALLOC/measure.o $(BUILD)/libtest.a $(BUILD)/libshm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LF) $^ -o $@

# Other allocators for shared memory: those whose headers are there (make bench-deps). What they need besides is named after them.
peer = $(if $(wildcard $(1)),$(2))
PEERS := $(call peer,/usr/include/boost/interprocess/managed_shared_memory.hpp,boost-rbtree boost-seqfit) \
	$(call peer,/usr/include/mm.h,mm) $(call peer,/usr/include/apr-1.0/apr_rmm.h,apr) \
	$(call peer,/usr/include/iceoryx/v2.0.3/iceoryx_posh,iceoryx) $(call peer,/usr/include/libpmemobj.h,pmemobj)
PEER_FLAGS_boost-seqfit := -DBOOST_SEQ_FIT
PEER_FLAGS_apr := -isystem /usr/include/apr-1.0
PEER_FLAGS_iceoryx := -isystem /usr/include/iceoryx/v2.0.3
PEER_LIBS_mm := -lmm
PEER_LIBS_apr := -laprutil-1 -lapr-1
PEER_LIBS_iceoryx := -liceoryx_posh -liceoryx_hoofs -liceoryx_platform
PEER_LIBS_pmemobj := -lpmemobj
PEER_PROGRAMS := $(patsubst %,$(BUILD)/bench/micro-%,$(PEERS))

$(BUILD)/bench/peers/%.o: tests/bench/heaps/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CF) $(WARN) $(PEER_FLAGS_$*) -c $< -o $@
$(BUILD)/bench/peers/boost-rbtree.o $(BUILD)/bench/peers/boost-seqfit.o: $(BUILD)/bench/peers/boost-%.o: tests/bench/heaps/boost.cpp
	@mkdir -p $(@D)
	$(call say,CXX,$@)
	$(Q)$(CXX) $(filter-out -std=%,$(BASE)) -O2 -Wall -Wextra $(PEER_FLAGS_boost-$*) -c $< -o $@
$(BUILD)/bench/peers/%.o: tests/bench/heaps/%.cpp
	@mkdir -p $(@D)
	$(call say,CXX,$@)
	$(Q)$(CXX) $(filter-out -std=%,$(BASE)) -O2 -Wall -Wextra $(PEER_FLAGS_$*) -c $< -o $@

$(PEER_PROGRAMS): $(BUILD)/bench/micro-%: $(BUILD)/bench/peers/%.o $(MICRO_PEER)
	$(call say,LD,$@)
	$(Q)$(CXX) $(LF) $^ $(PEER_LIBS_$*) -pthread -o $@

$(BUILD)/stress/% : tests/stress/%.c $(BUILD)/libtest.a $(BUILD)/libshmalloc.a $(BUILD)/libshm.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CF) $(WARN) $< $(filter %.o,$^) $(LF) $(filter %.a,$^) $(LIBS_PROTO) $(LIBS_STRESS) -pthread -o $@
$(BUILD)/stress/kills: $(KILLS_O)
$(BUILD)/stress/kills: LIBS_STRESS := -ljansson -lzstd
# The client's and the daemon's code in one program.
$(BUILD)/stress/stepping: $(STEPPING_O) $(BUILD)/libdaemon.a $(BUILD)/libreport.a
$(BUILD)/stress/stepping: LIBS_STRESS := $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(LIBS_DAEMON)

# The real functions once more, with every atomic operation a step of the explorer: it switches stacks, so no sanitizer, no canaries.
$(BUILD)/hooked/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(BASE) -O2 -g $(CFLAGS) -fno-stack-protector $(WARN) -include tests/interleave/hook.h -c $< -o $@

$(BUILD)/interleave: $(HOOKED_O)
	$(call say,LD,$@)
	$(Q)$(CC) $(LF) $^ -o $@

$(BUILD)/misuse/% : tests/misuse/%.c $(BUILD)/$(SO)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CF) $(WARN) $< $(LF) -L$(BUILD) -lshmalloc -Wl,-rpath,'$$ORIGIN/..' -pthread -o $@

$(SHELL_CLIENTS): $(BUILD)/system/%: tests/system/%.c $(BUILD)/libtest.a $(BUILD)/libshmalloc.a $(BUILD)/libshm.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CF) $(WARN) $< $(LF) $(filter %.a,$^) $(LIBS_PROTO) -pthread -o $@

$(BUILD)/system/orphan.so: tests/system/orphan.c
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(BASE) -fvisibility=default -O2 -g $(CFLAGS) $(WARN) $< -shared -o $@

# Named after compiler and standard: containers-clang++-20.
CPP_OPT := -O1
$(addprefix $(BUILD)/cpp/pointers-,$(CPP_BUILDS)): CPP_OPT := -O2
$(addprefix $(BUILD)/cpp/nortti-,$(CPP_BUILDS)): CPP_OPT := -O1 -fno-rtti
define cpp_rule
$(BUILD)/cpp/%-$(1): tests/client/cpp/%.cpp client/shmalloc.hpp $(wildcard tests/client/cpp/*.hpp) $(BUILD)/libtest.a $(BUILD)/$(SO)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$(patsubst %-20,%,$(1:%-17=%)) $$(filter-out -std=% -O%,$$(CF)) $$(CPP_OPT) -std=c++$(lastword $(subst -, ,$(1))) $(CPP_WARN) -Iclient $$< $$(LF) \
		$(BUILD)/libtest.a -L$(BUILD) -lshmalloc -ljansson -Wl,-rpath,'$$$$ORIGIN/..' -pthread -o $$@
endef
$(foreach b,$(CPP_BUILDS),$(eval $(call cpp_rule,$(b))))

# As any other program is built, without a word of ours.
$(BUILD)/preload/libguest.so: tests/preload/plugin.c
$(BUILD)/preload/libplugin.so: tests/preload/plugin.c
$(BUILD)/preload/libloaded.so: tests/preload/loaded.c
$(addprefix $(BUILD)/preload/lib,guest.so plugin.so loaded.so):
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(BASE) -fno-builtin -fvisibility=default $(OPT_$(FLAVOUR)) $(CFLAGS) $(WARN) -Wno-missing-prototypes $< -shared -pthread -o $@
# Its C++ library is in the process, inside of it, or another one.
$(BUILD)/preload/libthrows.so: THROWS_CXX = $(CXX)
$(BUILD)/preload/libthrows-static.so: THROWS_CXX = $(CXX) -static-libstdc++ -static-libgcc
$(BUILD)/preload/libthrows-libcxx.so: THROWS_CXX = clang++ -stdlib=libc++
$(addprefix $(BUILD)/preload/libthrows,.so -static.so -libcxx.so): tests/preload/throws.cpp
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(THROWS_CXX) -O2 -g -Wall -Wextra -fPIC $< -shared -o $@
$(BUILD)/preload/%: tests/preload/%.c
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CF) $(WARN) -fno-builtin -rdynamic -fvisibility=default $< $(LF) $(LIBS_PRELOADED) -pthread -o $@
$(BUILD)/preload/%: tests/preload/%.cpp
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CXX) $(filter-out -std=%,$(BASE)) -O2 -g -Wall -Wextra $< $(LF) -o $@
$(BUILD)/preload/early: $(BUILD)/preload/libplugin.so
$(BUILD)/preload/early: LIBS_PRELOADED := -L$(BUILD)/preload -lplugin -Wl,-rpath,'$$ORIGIN'
$(BUILD)/preload/linked: $(BUILD)/$(SO)
$(BUILD)/preload/linked: LIBS_PRELOADED := -L$(BUILD) -lshmalloc -Wl,-rpath,'$$ORIGIN/..'

NEXT_O := $(BUILD)/next/image.o $(BUILD)/next/check_meta.o
$(BUILD)/next/shm/layout.h: shm/layout.h
	@mkdir -p $(@D)
	$(Q)sed -E 's/^(#define SHMI_LAYOUT_VERSION) .*/\1 4711u/' $< >$@
$(NEXT_O): $(BUILD)/next/%.o: shm/%.c $(BUILD)/next/shm/layout.h
	$(call say,CC,$@)
	$(Q)$(CC) -I$(BUILD)/next $(CF) $(WARN) -c $< -o $@
$(BUILD)/system/shmallocd-next: $(NEXT_O) $(BUILD)/daemon/main.o $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LD_HARDEN) $(LF) $^ $(LIBS_DAEMON) -pie -o $@

# ---- tests: each suite links what it tests ----

TEST_LINK_shm    = $(BUILD)/libtest.a $(BUILD)/libshm.a
TEST_LINK_proto  = $(BUILD)/libreport.a $(BUILD)/libproto.a
TEST_LINK_daemon = $(BUILD)/libtest.a $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
TEST_LINK_client = $(BUILD)/libtest.a $(BUILD)/libshmalloc.a $(BUILD)/libctl.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
TEST_LINK_system = $(BUILD)/libtest.a $(BUILD)/libshmalloc.a $(BUILD)/libshm.a $(BUILD)/libproto.a
TEST_LIBS_shm    =
TEST_LIBS_proto  = $(LIBS_PROTO) -ljansson
TEST_LIBS_daemon = $(LIBS_DAEMON)
TEST_LIBS_client = $(LIBS_CTL)
TEST_LIBS_system = $(LIBS_PROTO) -ljansson

define suite_rule
$(BUILD)/tests/$(1)/%: $(BUILD)/tests/$(1)/%.o $(TEST_LINK_$(1))
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LF) $$(filter %.o,$$^) $(TEST_LINK_$(1)) $(TEST_LIBS_$(1)) $(LIBS_TEST) -pthread -lm -o $$@
endef
$(foreach d,shm proto daemon client system,$(eval $(call suite_rule,$(d))))

$(BUILD)/tests/system/test_replay_check: $(BUILD)/tests/bench/replay/check.o
# They step through examples, which include the installed header.
$(BUILD)/tests/system/test_examples_%_steps.o: BASE += -Iclient

suites: $(SUITES)
stress: $(STRESS)
everything: $(PROGRAMS) $(PY_ALL) $(EXAMPLES) $(BENCHES) $(SUITES) $(STRESS) $(INTERLEAVE) $(MISUSE) $(SERVICE) $(CPP_TESTS) $(CPP_EXAMPLES) $(PRELOADED)

# Where the traces of all ten programs are, if they are at hand; tests/data has three of them.
SHMALLOC_TRACES ?= $(wildcard ../shared/traces)
export SHMALLOC_TRACES
TEST_ENV = BUILD=$(BUILD) PYTHON=$(PYTHON) ASAN_OPTIONS=abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1

SHELL_TESTS := install.sh consumer.sh packaging.sh container.sh hardening.sh units.sh systemd.sh metrics.sh screen.sh page.sh completion.sh tenants.sh run.sh

# All mutants take as long as all other tests: check tries one in so many, others with each commit; `make mutants` all.
MUTANT_SHARE ?= 6

.PHONY: deps check soak mutants demo bench bench-report bench-deps lint format asan tsan coverage products install uninstall \
	check-packages check-container check-programs check-programs-deps
check: everything ## run all tests; ends with a line "N passed, N failed"
	@$(TEST_ENV) MUTANT_SHARE=$(MUTANT_SHARE) tests/run.sh $(SUITES) $(CPP_TESTS) $(STRESS) $(INTERLEAVE) $(REPLAYS) $(addprefix tests/system/,$(SHELL_TESTS)) \
		tests/client/python.sh tests/bench/instructions.sh tests/system/programs-few.sh tests/mutants/run.sh

check-packages: ## build the Debian packages, and install, use and remove them in a fresh system; some minutes, root, a Debian mirror
	@tests/deps.sh $(DEPS_PACKAGES)
	@$(TEST_ENV) TEST_TIMEOUT=3600 tests/run.sh tests/system/packages.sh

check-container: programs $(BUILD)/system/across ## build the image and run the manifests of systemd/container under podman; some minutes, root, a Debian mirror
	@tests/deps.sh $(DEPS_CONTAINER)
	@$(TEST_ENV) TEST_TIMEOUT=3600 tests/run.sh tests/system/engine.sh

check-programs: programs ## some 25 real programs on the heap and on glibc, side by side: a table; half an hour
	@$(TEST_ENV) tests/system/programs.sh $(CHECK_PROGRAMS)

# What has a campaign of its own comes first. `make soak SOAK=build/plain/stress/kills` runs that alone.
CAMPAIGNS := $(addprefix $(BUILD)/,stress/kills stress/stepping tests/daemon/test_deaths tests/daemon/test_deaths_clients \
	tests/system/test_daemon_deaths tests/daemon/test_hostile tests/daemon/test_hostile_adopt tests/system/test_hostile_live) \
	$(INTERLEAVE) tests/system/systemd.sh
SOAK ?= $(CAMPAIGNS) $(filter-out $(CAMPAIGNS),$(STRESS) $(SUITES))
soak: everything ## the same tests with larger counts and all traces: about two hours
	@$(TEST_ENV) SHMALLOC_SOAK=1 tests/run.sh $(SOAK)

mutants: everything ## plant faults in a copy of the sources, one at a time: do the tests notice each of them?
	@$(TEST_ENV) tests/mutants/run.sh

asan: ## make check under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory FLAVOUR=asan check

tsan: ## the stress programs under ThreadSanitizer
	@$(MAKE) --no-print-directory FLAVOUR=tsan tsan-here
tsan-here: $(PROGRAMS) $(STRESS)
	@TSAN_OPTIONS=halt_on_error=1:exitcode=66 $(TEST_ENV) tests/run.sh $(STRESS)

coverage: ## line coverage of shm/ and proto/, by their own suites; fails below 90 %
	@$(MAKE) --no-print-directory FLAVOUR=coverage coverage-here
coverage-here: $(filter $(BUILD)/tests/shm/% $(BUILD)/tests/proto/%,$(SUITES))
	@find $(BUILD) -name '*.gcda' -delete
	@$(TEST_ENV) tests/run.sh $^
	@gcovr -r . --object-directory $(BUILD) -f 'shm/' -f 'proto/' -e '.*pb-c.*' --fail-under-line 90

# Fuzzing, with clang's libFuzzer: tests/fuzz/fuzz_NAME.c, its seeds in tests/fuzz/corpus/NAME, what it links in FUZZ_LINK_NAME and
# FUZZ_LIBS_NAME. Inputs that it finds go to build/fuzz/fuzz/corpus/NAME, those that fail to build/fuzz/fuzz/NAME-crash-...
FUZZ_SECONDS ?= 60
FUZZ_NAMES   := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_LINK_codec = $(BUILD)/libproto.a
FUZZ_LIBS_codec = $(LIBS_PROTO)
FUZZ_LINK_reclaim = $(BUILD)/libtest.a $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
FUZZ_LIBS_reclaim = $(LIBS_DAEMON)
FUZZ_LINK_adopt = $(FUZZ_LINK_reclaim)
FUZZ_LIBS_adopt = $(FUZZ_LIBS_reclaim)
FUZZ_LINK_session = $(FUZZ_LINK_reclaim)
FUZZ_LIBS_session = $(FUZZ_LIBS_reclaim)
FUZZ_LINK_config = $(FUZZ_LINK_reclaim)
FUZZ_LIBS_config = $(FUZZ_LIBS_reclaim)
FUZZ_LINK_ctl = $(BUILD)/libctl.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
FUZZ_LIBS_ctl = $(LIBS_CTL)
FUZZ_LINK_client = $(BUILD)/libshmalloc.a $(BUILD)/libdaemon.a $(BUILD)/libshm.a $(BUILD)/libreport.a $(BUILD)/libproto.a
FUZZ_LIBS_client = $(FUZZ_LIBS_reclaim)

# What each is about, for `make fuzz-coverage`.
FUZZ_OF_codec   := proto/codec.c
FUZZ_OF_reclaim := shm/reclaim.c daemon/reaper.c
FUZZ_OF_adopt   := shm/adopt.c shm/image.c shm/dump.c shm/check_meta.c shm/check_lists.c daemon/heap.c
FUZZ_OF_session := daemon/dialogue.c daemon/session_fsm.c daemon/requests.c daemon/refill.c daemon/large.c daemon/clients.c daemon/core.c \
	daemon/query.c daemon/scavenger.c
FUZZ_OF_config  := daemon/config.c daemon/configfile.c daemon/configprint.c daemon/settings.c daemon/settingkinds.c daemon/access.c
FUZZ_OF_ctl     := client/ctl/ proto/report/
FUZZ_OF_client  := client/channel.c client/greeting.c client/sock.c client/attach.c client/pool.c client/large.c client/bigcache.c client/thread.c client/mapping.c

define fuzz_rule
$(BUILD)/fuzz/$(1): $(BUILD)/tests/fuzz/fuzz_$(1).o $(FUZZ_LINK_$(1))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LF) -fsanitize=fuzzer $$^ $(FUZZ_LIBS_$(1)) -pthread -o $$@

$(BUILD)/fuzz/replay-$(1): $(BUILD)/tests/fuzz/fuzz_$(1).o $(BUILD)/tests/fuzz/replay.o $(FUZZ_LINK_$(1))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LF) $$^ $(FUZZ_LIBS_$(1)) -pthread -lm -o $$@

.PHONY: fuzz-$(1) fuzz-coverage-$(1)
fuzz-coverage-$(1): $(BUILD)/fuzz/replay-$(1)
	@find $(BUILD) -name '*.gcda' -delete
	@ls -d build/fuzz/fuzz/corpus/$(1) 2>/dev/null | xargs $(BUILD)/fuzz/replay-$(1)
	@gcovr -r . --object-directory $(BUILD) $(patsubst %,-f '%',$(FUZZ_OF_$(1))) -s | sed -n '/^shm\|^proto\|^daemon\|^client/p; s/^lines:/$(1): lines/p'
fuzz-$(1): $(BUILD)/fuzz/$(1)
	@tests/fuzz/run.sh $$< $(1) $(FUZZ_SECONDS)
endef
$(foreach f,$(FUZZ_NAMES),$(eval $(call fuzz_rule,$(f))))

.PHONY: fuzz fuzz-here fuzz-coverage fuzz-coverage-here
fuzz: ## run every fuzz target for FUZZ_SECONDS (60)
	@$(MAKE) --no-print-directory FLAVOUR=fuzz fuzz-here
fuzz-here: $(addprefix fuzz-,$(FUZZ_NAMES))

# Without a fuzzer: the corpora and what is made from them, as part of `make check`; and which lines of their targets that reaches.
REPLAYS := $(patsubst %,$(BUILD)/fuzz/replay-%,$(FUZZ_NAMES))
everything: $(REPLAYS)
fuzz-coverage: ## line coverage of what the fuzz targets are about, by their corpora
	@$(MAKE) --no-print-directory FLAVOUR=coverage fuzz-coverage-here
fuzz-coverage-here:
	@$(foreach f,$(FUZZ_NAMES),$(MAKE) --no-print-directory fuzz-coverage-$(f) &&) true

demo: ## what it is for, shown: three processes, one heap, real traces
	@$(MAKE) --no-print-directory deps-if-missing
	@$(MAKE) --no-print-directory programs
	@BUILD=$(BUILD) tests/system/demo.sh

# `make bench BENCH="pair set"` runs these sections alone: tests/bench/README.md
BENCH_ENV = BUILD=$(BUILD) PEERS="$(PEERS)"
bench: $(BENCHES) $(PEER_PROGRAMS) $(PROGRAMS) ## this heap against others: a table, in less than ten minutes; on an idle machine
	@$(BENCH_ENV) tests/bench/run.sh $(BENCH)

bench-report: bench ## the same, with plots
	@BUILD=$(BUILD) tests/bench/plots.sh

lint: $(PROGRAMS) ## formatting, include graph, exported symbols, compiler and static analysis
	@BUILD=$(BUILD) PYTHON_FLAGS='$(if $(PY_HERE),$(PY_INC))' tests/lint.sh

format: $(BUILD)/proto/shmalloc.pb-c.h ## clang-format all sources in place
	@git ls-files '*.c' '*.h' '*.cpp' '*.hpp' | xargs clang-format -i

# ---- packages ----

DEPS := gcc make pkg-config libevent-dev libsystemd-dev libprotobuf-c-dev protobuf-c-compiler libjansson-dev libinih-dev libncurses-dev \
	libcriterion-dev libzstd-dev
DEPS_TEST := systemd systemd-container valgrind tmux libxml2-utils python3-dev python3-numpy libboost-dev cmake dpkg-dev python3-yaml procps \
	time perl sqlite3 g++ libc++-dev libc++abi-dev
DEPS_BROWSER := chromium chromium-driver curl jq
DEPS_LINT := clang clang-format clang-tidy cppcheck libclang-rt-14-dev gcovr mandoc
DEPS_PACKAGES := dpkg-dev debhelper dh-python lintian mmdebstrap systemd-container
DEPS_CONTAINER := podman crun mmdebstrap python3-yaml
DEPS_PROGRAMS := time sqlite3 python3 libpython3.11-testsuite perl lua5.4 gcc git redis-server redis-tools jq xz-utils poppler-utils ghostscript \
	nodejs default-jdk-headless mawk bash make g++ cmake clang imagemagick memcached tmux vim zstd
DEPS_BENCH := gnuplot-nox valgrind libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0 g++ libboost-dev libmm-dev libapr1-dev \
	libaprutil1-dev libiceoryx-posh-dev libiceoryx-hoofs-dev libpmemobj-dev
.PHONY: deps-if-missing tsan-here coverage-here always
deps: ## install what building, testing and linting needs (Debian; asks for root)
	@tests/deps.sh $(DEPS) $(DEPS_TEST) $(DEPS_BROWSER) $(DEPS_LINT)
deps-if-missing:
	@tests/deps.sh $(DEPS)
check-programs-deps: ## install the programs that make check-programs runs
	@tests/deps.sh $(DEPS_PROGRAMS)
bench-deps: ## install the allocators that make bench compares with, gnuplot and valgrind
	@tests/deps.sh $(DEPS_BENCH)

# promtool checks what shmallocctl says for Prometheus. Its package starts a server when it is installed, so it is only unpacked.
build/tools/promtool:
	@mkdir -p $(@D)
	@cd $(@D) && apt-get -qq download prometheus && dpkg-deb -x prometheus_*.deb prometheus && rm -f prometheus_*.deb
	@ln -sf prometheus/usr/bin/promtool $@

# ---- install: one list drives install and uninstall: mode, built file, place ----

# What is generated from NAME.in, for whatever prefix this call has.
PC    := $(BUILD)/client/shmalloc.pc
CMAKE := $(BUILD)/client/shmallocConfig.cmake $(BUILD)/client/shmallocConfigVersion.cmake
UNITS := $(BUILD)/systemd/shmallocd.service $(BUILD)/systemd/user/shmallocd.service
cmakedir = $(libdir)/cmake/shmalloc
# In shmalloc.pc, so that pkg-config --define-prefix finds a tree that was moved.
below = $(patsubst $(prefix)/%,$${prefix}/%,$(1))
$(PC) $(CMAKE) $(UNITS): $(BUILD)/%: %.in always
	@mkdir -p $(@D)
	@sed -e 's|@prefix@|$(prefix)|' -e 's|@libdir@|$(call below,$(libdir))|' -e 's|@includedir@|$(call below,$(includedir))|' \
		-e 's|@version@|$(VERSION)|' \
		-e 's|@sbindir@|$(sbindir)|' -e 's|@so@|$(SO)|' \
		-e "s|@fromcmake@|$$(realpath -m --relative-to='$(cmakedir)' '$(includedir)')|" $< >$@

INSTALL_LIST := 755:$(BUILD)/shmallocd:$(sbindir)/shmallocd \
	755:$(BUILD)/shmallocctl:$(bindir)/shmallocctl \
	755:$(BUILD)/$(SO):$(libdir)/$(SO) \
	755:$(BUILD)/$(PRELOAD):$(libdir)/$(PRELOAD) \
	755:$(BUILD)/shmalloc-run:$(bindir)/shmalloc-run \
	644:$(BUILD)/libshmalloc.a:$(libdir)/libshmalloc.a \
	644:client/shmalloc.h:$(includedir)/shmalloc.h \
	644:client/shmalloc.hpp:$(includedir)/shmalloc.hpp \
	644:$(PC):$(libdir)/pkgconfig/shmalloc.pc \
	$(foreach f,$(CMAKE),644:$(f):$(cmakedir)/$(notdir $(f))) \
	644:$(BUILD)/systemd/shmallocd.service:$(unitdir)/shmallocd.service \
	644:systemd/shmallocd.socket:$(unitdir)/shmallocd.socket \
	644:systemd/shmallocd-http.socket:$(unitdir)/shmallocd-http.socket \
	644:$(BUILD)/systemd/user/shmallocd.service:$(userunitdir)/shmallocd.service \
	644:systemd/user/shmallocd.socket:$(userunitdir)/shmallocd.socket \
	644:systemd/shmalloc.sysusers:$(sysusersdir)/shmalloc.conf \
	644:systemd/shmalloc.tmpfiles:$(tmpfilesdir)/shmalloc.conf \
	644:client/ctl/shmallocctl.bash:$(completionsdir)/shmallocctl \
	644:client/ctl/shmallocctl.bash:$(completionsdir)/shmallocd \
	$(foreach m,$(wildcard client/*.1 client/ctl/*.1),644:$(m):$(mandir)/man1/$(notdir $(m))) \
	644:systemd/shmallocd.conf.example:$(docdir)/shmallocd.conf.example \
	$(foreach m,$(wildcard daemon/*.5),644:$(m):$(mandir)/man5/$(notdir $(m))) \
	$(foreach m,$(wildcard daemon/*.8),644:$(m):$(mandir)/man8/$(notdir $(m))) \
	$(foreach m,$(wildcard client/*.3),644:$(m):$(mandir)/man3/$(notdir $(m))) \
	$(foreach f,$(PY_ALL),644:$(f):$(pythondir)/shmalloc/$(notdir $(f)))
field = $(word $(2),$(subst :, ,$(1)))

products: $(PROGRAMS) $(PY_ALL) $(PC) $(CMAKE) $(UNITS)
install: products ## install below $(DESTDIR)$(prefix)
	@$(foreach i,$(INSTALL_LIST),install -D -m $(call field,$(i),1) $(call field,$(i),2) '$(DESTDIR)$(call field,$(i),3)' &&) true
	@ln -sf $(SO) '$(DESTDIR)$(libdir)/libshmalloc.so'

uninstall: ## remove what install installed
	@rm -f $(foreach i,$(INSTALL_LIST),'$(DESTDIR)$(call field,$(i),3)') '$(DESTDIR)$(libdir)/libshmalloc.so'

clean: ## remove build/
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
