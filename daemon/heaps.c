#include "daemon/heaps.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/boots.h"
#include "daemon/log.h"
#include "daemon/requests.h"

__attribute__((format(printf, 3, 4))) static enum outcome fail(
        struct heaps *heaps, enum wire_error_code code, const char *format, ...)
{
	va_list args;

	heaps->reply.kind = WIRE_ERROR;
	heaps->reply.u.error.code = code;
	va_start(args, format);
	vsnprintf(heaps->reply.u.error.text, sizeof(heaps->reply.u.error.text), format, args);
	va_end(args);
	return OUTCOME_ANSWERED;
}

void heaps_refuse(
        struct heaps *heaps, uint64_t serial, enum wire_error_code code, const char *text, struct answer *answer)
{
	answer_encode(&heaps->reply, &heaps->scratch, heaps->out, serial, fail(heaps, code, "%s", text), answer);
}

/* For the log; heap NULL: it is about none. */
static struct log_fields about(const struct caller *caller, const char *heap)
{
	return (struct log_fields){
	        .known = LOG_HAS_PROCESS, .pid = caller->peer.pid, .uid = caller->peer.uid, .heap = heap};
}

/* ---- what is asked of no heap ---- */

static enum outcome run_hello(struct heaps *heaps, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_hello *theirs = &req->u.hello;
	struct wire_hello *ours = &heaps->reply.u.hello;

	if (theirs->protocol != WIRE_PROTOCOL || theirs->layout_hash != shmi_layout_hash()) {
		fail(heaps, WIRE_E_VERSION,
		        "versions differ: the daemon is %s with protocol %u, layout %016llx; the client is %.31s with "
		        "protocol %u, layout %016llx",
		        SHMALLOC_VERSION, WIRE_PROTOCOL, (unsigned long long)shmi_layout_hash(), theirs->version,
		        theirs->protocol, (unsigned long long)theirs->layout_hash);
		log_event(LEVEL_WARN, LOG_REFUSED, about(caller, NULL), "refused pid %d: %s", caller->peer.pid,
		        heaps->reply.u.error.text);
		return OUTCOME_REFUSED;
	}
	snprintf(caller->label, sizeof(caller->label), "%s", theirs->label);
	heaps->reply.kind = WIRE_HELLO_OK;
	*ours = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	snprintf(ours->version, sizeof(ours->version), "%s", SHMALLOC_VERSION);
	snprintf(ours->label, sizeof(ours->label), "shmallocd");
	return OUTCOME_GREETED;
}

static bool allows(const struct heaps *heaps, const struct heaps_entry *entry, const struct caller *caller)
{
	return access_allows(&entry->config->access, &caller->peer, &caller->groups, heaps->uid);
}

static uint32_t count_clients(const struct core *core)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		n += core->client[i].state != CLIENT_FREE;
	return n;
}

static void fill_row(const struct heaps *heaps, const struct heaps_entry *entry, const struct caller *caller,
        struct wire_heap_row *row)
{
	*row = (struct wire_heap_row){.limit = entry->config->size,
	        .backing = entry->sealed,
	        .damaged = 1,
	        .allowed = allows(heaps, entry, caller)};
	snprintf(row->name, sizeof(row->name), "%s", entry->config->name);
	if (!entry->core)
		return;
	const struct heap *heap = entry->core->heap;
	const struct shmi_page_counts *pages = &heap->img.super->pages;

	row->limit = shmi_npages_bytes((shmi_npages){heap->img.geo.limit_pages});
	row->backed = (shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->free))
	              << SHMI_PAGE_SHIFT;
	row->clients = count_clients(entry->core);
	row->damaged = heap->fenced;
}

_Static_assert(CONFIG_HEAPS_MAX <= WIRE_ROWS, "all heaps are in one reply");

static enum outcome run_list(struct heaps *heaps, struct caller *caller, const struct wire_msg *req)
{
	struct wire_heaps *out = &heaps->reply.u.heaps;

	heaps->reply.kind = WIRE_HEAPS;
	out->n_rows = 0;
	out->next = 0;
	for (uint64_t i = req->u.query.cursor; i < heaps->n; i++)
		fill_row(heaps, &heaps->entry[i], caller, &out->rows[out->n_rows++]);
	return OUTCOME_ANSWERED;
}

/* ---- which heap ---- */

/* The name of the heap that the request is for; NULL: the one that the caller is attached to. */
static const char *name_in(const struct wire_msg *req)
{
	switch (req->kind) {
	case WIRE_ATTACH:
		return req->u.attach.heap;
	case WIRE_TRIM:
		return req->u.trim.heap;
	case WIRE_EVICT:
		return req->u.evict.heap;
	case WIRE_QUERY:
		return req->u.query.heap;
	default:
		return NULL;
	}
}

static struct heaps_entry *find(struct heaps *heaps, const char *name)
{
	for (uint32_t i = 0; i < heaps->n; i++)
		if (!strcmp(heaps->entry[i].config->name, name))
			return &heaps->entry[i];
	return NULL;
}

static void refuse_access(struct heaps *heaps, struct heaps_entry *entry, const struct caller *caller)
{
	const char *name = entry->config->name;

	entry->refused++;
	fail(heaps, WIRE_E_ACCESS, "uid %u may not attach to heap '%s'", caller->peer.uid, name);
	log_event(LEVEL_WARN, LOG_REFUSED, about(caller, name),
	        "refused pid %d: uid %u may not attach to heap '%s' (%llu refused so far)", caller->peer.pid,
	        caller->peer.uid, name, (unsigned long long)entry->refused);
}

/* The core that the request is for; NULL with an error in heaps->reply. */
static struct core *pick(
        struct heaps *heaps, struct core *core, const struct caller *caller, const struct wire_msg *req)
{
	const char *name = name_in(req);

	if (!name || (!*name && caller->client))
		return core;
	if (!*name && req->kind != WIRE_ATTACH)
		name = heaps->n == 1 ? heaps->entry[0].config->name : "default";
	struct heaps_entry *entry = find(heaps, name);

	if (!entry) {
		fail(heaps, WIRE_E_NO_HEAP, "there is no heap '%.60s' here", name);
		return NULL;
	}
	if (req->kind == WIRE_ATTACH && !allows(heaps, entry, caller)) {
		refuse_access(heaps, entry, caller);
		return NULL;
	}
	if (!entry->core) {
		fail(heaps, WIRE_E_DAMAGED, "heap '%s' could not be opened: %.150s", entry->config->name, entry->why);
		return NULL;
	}
	if (caller->client && entry->core != core) {
		fail(heaps, WIRE_E_INVALID, "this connection is attached to heap '%s', and asks of '%s'",
		        core->heap->name, entry->config->name);
		return NULL;
	}
	return entry->core;
}

/* ---- running ---- */

void heaps_run(struct heaps *heaps, struct core **core, struct caller *caller, const struct wire_msg *req,
        struct answer *answer)
{
	enum outcome outcome = OUTCOME_ANSWERED;

	if (req->kind == WIRE_HELLO) {
		outcome = run_hello(heaps, caller, req);
	} else if (req->kind == WIRE_QUERY && req->u.query.kind == WIRE_Q_HEAPS) {
		outcome = run_list(heaps, caller, req);
	} else {
		struct core *picked = pick(heaps, *core, caller, req);

		if (picked) {
			*core = picked;
			boots_working_on(picked->heap->state);
			requests_run(picked, caller, req, answer);
			return;
		}
	}
	answer_encode(&heaps->reply, &heaps->scratch, heaps->out, req->serial, outcome, answer);
}
