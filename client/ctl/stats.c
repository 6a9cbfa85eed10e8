#include <string.h>

#include "client/ctl/show.h"

/* What is shown: the daemon's numbers and two sums that follow from them. */
struct view {
	struct wire_stats s;
	uint64_t in_spans, unpublished;
};

#define AT(field) offsetof(struct view, field)

/* One line of the text for each place where bytes can be, and one key of the JSON. `sign` says how the lines of a part add up;
 * '=' is the sum so far. */
static const struct line {
	char sign;
	const char *key, *label;
	size_t at;
} lines[] = {
        {' ', "live_bytes", "in allocated blocks", AT(s.live)},
        {'+', "cached_bytes", "cached by threads and processes", AT(s.cached)},
        {'+', "slots_free_bytes", "in free slots of spans", AT(s.slots_free)},
        {'+', "tail_bytes", "behind the last slots of spans", AT(s.tail)},
        {'+', "written_off_bytes", "in slots written off after a death", AT(s.written_off)},
        {'+', "quarantined_bytes", "in spans set aside for good", AT(s.quarantined)},
        {'=', "span_bytes", "in spans: held, central and lazy ones", AT(in_spans)},
        {0, NULL, NULL, 0},
        {' ', "owned_bytes", "in spans that clients hold", AT(s.owned)},
        {'+', "central_bytes", "in central spans, which nobody holds", AT(s.central)},
        {'+', "free_bytes", "in free runs that have memory", AT(s.free)},
        {'=', "backed_bytes", "backed by memory", AT(s.backed)},
        {'+', "returned_bytes", "in free runs, returned to the system", AT(s.returned)},
        {'+', "lazy_bytes", "in lazy blocks, backed on touch", AT(s.lazy)},
        {'+', "moving_bytes", "being backed or returned just now", AT(s.moving)},
        {'+', "unpublished_bytes", "of address space not yet used", AT(unpublished)},
        {'=', "limit_bytes", "limit of the heap", AT(s.limit)},
        {0, NULL, NULL, 0},
        {' ', "metadata_bytes", "of metadata, beside the heap", AT(s.metadata)},
        {' ', "peak_backed_bytes", "backed at the highest", AT(s.peak_backed)},
        {' ', "published_bytes", "of address space that has metadata", AT(s.published)},
};

static const struct {
	const char *key, *label;
	size_t at;
	bool wide; /* uint64_t, else uint32_t */
} numbers[] = {
        {"clients", "clients", AT(s.clients), false},
        {"threads", "threads with caches", AT(s.threads), false},
        {"roots", "named roots", AT(s.roots), false},
        {"live_blocks", "allocated blocks", AT(s.live_blocks), true},
        {"requests", "requests answered", AT(s.requests), true},
};

/* struct shmi_counters, in its order. */
static const struct {
	const char *key, *label;
} counters[WIRE_COUNTERS] = {
        {"refills", "requests for spans granted"},
        {"spans_granted", "spans granted"},
        {"spans_returned", "spans given back"},
        {"spans_reported", "spans reported to have free slots"},
        {"large_granted", "large blocks granted"},
        {"large_freed", "large blocks freed"},
        {"no_memory", "requests refused for want of memory"},
        {"committed_pages", "pages backed"},
        {"scavenged_pages", "pages returned to the system"},
        {"deaths", "deaths of clients handled"},
        {"reclaimed_pages", "pages that deaths brought back"},
        {"slots_written_off", "slots written off"},
        {"quarantined_pages", "pages set aside for good"},
        {"peak_backed_pages", "pages backed at the highest"},
        {"bad_words", "words in records of the dead that made no sense"},
        {"mended_pages", "pages of 4 KiB punched out by clients, backed again"},
        {"granted_pages", "pages of spans and large blocks granted"},
        {"given_pages", "pages that clients gave back or freed"},
        {"remote_freed", "blocks put back into spans of other threads"},
        {"over_client", "requests refused: limit of the client"},
        {"over_user", "requests refused: limit of the user"},
        {"over_share", "requests refused: the rest is guaranteed to others"},
        {"heap_full", "requests refused: the heap is full"},
        {"system_full", "requests refused: /dev/shm is full"},
        {"trims", "times that a client was told to trim"},
        {"seized_pages", "pages taken from clients that sleep"},
        {"evictions", "clients evicted"},
        {"recoveries", "times that a daemon took the heap over"},
        {"pressures", "times that memory became short"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t number_at(const struct view *view, size_t at, bool wide)
{
	uint32_t n32;
	uint64_t n64;

	if (wide)
		return memcpy(&n64, (const char *)view + at, sizeof(n64)), n64;
	return memcpy(&n32, (const char *)view + at, sizeof(n32)), n32;
}

static void print_lines(struct ctl *ctl, const struct view *view)
{
	char human[32];

	for (size_t i = 0; i < COUNT(lines); i++) {
		const struct line *line = &lines[i];

		if (!line->sign) {
			fputc('\n', ctl->out);
			continue;
		}
		if (line->sign == '=')
			fputs("  ----------------\n", ctl->out);
		ctl_human(number_at(view, line->at, true), human, sizeof(human));
		fprintf(ctl->out, "%c %16llu  (%10s)  %s\n", line->sign,
		        (unsigned long long)number_at(view, line->at, true), human, line->label);
	}
}

static void print_text(struct ctl *ctl, const struct view *view)
{
	uint64_t s = view->s.uptime_ms / 1000;
	char heap[CTL_CELL];

	ctl_clean(view->s.heap, heap, sizeof(heap));
	fprintf(ctl->out, "Heap %s, daemon up %llu:%02llu:%02llu; bytes:\n\n", heap, (unsigned long long)(s / 3600),
	        (unsigned long long)(s / 60 % 60), (unsigned long long)(s % 60));
	if (view->s.damaged)
		fputs("DAMAGED: a client has cut one of its objects short. Nothing is handed out any more, and what "
		      "lies in spans\n"
		      "cannot be told apart.\n\n",
		        ctl->out);
	print_lines(ctl, view);
	fputs("\nNumbers:\n\n", ctl->out);
	for (size_t i = 0; i < COUNT(numbers); i++)
		fprintf(ctl->out, "  %16llu  %s\n", (unsigned long long)number_at(view, numbers[i].at, numbers[i].wide),
		        numbers[i].label);
	fputs("\nSince the heap was made:\n\n", ctl->out);
	for (size_t i = 0; i < COUNT(counters); i++)
		fprintf(ctl->out, "  %16llu  %s\n", (unsigned long long)view->s.counters[i], counters[i].label);
}

static int print_json(struct ctl *ctl, const struct view *view)
{
	json_t *json = ctl_json_new(ctl), *nested = json_object();

	json_object_set_new(json, "heap", ctl_json_text(view->s.heap));
	for (size_t i = 0; i < COUNT(lines); i++)
		if (lines[i].key)
			json_object_set_new(json, lines[i].key, ctl_json_number(number_at(view, lines[i].at, true)));
	for (size_t i = 0; i < COUNT(numbers); i++)
		json_object_set_new(
		        json, numbers[i].key, ctl_json_number(number_at(view, numbers[i].at, numbers[i].wide)));
	json_object_set_new(json, "uptime_ms", ctl_json_number(view->s.uptime_ms));
	json_object_set_new(json, "damaged", json_boolean(view->s.damaged));
	for (size_t i = 0; i < COUNT(counters); i++)
		json_object_set_new(nested, counters[i].key, ctl_json_number(view->s.counters[i]));
	json_object_set_new(json, "counters", nested);
	return ctl_json_print(ctl, json);
}

static int run(struct ctl *ctl)
{
	const struct wire_msg *reply;
	int status = ctl_query(ctl, WIRE_Q_STATS, 0, WIRE_STATS, &reply);

	if (status != CTL_OK)
		return status;
	struct view view = {.s = reply->u.stats};
	const struct wire_stats *s = &view.s;
	uint64_t known = s->backed + s->returned + s->lazy + s->moving;

	view.in_spans = s->owned + s->central + s->lazy;
	view.unpublished = s->limit > known ? s->limit - known : 0;
	if (ctl->json)
		return print_json(ctl, &view);
	print_text(ctl, &view);
	return CTL_OK;
}

const struct ctl_command ctl_stats = {.name = "stats",
        .summary = "where every byte of the heap is",
        .help = "One line for each place where bytes can be; the lines of a part add up to its sums, marked '='. "
                "Blocks that\n"
                "threads cache are not allocated: they are ready for the next allocation.",
        .run = run};
