#include "tests/lib/stores.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096ull
#define TRAP_FLAG 0x100ll
#define WINDOW 64u /* a store has at most so many bytes, on either side of the address that faulted */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* The recording that is going on. */
static struct {
	struct stores *log;
	const struct stores_range *ranges;
	uint32_t n;
	/* the store under way */
	bool open;
	uint32_t range;
	uint64_t from, to; /* what of the range it can change */
	unsigned char before[3 * WINDOW];
} now;

bool stores_possible(const char **why)
{
#if defined(SANITIZED)
	*why = "stores cannot be stepped under a sanitizer";
	return false;
#elif !defined(__x86_64__)
	*why = "stores are stepped with the trap flag of x86-64";
	return false;
#else
	*why = NULL;
	return true;
#endif
}

void stores_init(struct stores *log)
{
	*log = (struct stores){0};
}

void stores_deinit(struct stores *log)
{
	free(log->change);
	free(log->pool);
	stores_init(log);
}

size_t stores_now(void)
{
	return now.log ? now.log->count : 0;
}

/* ---- the log ---- */

/* What grows in a signal handler: the watched function is at a store to a range, so it is not inside malloc. */
static void *grown(void *memory, size_t used, size_t *room, size_t need, size_t each)
{
	if (used + need <= *room)
		return memory;
	*room = (used + need) * 2;
	memory = realloc(memory, *room * each);
	if (!memory)
		abort();
	return memory;
}

static void note(struct stores *log, uint32_t range, uint64_t off, uint32_t len, const unsigned char *before,
        const unsigned char *after)
{
	log->change = grown(log->change, log->count, &log->room, 1, sizeof(*log->change));
	log->pool = grown(log->pool, log->used, &log->pool_room, 2 * (size_t)len, 1);
	log->change[log->count++] = (struct stores_change){.off = off, .range = range, .len = len, .bytes = log->used};
	memcpy(log->pool + log->used, before, len);
	memcpy(log->pool + log->used + len, after, len);
	log->used += 2 * (size_t)len;
}

/* Notes the bytes from the first to the last that differ. */
static void note_difference(struct stores *log, uint32_t range, uint64_t off, uint64_t len, const unsigned char *before,
        const unsigned char *after)
{
	uint64_t first = 0;

	while (first < len && before[first] == after[first])
		first++;
	while (len > first && before[len - 1] == after[len - 1])
		len--;
	if (first < len)
		note(log, range, off + first, (uint32_t)(len - first), before + first, after + first);
}

void stores_apply(const struct stores *log, const struct stores_range *ranges, size_t from, size_t to)
{
	for (; from < to; from++) {
		const struct stores_change *c = &log->change[from];

		memcpy(ranges[c->range].start + c->off, stores_after(log, c), c->len);
	}
	for (; from > to; from--) {
		const struct stores_change *c = &log->change[from - 1];

		memcpy(ranges[c->range].start + c->off, stores_before(log, c), c->len);
	}
}

/* ---- one store at a time ---- */

static bool find_range(const void *at, uint32_t *range)
{
	const unsigned char *p = at;

	for (*range = 0; *range < now.n; ++*range)
		if (p >= now.ranges[*range].start && p < now.ranges[*range].start + now.ranges[*range].len)
			return true;
	return false;
}

static void protect(uint32_t range, uint64_t from, uint64_t to, int protection)
{
	unsigned char *start = now.ranges[range].start + (from & ~(PAGE - 1));
	unsigned char *end = now.ranges[range].start + ((to + PAGE - 1) & ~(PAGE - 1));

	if (mprotect(start, (size_t)(end - start), protection))
		abort();
}

/* The pages that a store at this address can reach. */
static void open_window(uint32_t range, uint64_t off)
{
	uint64_t len = now.ranges[range].len;

	now.range = range;
	now.from = off > WINDOW ? off - WINDOW : 0;
	now.to = off + 2 * (uint64_t)WINDOW < len ? off + 2 * (uint64_t)WINDOW : len;
	now.open = true;
	memcpy(now.before, now.ranges[range].start + now.from, now.to - now.from);
	protect(range, now.from, now.to, PROT_READ | PROT_WRITE);
}

static void close_window(void)
{
	note_difference(
	        now.log, now.range, now.from, now.to - now.from, now.before, now.ranges[now.range].start + now.from);
	protect(now.range, now.from, now.to, PROT_READ);
	now.open = false;
}

#if defined(__x86_64__)
static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint32_t range;

	if (!now.log || now.open || !find_range(info->si_addr, &range)) {
		signal(sig, SIG_DFL); /* a fault of its own: happens again, for good */
		return;
	}
	now.log->traps++;
	open_window(range, (uint64_t)((unsigned char *)info->si_addr - now.ranges[range].start));
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	if (now.open)
		close_window();
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}
#endif

void stores_record(struct stores *log, const struct stores_range *ranges, uint32_t n, void (*run)(void *ctx), void *ctx)
{
#if defined(__x86_64__)
	struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, old_fault;
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, old_trap;

	log->count = log->used = 0;
	log->traps = 0;
	now.log = log;
	now.ranges = ranges;
	now.n = n;
	sigaction(SIGSEGV, &fault, &old_fault);
	sigaction(SIGTRAP, &trap, &old_trap);
	for (uint32_t i = 0; i < n; i++)
		protect(i, 0, ranges[i].len, PROT_READ);
	run(ctx);
	for (uint32_t i = 0; i < n; i++)
		protect(i, 0, ranges[i].len, PROT_READ | PROT_WRITE);
	now.log = NULL;
	sigaction(SIGSEGV, &old_fault, NULL);
	sigaction(SIGTRAP, &old_trap, NULL);
#else
	(void)log, (void)ranges, (void)n, (void)run, (void)ctx;
	abort();
#endif
}

/* ---- what system calls do ---- */

static void set_page(unsigned char *at, int byte, size_t len)
{
	unsigned char before[PAGE];
	uint32_t range;

	for (size_t i = 0; i < len && at[i] == (unsigned char)byte; i++)
		if (i == len - 1)
			return;
	if (!now.log || !find_range(at, &range)) {
		memset(at, byte, len);
		return;
	}
	uint64_t off = (uint64_t)(at - now.ranges[range].start);

	memcpy(before, at, len);
	protect(range, off, off + len, PROT_READ | PROT_WRITE);
	memset(at, byte, len);
	protect(range, off, off + len, PROT_READ);
	note_difference(now.log, range, off, len, before, at);
}

void stores_set(void *at, int byte, size_t len)
{
	unsigned char *p = at;

	while (len) {
		size_t part = PAGE - ((uintptr_t)p & (PAGE - 1));

		part = part < len ? part : len;
		set_page(p, byte, part);
		p += part;
		len -= part;
	}
}
