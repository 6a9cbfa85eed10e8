/* Violations as they are found, and the table at the end. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/stress/kills/nemesis.h"

#define SHOWN 30u

void violation(const char *format, ...)
{
	char text[400];
	va_list args;

	if (atomic_fetch_add(&campaign.board->violations, 1) >= SHOWN)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)dprintf(STDERR_FILENO, "kills: violation: %s\n", text);
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static void outages(struct tally *t)
{
	if (!t->outages) {
		printf(" %26s\n", "-");
		return;
	}
	qsort(t->outage_ns, t->outages, sizeof(*t->outage_ns), by_size);
	printf(" %8.1f %8.1f %8.1f\n", ms((uint64_t)t->outage_ns[t->outages / 2]),
	        ms((uint64_t)t->outage_ns[(t->outages - 1) * 99 / 100]), ms((uint64_t)t->outage_ns[t->outages - 1]));
}

void report(double seconds)
{
	static const char *const names[PHASES] = {"clients killed", "daemon killed", "both at once"};
	const struct board *b = campaign.board;
	uint64_t checked = b->audited, calls = 0, gave_up = 0;

	printf("%-16s %8s %8s %8s %10s %8s %10s %8s %8s %8s\n", "fault", "clients", "daemon", "stopped", "longest ms",
	        ">100 ms", "other ms", "out p50", "out p99", "out max");
	for (uint32_t phase = 0; phase < PHASES; phase++) {
		uint64_t longest = 0, other = 0, slow = 0;

		for (uint32_t s = 0; s < SLOTS; s++) {
			const struct slot *slot = &b->slot[s];

			longest = slot->longest_ns[phase] > longest ? slot->longest_ns[phase] : longest;
			other = slot->longest_other_ns[phase] > other ? slot->longest_other_ns[phase] : other;
			slow += slot->slow[phase];
		}
		printf("%-16s %8u %8u %8u %10.1f %8" PRIu64 " %10.1f", names[phase], tally[phase].client_kills,
		        tally[phase].daemon_kills, tally[phase].stops, ms(longest), slow, ms(other));
		outages(&tally[phase]);
	}
	for (uint32_t s = 0; s < SLOTS; s++) {
		calls += b->slot[s].calls;
		checked += b->slot[s].checked;
		gave_up += b->slot[s].gave_up;
	}
	printf("calls %" PRIu64 " (gave up %" PRIu64 "), blocks checked %" PRIu64 ", audits %" PRIu64
	       ", most live blocks %" PRIu64 "\n",
	        calls, gave_up, checked, b->audits, b->most_live);
	printf("blocks lost (nobody was told) %" PRIu64 ", frees undone %" PRIu64 ", slots written off %" PRIu64
	       ", found in transit %" PRIu64 "\n",
	        b->lost, b->undone, b->written_off, b->orphans);
	printf("kills under load: injections %u, violations %u, %.0f s\n",
	        tally[0].client_kills + tally[0].daemon_kills + tally[1].client_kills + tally[1].daemon_kills +
	                tally[2].client_kills + tally[2].daemon_kills,
	        atomic_load(&b->violations), seconds);
}
