#include "tests/bench/replay/replay.h"

#include <stdio.h>

#define MIB (1024.0 * 1024)

const char *mode_name(enum mode mode)
{
	static const char *const names[] = {"single", "procs", "handover", "threads"};

	return names[mode];
}

static double per(uint64_t what, uint64_t by)
{
	return by ? (double)what / (double)by : 0;
}

void report_head(const struct options *options)
{
	if (!options->json)
		printf("%-14s %-8s %3s %-6s %10s %8s %9s %9s %6s %8s %9s %6s\n", "trace", "mode", "n", "heap", "events",
		        "ns/event", "live MiB", "peak MiB", "ratio", "messages", "ev/msg", "errors");
}

static void report_json(const struct options *options, const struct result *r)
{
	printf("{\"trace\": \"%s\", \"mode\": \"%s\", \"players\": %u, \"allocator\": \"%s\", \"checked\": %s, "
	       "\"events\": %llu, \"ns_per_event\": %.2f, \"peak_live_bytes\": %llu, \"peak_memory_bytes\": %llu, "
	       "\"memory_ratio\": %.3f, \"messages\": %llu, \"freed_at_end\": %llu, \"errors\": %llu, \"failed\": "
	       "%llu, "
	       "\"at_base\": %s}\n",
	        r->trace->name, mode_name(options->mode), r->players, r->engine->name,
	        options->check ? "true" : "false", (unsigned long long)r->events, r->ns_per_event,
	        (unsigned long long)r->peak_live, (unsigned long long)r->peak_memory, per(r->peak_memory, r->peak_live),
	        (unsigned long long)r->messages, (unsigned long long)r->freed_at_end, (unsigned long long)r->errors,
	        (unsigned long long)r->failed, r->off_base ? "false" : "true");
}

static void report_text(const struct options *options, const struct result *r)
{
	char ns[32] = "-", per_message[32] = "-", messages[32] = "-";

	if (r->ns_per_event > 0)
		snprintf(ns, sizeof(ns), "%.1f", r->ns_per_event);
	if (r->engine == &engine_shma) {
		snprintf(messages, sizeof(messages), "%llu", (unsigned long long)r->messages);
		snprintf(per_message, sizeof(per_message), "%.0f", per(r->events, r->messages));
	}
	printf("%-14s %-8s %3u %-6s %10llu %8s %9.1f %9.1f %6.2f %8s %9s %6llu\n", r->trace->name,
	        mode_name(options->mode), r->players, r->engine->name, (unsigned long long)r->events, ns,
	        (double)r->peak_live / MIB, (double)r->peak_memory / MIB, per(r->peak_memory, r->peak_live), messages,
	        per_message, (unsigned long long)(r->errors + r->failed));
}

void report_row(const struct options *options, const struct result *result)
{
	if (options->json)
		report_json(options, result);
	else
		report_text(options, result);
	fflush(stdout);
}

void report_foot(const struct options *options)
{
	if (options->json)
		return;
	puts("live: the most that the trace had alive at once (times n in mode procs). peak: the most bytes that the "
	     "heap had "
	     "backed;\nwith malloc, what resident memory grew by, each page touched. All objects that a trace leaves "
	     "alive were "
	     "freed at its end.");
	if (options->use[ALLOC_SHMA] && !options->daemon)
		puts("The daemon was running before: its peak may be from then.");
}
