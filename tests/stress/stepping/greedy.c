#include "tests/stress/stepping/greedy.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "shm/slots.h"

#define PAGE 4096u
#define TRAP_FLAG 0x100

static struct {
	struct oracle *o;
	unsigned char *start; /* of the bitmaps */
	size_t len;
	uint64_t off; /* of the store under way */
	bool open;
	uint32_t taken;
	uint64_t twice; /* offset of a live block that was put */
	struct sigaction fault, trap; /* as they were */
} now;

static void protect(unsigned char *start, size_t len, int protection)
{
	if (mprotect(start, len, protection) != 0)
		abort();
}

/* What stands in the word that was stored to, if it is another client's. */
static void take(uint64_t off)
{
	const struct shmi_image *img = &now.o->w->heap.img;
	uint32_t first = shmi_load(shmi_page_span_at(img, (shmi_page){(uint32_t)(off / SHMI_BITMAP_BYTES_PER_PAGE)}));
	struct shmi_word word = shmi_span_word(img, (shmi_page){first});
	uint32_t w = (uint32_t)((off - (uint64_t)first * SHMI_BITMAP_BYTES_PER_PAGE) / 8);

	if (word.state != SHMI_SPAN_OWNED || word.owner == now.o->victim)
		return;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word.sclass)];
	uint64_t bits = shmi_slots_peek(shmi_bitmap_at(img, (shmi_page){first}), class, w);

	for (uint64_t live = bits & now.o->live[first][w]; live; live &= live - 1) {
		uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(live);
		uint64_t block = shmi_page_off((shmi_page){first}).b + (uint64_t)slot * class->size;

		if (block != now.o->old)
			now.twice = block;
	}
	(void)shmi_slots_take(shmi_bitmap_at(img, (shmi_page){first}), w, bits);
	oracle_taken(now.o, (shmi_page){first}, w, bits);
	now.taken += (uint32_t)__builtin_popcountll(bits);
}

#if defined(__x86_64__)
static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	now.off = (uint64_t)((unsigned char *)info->si_addr - now.start);
	if (now.open || now.off >= now.len) {
		(void)signal(sig, SIG_DFL); /* a fault of its own: happens again, for good */
		return;
	}
	protect(now.start, now.len, PROT_READ | PROT_WRITE);
	now.open = true;
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	if (now.open)
		take(now.off);
	now.open = false;
	protect(now.start, now.len, PROT_READ);
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}
#else
static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)info, (void)context;
	take(now.off);
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)info, (void)context;
}
#endif

void greedy_start(struct oracle *o)
{
	const struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	const struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
	const struct shmi_geometry *geo = &o->w->heap.img.geo;

	memset(&now, 0, sizeof(now));
	now.o = o;
	now.start = o->w->heap.img.ctl + geo->bitmaps;
	now.len = (size_t)geo->limit_pages * SHMI_BITMAP_BYTES_PER_PAGE;
	if ((uintptr_t)now.start % PAGE || now.len % PAGE)
		world_die("the bitmaps are not whole pages");
	(void)sigaction(SIGSEGV, &fault, &now.fault);
	(void)sigaction(SIGTRAP, &trap, &now.trap);
	protect(now.start, now.len, PROT_READ);
}

uint32_t greedy_stop(uint64_t *twice)
{
	protect(now.start, now.len, PROT_READ | PROT_WRITE);
	(void)sigaction(SIGSEGV, &now.fault, NULL);
	(void)sigaction(SIGTRAP, &now.trap, NULL);
	*twice = now.twice;
	return now.taken;
}
