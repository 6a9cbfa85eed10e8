#include "tests/lib/stepper.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE_MAX 64u /* executable mappings */
#define BLOCK 512u /* bytes that are compared and digested at a time */

/* ---- the code of this program, which is the child's as well ---- */

struct code {
	uint64_t start, end;
};

static struct code code[CODE_MAX];
static uint32_t n_code, last_code;

static void find_code(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], rights[5];

	n_code = last_code = 0;
	while (maps && n_code < CODE_MAX && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3 || rights[0] != 'r' || rights[2] != 'x')
			continue;
		code[n_code++] = (struct code){start, end};
	}
	if (maps)
		fclose(maps);
}

/* Four bytes of code at `pc`, or 0 where the child has code that we have not. */
static const unsigned char *code_at(uint64_t pc)
{
	static const unsigned char none[4];

	for (uint32_t i = 0; i < n_code; i++) {
		const struct code *c = &code[(last_code + i) % n_code];

		if (pc < c->start || pc + 4 > c->end)
			continue;
		last_code = (last_code + i) % n_code;
		return (const unsigned char *)(uintptr_t)pc;
	}
	return none;
}

static bool is_syscall(const unsigned char *insn)
{
	return insn[0] == 0x0f && insn[1] == 0x05;
}

/* Bytes of a repeated string instruction, or 0. */
static uint32_t string_bytes(const unsigned char *insn)
{
	uint32_t n = 1;

	if (insn[0] != 0xf3 && insn[0] != 0xf2)
		return 0;
	n += (insn[n] & 0xf0) == 0x40; /* REX */
	return insn[n] == 0xa4 || insn[n] == 0xa5 || insn[n] == 0xaa || insn[n] == 0xab ? n + 1 : 0;
}

/* ---- the child ---- */

#if defined(__x86_64__)
void stepper_mark(uint32_t number)
{
	__asm__ volatile("int3" : : "a"((uint64_t)number) : "memory");
}

static uint64_t pc_of(const struct stepper *s)
{
	return (uint64_t)ptrace(PTRACE_PEEKUSER, s->pid, (void *)offsetof(struct user_regs_struct, rip), NULL);
}

static void set_pc(const struct stepper *s, uint64_t pc)
{
	(void)ptrace(PTRACE_POKEUSER, s->pid, (void *)offsetof(struct user_regs_struct, rip), (void *)(uintptr_t)pc);
}

static uint32_t mark_of(const struct stepper *s)
{
	return (uint32_t)ptrace(PTRACE_PEEKUSER, s->pid, (void *)offsetof(struct user_regs_struct, rax), NULL);
}
#else
void stepper_mark(uint32_t number)
{
	(void)number;
}

static uint64_t pc_of(const struct stepper *s)
{
	return (uint64_t)s->pid;
}

static void set_pc(const struct stepper *s, uint64_t pc)
{
	(void)s;
	(void)pc;
}

static uint32_t mark_of(const struct stepper *s)
{
	return (uint32_t)s->pid;
}
#endif

const char *stepper_why_not(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return "a sanitizer's code is not what is shipped, and cannot be stepped";
#elif !defined(__x86_64__)
	return "single-stepping is written for x86-64";
#else
	return NULL;
#endif
}

static cpu_set_t everywhere; /* where this process may run when it does not step */

/* To the processor that we are on: stepping is a call from one process to the other and back. */
static void stay_here(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	(void)sched_getaffinity(0, sizeof(everywhere), &everywhere);
	CPU_ZERO(&one);
	CPU_SET((size_t)(cpu < 0 ? 0 : cpu), &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

static void go_anywhere(void)
{
	(void)sched_setaffinity(0, sizeof(everywhere), &everywhere);
}

static void be_traced(pid_t parent, void (*run)(void *arg), void *arg)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		_exit(125);
	(void)raise(SIGSTOP);
	run(arg);
	_exit(0);
}

int stepper_start(struct stepper *s, void (*run)(void *arg), void *arg)
{
	pid_t parent = getpid();

	find_code();
	s->boundaries = 0;
	s->mark = 0;
	s->status = 0;
	stay_here();
	(void)fflush(NULL);
	s->pid = fork();
	if (s->pid == 0)
		be_traced(parent, run, arg);
	int error = s->pid < 0 ? -errno : 0;

	if (!error && (waitpid(s->pid, &s->status, 0) != s->pid || !WIFSTOPPED(s->status)))
		error = -EPERM;
	if (!error && ptrace(PTRACE_SETOPTIONS, s->pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) != 0)
		error = -errno;
	if (error) {
		go_anywhere();
		s->pid = 0;
	}
	return error;
}

void stepper_kill(struct stepper *s)
{
	go_anywhere();
	if (s->pid <= 0)
		return;
	(void)kill(s->pid, SIGKILL);
	while (waitpid(s->pid, &s->status, 0) < 0 && errno == EINTR)
		;
	s->pid = 0;
}

/* Goes on and waits. Returns the signal that it stopped with (SIGTRAP | 0x80 at a system call), or 0 at its end. */
static int go_on(struct stepper *s, enum __ptrace_request how, int with)
{
	if (ptrace(how, s->pid, NULL, (void *)(intptr_t)with) != 0)
		return 0;
	while (waitpid(s->pid, &s->status, 0) < 0)
		if (errno != EINTR)
			return 0;
	if (WIFSTOPPED(s->status))
		return WSTOPSIG(s->status);
	s->pid = 0; /* reaped */
	return 0;
}

static enum stepper_stop at_mark(struct stepper *s)
{
	s->mark = mark_of(s);
	return STEPPER_MARK;
}

enum stepper_stop stepper_run(struct stepper *s)
{
	int stopped = 0;

	for (;;) {
		stopped = go_on(s, PTRACE_SYSCALL, stopped);
		if (!stopped)
			return STEPPER_ENDED;
		if (stopped == SIGTRAP && code_at(pc_of(s) - 1)[0] == 0xcc)
			return at_mark(s);
		if (stopped == (SIGTRAP | 0x80) && s->at_syscall)
			s->at_syscall(s->ctx);
		if (stopped == SIGTRAP || stopped == (SIGTRAP | 0x80))
			stopped = 0;
	}
}

/* Over a repeated string instruction at once, with a breakpoint behind it. */
static int step_over(struct stepper *s, uint64_t next)
{
	void *at = (void *)(uintptr_t)(next & ~7ull);
	uint32_t shift = (uint32_t)(next & 7) * 8;
	uint64_t word = (uint64_t)ptrace(PTRACE_PEEKTEXT, s->pid, at, NULL);
	uint64_t trap = (word & ~(0xffull << shift)) | 0xccull << shift;

	if (ptrace(PTRACE_POKETEXT, s->pid, at, (void *)(uintptr_t)trap) != 0)
		return go_on(s, PTRACE_SINGLESTEP, 0);
	int stopped = go_on(s, PTRACE_CONT, 0);

	if (!stopped)
		return 0;
	(void)ptrace(PTRACE_POKETEXT, s->pid, at, (void *)(uintptr_t)word);
	if (stopped == SIGTRAP && pc_of(s) == next + 1)
		set_pc(s, next);
	return stopped;
}

enum stepper_stop stepper_step(struct stepper *s)
{
	uint64_t pc = pc_of(s);
	const unsigned char *insn = code_at(pc);
	uint32_t bytes = s->strings ? 0 : string_bytes(insn);
	bool marker = insn[0] == 0xcc;
	int with = 0, stopped;

	if (is_syscall(insn) && s->at_syscall)
		s->at_syscall(s->ctx);
	do {
		stopped = bytes ? step_over(s, pc + bytes) : go_on(s, PTRACE_SINGLESTEP, with);
		if (!stopped)
			return STEPPER_ENDED;
		with = stopped; /* a signal: it is delivered, and the handler's first instruction is next */
	} while (stopped != SIGTRAP);
	if (marker)
		return at_mark(s);
	s->boundaries++;
	s->pc = pc_of(s);
	return STEPPER_BOUNDARY;
}

/* ---- which states are new ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

static void *more(void *array, uint32_t *room, uint32_t needed, size_t each)
{
	if (needed <= *room)
		return array;
	*room = needed * 2 < 256 ? 256 : needed * 2;
	array = realloc(array, *room * each);
	if (!array)
		abort();
	return array;
}

static bool put_digest(struct stepper_seen *seen, uint64_t digest)
{
	uint32_t at = (uint32_t)digest & (seen->room - 1);

	for (; seen->digest[at]; at = (at + 1) & (seen->room - 1))
		if (seen->digest[at] == digest)
			return false;
	seen->digest[at] = digest;
	return true;
}

bool stepper_seen_new(struct stepper_seen *seen, uint64_t digest)
{
	digest += !digest; /* 0 is an empty place */
	if (seen->count * 2 >= seen->room) {
		struct stepper_seen old = *seen;

		seen->room = old.room ? old.room * 2 : 1024;
		seen->digest = calloc(seen->room, sizeof(*seen->digest));
		if (!seen->digest)
			abort();
		for (uint32_t i = 0; i < old.room; i++)
			if (old.digest[i])
				(void)put_digest(seen, old.digest[i]);
		free(old.digest);
	}
	bool is_new = put_digest(seen, digest);

	seen->count += is_new;
	return is_new;
}

void stepper_seen_free(struct stepper_seen *seen)
{
	free(seen->digest);
	*seen = (struct stepper_seen){0};
}

struct stepper_block {
	const unsigned char *start;
	size_t len;
	uint64_t digest; /* 0: never looked at */
	unsigned char copy[BLOCK];
};

void stepper_watch_add(struct stepper_watch *w, const void *start, size_t len)
{
	for (const unsigned char *at = start; len;) {
		size_t n = len < BLOCK ? len : BLOCK;

		w->block = more(w->block, &w->room, w->count + 1, sizeof(*w->block));
		struct stepper_block *b = &w->block[w->count++];

		*b = (struct stepper_block){.start = at, .len = n};
		at += n;
		len -= n;
	}
}

static uint64_t digest_of(const struct stepper_block *b, uint32_t index)
{
	uint64_t h = mix(index + 1), word;

	for (size_t i = 0; i < b->len; i += sizeof(word)) {
		size_t n = b->len - i < sizeof(word) ? b->len - i : sizeof(word);

		word = 0;
		memcpy(&word, b->copy + i, n);
		h = (h ^ word) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	h = mix(h);
	return h ? h : 1;
}

bool stepper_watch_look(struct stepper_watch *w)
{
	bool changed = false;

	for (uint32_t i = 0; i < w->count; i++) {
		struct stepper_block *b = &w->block[i];

		if (b->digest && memcmp(b->copy, b->start, b->len) == 0)
			continue;
		memcpy(b->copy, b->start, b->len);
		w->digest ^= b->digest;
		b->digest = digest_of(b, i);
		w->digest ^= b->digest;
		changed = true;
	}
	return changed;
}

void stepper_watch_free(struct stepper_watch *w)
{
	free(w->block);
	*w = (struct stepper_watch){0};
}
