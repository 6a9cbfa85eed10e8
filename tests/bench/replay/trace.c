#include "tests/bench/replay/replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

#define TRACE_MAX (4ull << 30) /* bytes of a decompressed trace: 268 million events */
#define TRACE_MAX_EVENTS (1ull << 28) /* an event's number must fit below the ring's marks and TURN_MASK */
#define NO_EVENT UINT32_MAX

struct trace_head {
	char magic[8];
	uint32_t version, header_size;
	uint64_t events;
	uint32_t ids, threads;
	uint64_t peak_bytes, peak_objects, end_objects;
	uint32_t flags, dropped;
	char program[64];
};

_Static_assert(sizeof(struct trace_head) == 128 && sizeof(struct event) == 16, "trace format, version 1");

void *pages_new(size_t bytes)
{
	void *pages = mmap(
	        NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (pages == MAP_FAILED) {
		fprintf(stderr, "replay: no %zu bytes for tables: %s\n", bytes, strerror(errno));
		exit(2);
	}
	return pages;
}

void pages_free(void *pages, size_t bytes)
{
	if (pages)
		munmap(pages, bytes ? bytes : 1);
}

static void *read_file(const char *path, size_t *bytes)
{
	FILE *f = fopen(path, "rb");
	void *buf = NULL;
	long len = -1;

	if (!f)
		return NULL;
	if (fseek(f, 0, SEEK_END) == 0 && (len = ftell(f)) > 0) {
		rewind(f);
		buf = pages_new((size_t)len);
		if (fread(buf, 1, (size_t)len, f) != (size_t)len) {
			pages_free(buf, (size_t)len);
			buf = NULL;
		}
	}
	fclose(f);
	*bytes = (size_t)len;
	return buf;
}

/* Decompresses into trace->file. Returns NULL or what is wrong. */
static const char *unpack(struct trace *trace, const char *path)
{
	size_t packed_bytes = 0;
	void *packed = read_file(path, &packed_bytes);

	if (!packed)
		return errno ? strerror(errno) : "empty";
	unsigned long long bytes = ZSTD_getFrameContentSize(packed, packed_bytes);
	const char *wrong = NULL;

	if (bytes > TRACE_MAX || bytes < sizeof(struct trace_head)) {
		wrong = "not a trace: no zstd frame with a sensible size";
	} else {
		trace->file_bytes = (size_t)bytes;
		trace->file = pages_new(trace->file_bytes);
		if (ZSTD_decompress(trace->file, trace->file_bytes, packed, packed_bytes) != trace->file_bytes)
			wrong = "damaged zstd frame";
	}
	pages_free(packed, packed_bytes);
	return wrong;
}

static const char *check_head(const struct trace *trace)
{
	const struct trace_head *head = trace->file;

	if (memcmp(head->magic, "SHMTRACE", 8) != 0 || head->version != 1)
		return "not a trace of version 1";
	if (head->header_size < sizeof(*head) || head->header_size % sizeof(struct event) ||
	        head->events > TRACE_MAX_EVENTS ||
	        trace->file_bytes != head->header_size + head->events * sizeof(struct event))
		return "the header does not fit the length";
	if (head->threads == 0 || head->threads > UINT16_MAX)
		return "no threads";
	return NULL;
}

/* Each event in range, frees and reallocs of live objects only, allocations of dead ones only. */
static const char *check_events(const struct trace *trace)
{
	bool *live = pages_new(trace->ids);
	const char *wrong = NULL;

	for (uint64_t i = 0; i < trace->events && !wrong; i++) {
		const struct event *e = &trace->event[i];
		bool gone = e->op == OP_FREE, old = gone || e->op == OP_REALLOC;

		if (e->op < OP_MALLOC || e->op > OP_MEMALIGN || e->id >= trace->ids || e->thread >= trace->threads ||
		        e->lg_align > 26)
			wrong = "an event is out of range";
		else if (live[e->id] != old)
			wrong = "an event of a dead object, or an allocation of a live one";
		else
			live[e->id] = !gone;
	}
	pages_free(live, trace->ids);
	return wrong;
}

static void set_name(struct trace *trace, const char *path)
{
	const char *base = strrchr(path, '/');

	snprintf(trace->name, sizeof(trace->name), "%s", base ? base + 1 : path);
	char *suffix = strstr(trace->name, ".trace.zst");

	if (suffix)
		*suffix = 0;
}

bool trace_load(struct trace *trace, const char *path)
{
	*trace = (struct trace){0};
	errno = 0;
	set_name(trace, path);
	const char *wrong = unpack(trace, path);

	if (!wrong)
		wrong = check_head(trace);
	if (!wrong) {
		const struct trace_head *head = trace->file;

		trace->events = head->events;
		trace->ids = head->ids;
		trace->threads = head->threads;
		trace->peak_bytes = head->peak_bytes;
		trace->event = (const void *)((const char *)trace->file + head->header_size);
		wrong = check_events(trace);
	}
	if (wrong) {
		fprintf(stderr, "replay: %s: %s\n", path, wrong);
		trace_free(trace);
	}
	return !wrong;
}

/* turn[i]: how many events the id of event i had before, and whether a neighbour of i on that id is another thread's. */
static void plan_turns(struct trace *trace)
{
	uint32_t *last = pages_new(trace->ids * sizeof(*last));

	memset(last, 0xff, trace->ids * sizeof(*last));
	for (uint32_t i = 0; i < trace->events; i++) {
		const struct event *e = &trace->event[i];
		uint32_t before = last[e->id];

		last[e->id] = i;
		if (before == NO_EVENT)
			continue;
		trace->turn[i] = (trace->turn[before] & TURN_MASK) + 1;
		if (trace->event[before].thread != e->thread) {
			trace->turn[before] |= TURN_PUBLISH;
			trace->turn[i] |= TURN_WAIT;
		}
	}
	pages_free(last, trace->ids * sizeof(*last));
}

void trace_plan_threads(struct trace *trace)
{
	uint32_t *next = pages_new(trace->threads * sizeof(*next));

	trace->turn = pages_new(trace->events * sizeof(*trace->turn));
	trace->order = pages_new(trace->events * sizeof(*trace->order));
	trace->first = pages_new((trace->threads + 1) * sizeof(*trace->first));
	plan_turns(trace);
	for (uint64_t i = 0; i < trace->events; i++)
		trace->first[trace->event[i].thread + 1]++;
	for (uint32_t t = 0; t < trace->threads; t++) {
		trace->first[t + 1] += trace->first[t];
		next[t] = trace->first[t];
	}
	for (uint32_t i = 0; i < trace->events; i++)
		trace->order[next[trace->event[i].thread]++] = i;
	pages_free(next, trace->threads * sizeof(*next));
}

void trace_free(struct trace *trace)
{
	pages_free(trace->file, trace->file_bytes);
	pages_free(trace->turn, trace->events * sizeof(*trace->turn));
	pages_free(trace->order, trace->events * sizeof(*trace->order));
	pages_free(trace->first, (trace->threads + 1) * sizeof(*trace->first));
	*trace = (struct trace){0};
}
