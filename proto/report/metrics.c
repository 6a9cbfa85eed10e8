/* The table of all figures. */
#include <string.h>

#include "proto/report/report.h"

/* ---- figures that follow from others ---- */

static uint64_t in_spans(const void *row)
{
	const struct wire_stats *s = row;

	return s->owned + s->central + s->lazy;
}

static uint64_t unpublished(const void *row)
{
	const struct wire_stats *s = row;
	uint64_t known = s->backed + s->returned + s->lazy + s->moving + s->seized;

	return s->limit > known ? s->limit - known : 0;
}

static uint64_t idle(const void *row)
{
	const struct wire_client_row *r = row;

	return r->cached + r->slots_free;
}

/* ---- the table ---- */

/* NOLINTBEGIN(bugprone-macro-parentheses): strings that are joined, and initialisers */
#define WIDE(struct_, field) .wide = sizeof(((struct struct_ *)0)->field) == 8, .at = offsetof(struct struct_, field)
#define OF(part_, struct_, field, unit_, key_, name_, label_, help_)                                                   \
	{                                                                                                              \
		.part = part_, .unit = unit_, .key = key_, .label = label_, .name = "shmalloc_" name_, .help = help_,  \
		WIDE(struct_, field)                                                                                   \
	}
#define HEAP(field, unit, key, name, label, help) OF(REPORT_HEAP, wire_stats, field, unit, key, name, label, help)
#define BYTES(field, label, help) HEAP(field, REPORT_BYTES, #field "_bytes", #field "_bytes", label, help)
#define COUNT(field, label, help) HEAP(field, REPORT_NUMBER, #field, #field, label, help)
#define TOTAL(i, unit_, key_, name_, label_, help_)                                                                    \
	{                                                                                                              \
		.part = REPORT_COUNTER, .unit = unit_, .counter = true, .wide = true,                                  \
		.at = offsetof(struct wire_stats, counters) + (i) * sizeof(uint64_t), .key = key_, .label = label_,    \
		.name = "shmalloc_" name_ "_total", .help = help_                                                      \
	}
#define CLASS(field, unit, key, label, help)                                                                           \
	OF(REPORT_CLASS, wire_class_row, field, unit, key, "class_" key, label, help)
#define CLIENT(field, unit, key, label, help)                                                                          \
	OF(REPORT_CLIENT, wire_client_row, field, unit, key, "client_" key, label, help)
#define CLIENT_TOTAL(field_, unit_, key_, name_, label_, help_)                                                        \
	{                                                                                                              \
		.part = REPORT_CLIENT, .unit = unit_, .counter = true, WIDE(wire_client_row, field_), .key = key_,     \
		.label = label_, .name = "shmalloc_client_" name_ "_total", .help = help_                              \
	}
#define USER(field, unit, key, label, help) OF(REPORT_USER, wire_user_row, field, unit, key, "user_" key, label, help)
#define USER_TOTAL(field_, key_, name_, label_, help_)                                                                 \
	{                                                                                                              \
		.part = REPORT_USER, .unit = REPORT_NUMBER, .counter = true, WIDE(wire_user_row, field_), .key = key_, \
		.label = label_, .name = "shmalloc_user_" name_ "_total", .help = help_                                \
	}

/* NOLINTEND(bugprone-macro-parentheses) */

/* clang-format off */
static const struct report_metric metrics[] = {
	BYTES(live, "in allocated blocks", "Bytes of blocks that programs have allocated and not freed, in whole slots."),
	BYTES(cached, "cached by threads and processes", "Bytes of free blocks in the caches of threads and processes."),
	BYTES(slots_free, "in free slots of spans", "Bytes of free slots in spans."),
	BYTES(tail, "behind the last slots of spans", "Bytes behind the last slots of spans."),
	BYTES(written_off, "in slots written off after a death", "Bytes of slots whose fate a death left unknown."),
	BYTES(quarantined, "in spans set aside for good", "Bytes of spans that are never used again."),
	{.part = REPORT_HEAP, .unit = REPORT_BYTES, .derive = in_spans, .key = "span_bytes", .label = "in spans: held, central and lazy ones", .name = "shmalloc_span_bytes", .help = "Bytes of all spans in use."},
	BYTES(owned, "in spans that clients hold", "Bytes of spans that clients hold, lazy ones apart."),
	BYTES(central, "in central spans, which nobody holds", "Bytes of spans that nobody holds."),
	BYTES(free, "in free runs that have memory", "Bytes of free runs that are backed by memory."),
	BYTES(backed, "backed by memory", "Bytes of the heap that are backed by memory: held, central and free."),
	BYTES(returned, "in free runs, returned to the system", "Bytes of free runs whose memory was returned to the system."),
	BYTES(lazy, "in lazy blocks, backed on touch", "Bytes of large blocks that are backed when they are touched."),
	BYTES(moving, "being backed or returned just now", "Bytes that are being backed or returned."),
	BYTES(seized, "taken from clients that sleep", "Bytes of address space whose memory was taken from clients that sleep."),
	{.part = REPORT_HEAP, .unit = REPORT_BYTES, .derive = unpublished, .key = "unpublished_bytes", .label = "of address space not yet used", .name = "shmalloc_unpublished_bytes", .help = "Bytes of address space that have no metadata yet."},
	BYTES(limit, "limit of the heap", "The most bytes that the heap can have."),
	BYTES(soft_limit, "soft limit of the heap", "Bytes in use beyond which all clients are told to trim; 0: no such limit."),
	BYTES(metadata, "of metadata, beside the heap", "Bytes of metadata and thread records, beside the heap."),
	BYTES(peak_backed, "backed at the highest", "The most bytes that were ever backed at a time."),
	BYTES(published, "of address space that has metadata", "Bytes of address space that have metadata."),
	BYTES(unowned, "in spans that no client holds, lazy ones too", "Bytes of spans in use that no client holds."),
	BYTES(unowned_live, "of these, in allocated blocks", "Bytes of allocated blocks in spans that no client holds."),
	BYTES(unowned_cached, "of these, in caches", "Bytes of free blocks in caches, of spans that no client holds."),
	BYTES(unowned_slots_free, "of these, in free slots", "Bytes of free slots in spans that no client holds."),
	BYTES(unowned_tail, "of these, behind the last slots", "Bytes behind the last slots of spans that no client holds."),
	BYTES(unowned_written_off, "of these, written off", "Bytes of slots written off in spans that no client holds."),
	COUNT(clients, "clients", "Processes that are attached, or were and still hold memory."),
	COUNT(threads, "threads with caches", "Threads that have a cache."),
	COUNT(roots, "named roots", "Named roots."),
	COUNT(live_blocks, "allocated blocks", "Blocks that programs have allocated and not freed."),
	COUNT(sessions, "connections to the daemon", "Connections to the daemon, those of clients included."),
	COUNT(pressure, "pressure: 0 none, 1 memory is short, 2 very short", "How short memory is: 0 not at all, 1 short, 2 very short."),
	HEAP(damaged, REPORT_FLAG, "damaged", "damaged", "damaged: nothing is granted any more", "1 if the heap was damaged by a client: nothing is granted from it any more."),
	HEAP(uptime_ms, REPORT_MS, "uptime_ms", "uptime_seconds", "milliseconds that the daemon is up", "How long this daemon has been serving the heap."),
	HEAP(recovery_us, REPORT_US, "recovery_us", "recovery_seconds", "microseconds that taking over the heap took", "How long this daemon took to take over the heap; 0: it made it anew."),
	{.part = REPORT_COUNTER, .counter = true, WIDE(wire_stats, requests), .key = "requests", .label = "requests answered by this daemon", .name = "shmalloc_requests_total", .help = "Requests that this daemon has answered."},
	{.part = REPORT_COUNTER, .counter = true, WIDE(wire_stats, swallowed), .key = "swallowed_log_lines", .label = "log lines left out by this daemon", .name = "shmalloc_swallowed_log_lines_total", .help = "Log lines that this daemon has left out, as there were too many."},
	TOTAL(0, REPORT_NUMBER, "refills", "refills", "requests for spans granted", "Requests for spans of blocks that were granted."),
	TOTAL(1, REPORT_NUMBER, "spans_granted", "spans_granted", "spans granted", "Spans of blocks that were granted."),
	TOTAL(2, REPORT_NUMBER, "spans_returned", "spans_returned", "spans given back", "Spans of blocks that clients gave back."),
	TOTAL(3, REPORT_NUMBER, "spans_reported", "spans_reported", "spans reported to have free slots", "Central spans that clients reported to have free slots."),
	TOTAL(4, REPORT_NUMBER, "large_granted", "large_blocks_granted", "large blocks granted", "Large blocks that were granted."),
	TOTAL(5, REPORT_NUMBER, "large_freed", "large_blocks_freed", "large blocks freed", "Large blocks that were freed."),
	TOTAL(6, REPORT_NUMBER, "no_memory", "refused_requests", "requests for memory refused", "Requests for memory that were refused, for whatever reason."),
	TOTAL(19, REPORT_NUMBER, "over_client", "refused_over_client_limit", "requests refused: limit of the client", "Requests refused for the limit of a client."),
	TOTAL(20, REPORT_NUMBER, "over_user", "refused_over_user_limit", "requests refused: limit of the user", "Requests refused for the limit of a user."),
	TOTAL(21, REPORT_NUMBER, "over_share", "refused_over_share", "requests refused: the rest is guaranteed to others", "Requests refused because what was left is guaranteed to others."),
	TOTAL(22, REPORT_NUMBER, "heap_full", "refused_heap_full", "requests refused: the heap is full", "Requests refused because the heap was full."),
	TOTAL(23, REPORT_NUMBER, "system_full", "refused_system_full", "requests refused: the system has no memory", "Requests refused because the system gave no memory."),
	TOTAL(16, REPORT_PAGES, "granted_bytes", "granted_bytes", "bytes of spans and large blocks granted", "Bytes of spans and large blocks that were granted."),
	TOTAL(17, REPORT_PAGES, "given_bytes", "given_bytes", "bytes that clients gave back or freed", "Bytes of spans and large blocks that clients gave back or freed."),
	TOTAL(18, REPORT_NUMBER, "remote_freed", "remote_freed_blocks", "blocks put back into spans of other threads", "Blocks put back into spans that another thread holds, by what clients say."),
	TOTAL(7, REPORT_PAGES, "committed_bytes", "committed_bytes", "bytes backed", "Bytes that were backed with memory."),
	TOTAL(8, REPORT_PAGES, "scavenged_bytes", "scavenged_bytes", "bytes returned to the system", "Bytes whose memory was returned to the system."),
	TOTAL(9, REPORT_NUMBER, "deaths", "deaths", "deaths of clients handled", "Deaths of clients that were handled."),
	TOTAL(10, REPORT_PAGES, "reclaimed_bytes", "reclaimed_bytes", "bytes that deaths brought back", "Bytes that deaths of clients brought back to the page heap."),
	TOTAL(11, REPORT_NUMBER, "slots_written_off", "slots_written_off", "slots written off", "Slots whose fate a death left unknown."),
	TOTAL(12, REPORT_PAGES, "set_aside_bytes", "set_aside_bytes", "bytes set aside for good", "Bytes of spans that were set aside for good, as their bitmaps cannot be trusted."),
	TOTAL(14, REPORT_NUMBER, "bad_words", "bad_words", "words in records of the dead that made no sense", "Words in records of the dead that made no sense."),
	TOTAL(15, REPORT_SMALL_PAGES, "mended_bytes", "mended_bytes", "bytes punched out by clients, backed again", "Bytes that clients had punched out and that were backed again."),
	TOTAL(24, REPORT_NUMBER, "trims", "trims", "times that a client was told to trim", "Times that a client was told to trim."),
	TOTAL(25, REPORT_PAGES, "seizures_bytes", "seizures_bytes", "bytes taken from clients that sleep", "Bytes of wholly free spans that were taken from clients that sleep."),
	TOTAL(26, REPORT_NUMBER, "evictions", "evictions", "clients evicted", "Clients that were evicted."),
	TOTAL(27, REPORT_NUMBER, "recoveries", "recoveries", "times that a daemon took the heap over", "Times that a daemon took the heap over."),
	TOTAL(28, REPORT_NUMBER, "pressures", "pressures", "times that memory became short", "Times that memory became short."),
	CLASS(spans_owned, REPORT_NUMBER, "spans_owned", "spans that clients hold", "Spans of the class that clients hold."),
	CLASS(spans_central, REPORT_NUMBER, "spans_central", "spans that nobody holds", "Spans of the class that nobody holds."),
	CLASS(bytes, REPORT_BYTES, "bytes", "bytes of its spans", "Bytes of the spans of the class."),
	CLASS(live, REPORT_NUMBER, "live_blocks", "blocks allocated", "Blocks of the class that are allocated."),
	CLASS(cached, REPORT_NUMBER, "cached_blocks", "blocks cached", "Blocks of the class in caches."),
	CLASS(slots_free, REPORT_NUMBER, "free_slots", "free slots", "Free slots in spans of the class."),
	CLIENT(bytes, REPORT_BYTES, "held_bytes", "bytes of the spans that it holds", "Bytes of the spans that the client holds."),
	CLIENT(live, REPORT_BYTES, "live_bytes", "of these, in allocated blocks", "Bytes of allocated blocks in its spans."),
	CLIENT(cached, REPORT_BYTES, "cached_bytes", "of these, in caches", "Bytes of its spans that lie free in caches."),
	CLIENT(slots_free, REPORT_BYTES, "slots_free_bytes", "of these, in free slots", "Bytes of free slots in its spans."),
	CLIENT(tail, REPORT_BYTES, "tail_bytes", "of these, behind the last slots", "Bytes behind the last slots of its spans."),
	CLIENT(written_off, REPORT_BYTES, "written_off_bytes", "of these, written off", "Bytes of its spans whose fate a death left unknown."),
	{.part = REPORT_CLIENT, .unit = REPORT_BYTES, .derive = idle, .key = "idle_bytes", .label = "of these, idle: cached or in free slots", .name = "shmalloc_client_idle_bytes", .help = "Bytes of its spans that are idle: cached or in free slots."},
	CLIENT(spans, REPORT_NUMBER, "spans", "spans that it holds", "Spans that the client holds."),
	CLIENT(threads, REPORT_NUMBER, "threads", "its threads with caches", "Threads of the client that have a cache."),
	CLIENT(limit, REPORT_BYTES, "limit_bytes", "the most that it may hold", "The most bytes that the client may hold; 0: no limit of its own."),
	CLIENT(soft_limit, REPORT_BYTES, "soft_limit_bytes", "what it is told to trim beyond", "Bytes beyond which the client is told to trim; 0: no such limit."),
	CLIENT(guaranteed, REPORT_BYTES, "guaranteed_bytes", "what is kept free for it", "Bytes that nobody else's use keeps from the client; 0: none."),
	CLIENT(detached, REPORT_FLAG, "detached", "detached: lives without a connection", "1 if the client lives, but its connection is gone."),
	CLIENT(evicted, REPORT_FLAG, "evicted", "evicted: nothing is granted to it", "1 if the client was evicted: nothing is granted to it any more."),
	{.part = REPORT_CLIENT, .unit = REPORT_MS, .single = true, WIDE(wire_client_row, since_ms), .key = "since_ms", .label = "milliseconds since it attached", .name = "shmalloc_client_attached_seconds", .help = "How long ago the client attached, or was taken over by this daemon."},
	CLIENT_TOTAL(granted, REPORT_BYTES, "granted_bytes", "granted_bytes", "bytes granted to it", "Bytes granted to the client since it attached to this daemon."),
	CLIENT_TOTAL(requests, REPORT_NUMBER, "requests", "requests", "its requests", "Requests of the client that this daemon has answered."),
	CLIENT_TOTAL(failed, REPORT_NUMBER, "failed", "refused_requests", "its requests refused", "Requests of the client that were refused."),
	USER(bytes, REPORT_BYTES, "held_bytes", "bytes that its clients hold", "Bytes of the spans that the user's clients hold."),
	USER(clients, REPORT_NUMBER, "clients", "its clients", "Clients of the user."),
	USER(sessions, REPORT_NUMBER, "sessions", "its connections", "Connections of the user to the daemon."),
	USER(limit, REPORT_BYTES, "limit_bytes", "the most that it may hold", "The most bytes that the user may hold; 0: no limit."),
	USER(soft_limit, REPORT_BYTES, "soft_limit_bytes", "what its clients are told to trim beyond", "Bytes beyond which the user's clients are told to trim; 0: no such limit."),
	USER(guaranteed, REPORT_BYTES, "guaranteed_bytes", "what is kept free for it", "Bytes that nobody else's use keeps from the user; 0: none."),
	USER_TOTAL(requests, "requests", "requests", "requests of its clients", "Requests of the user's clients that this daemon has answered."),
	USER_TOTAL(failed, "failed", "refused_requests", "of these, refused", "Requests of the user's clients that were refused."),
};
/* clang-format on */

#define N_METRICS (sizeof(metrics) / sizeof(metrics[0]))

const struct report_metric *report_metrics(size_t *n)
{
	*n = N_METRICS;
	return metrics;
}

const struct report_metric *report_metric(enum report_part part, const char *key)
{
	for (size_t i = 0; i < N_METRICS; i++)
		if (metrics[i].part == part && strcmp(metrics[i].key, key) == 0)
			return &metrics[i];
	return NULL;
}

uint64_t report_value(const struct report_metric *metric, const void *row)
{
	uint64_t value = 0;
	uint32_t narrow;

	if (metric->derive)
		return metric->derive(row);
	if (metric->wide) {
		memcpy(&value, (const char *)row + metric->at, sizeof(value));
	} else {
		memcpy(&narrow, (const char *)row + metric->at, sizeof(narrow));
		value = narrow;
	}
	if (metric->unit == REPORT_PAGES)
		return value * REPORT_PAGE;
	return metric->unit == REPORT_SMALL_PAGES ? value * 4096 : value;
}

/* ---- histograms ---- */

const struct report_histogram report_histograms[REPORT_HISTOGRAMS] = {
        {"refill_served", "refills, from the request's arrival to the answer, as the daemon sees them",
                "shmalloc_refill_served_seconds",
                "Time from the arrival of a refill's request to its answer, as the daemon sees it.",
                offsetof(struct wire_stats, served_us), offsetof(struct wire_stats, served_sum_us)},
        {"refill_waited", "refills, as clients have waited for them", "shmalloc_refill_waited_seconds",
                "Time that clients have waited for the answer to a refill, by what they say.",
                offsetof(struct wire_stats, waited_us), offsetof(struct wire_stats, waited_sum_us)},
};

uint64_t report_bound_us(uint32_t bucket)
{
	return bucket < WIRE_BUCKETS - 1 ? 1ull << bucket : UINT64_MAX;
}
