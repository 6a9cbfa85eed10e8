/* The messages of the control channel as plain structs; proto/codec turns them into bytes and back.
 *
 * One message is one SOCK_SEQPACKET packet of at most WIRE_MAX bytes. A client has at most one request outstanding; the
 * reply bears the request's serial. All strings are zero-terminated and within their arrays, all counts within theirs:
 * the codec refuses anything else, so whoever holds a struct wire_msg need not check that again.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define WIRE_PROTOCOL 3u
#define WIRE_MAX 65536u /* bytes of a message */
#define WIRE_FDS 3u /* descriptors of a message: meta, ctl, data */
#define WIRE_WANTS 64u /* span classes of one refill */
#define WIRE_SPANS 1024u /* spans given back, or granted, by one message */
#define WIRE_REPORTS 256u /* spans reported by one message */
#define WIRE_BIGS 64u /* large spans freed by one message */
#define WIRE_ROWS 128u /* rows of one query reply */
#define WIRE_TEXT 256u /* bytes of an error text */
#define WIRE_NAME 96u /* bytes of a root name, heap name or label, with the final zero */
#define WIRE_SCLASSES 4096u /* span classes are below: they have twelve bits of a span's state word */
#define WIRE_ATTRS 4u /* attribute combinations are below; `parts` has a bit for each */
#define WIRE_COUNTERS 16u

/* A refill reply of at most so many grants has at most 4 KiB: what the daemon can keep of a reply, to give it again when the
 * request is repeated. */
#define WIRE_GRANTS_KEPT 360u

enum wire_kind {
	WIRE_NONE,
	/* requests */
	WIRE_HELLO, /* first on every connection */
	WIRE_ATTACH, /* become a client of a heap, or resume as one */
	WIRE_THREAD, /* a thread record, or more parts of one */
	WIRE_REFILL, /* spans of blocks, wanted, given back and reported */
	WIRE_LARGE, /* one large block */
	WIRE_FREE, /* large blocks that were freed */
	WIRE_ROOT_SET,
	WIRE_ROOT_DEL,
	WIRE_DETACH,
	WIRE_TRIM, /* return idle memory to the system: root and the daemon's user */
	WIRE_QUERY,
	/* replies */
	WIRE_OK, /* done, nothing to tell */
	WIRE_ERROR,
	WIRE_HELLO_OK,
	WIRE_ATTACH_OK, /* with WIRE_FDS descriptors */
	WIRE_THREAD_OK,
	WIRE_REFILL_OK,
	WIRE_LARGE_OK,
	WIRE_TRIM_OK,
	WIRE_STATS,
	WIRE_CLIENTS,
	WIRE_CLASSES,
	WIRE_SPAN_ROWS,
	WIRE_ROOTS,
	WIRE_CHECK,
	WIRE_KINDS
};

/* Why a request failed; the codes are part of the protocol. */
enum wire_error_code {
	WIRE_E_PROTOCOL = 1, /* malformed or out of order; the connection ends */
	WIRE_E_VERSION, /* protocol or layout differ; the text says both */
	WIRE_E_NO_HEAP, /* no heap of that name */
	WIRE_E_ACCESS,
	WIRE_E_NO_MEMORY, /* heap full, /dev/shm full */
	WIRE_E_LIMIT, /* over the client's or the user's limit */
	WIRE_E_NO_ROOM, /* too many clients, threads or roots */
	WIRE_E_NOT_FOUND, /* root, or client to resume */
	WIRE_E_INVALID, /* a field is out of range, or a span is not the client's to give */
	WIRE_E_BAD_FREE, /* FREE of what is not a large block, or not of that generation: an invalid or double free */
	WIRE_E_DAMAGED /* the heap is fenced */
};

struct wire_hello {
	uint32_t protocol;
	uint64_t layout_hash;
	char version[32]; /* of the library or program, for messages */
	char label[WIRE_NAME];
};

struct wire_attach {
	char heap[WIRE_NAME];
	bool resume;
	uint32_t client; /* resume: who we are ... */
	uint64_t nonce; /* ... and the proof; else what is to be the proof: random, or 0: the daemon chooses */
};

struct wire_attach_ok {
	uint32_t client;
	uint32_t thread; /* the process's own thread record */
	uint64_t nonce;
	uint64_t base; /* where to map data */
	uint64_t meta_bytes, ctl_bytes, data_bytes;
};

struct wire_thread {
	uint32_t thread; /* SHMI_NO_THREAD: a new one */
	uint32_t parts; /* bit a: magazines of attribute combination a are needed */
};

struct wire_thread_ok {
	uint32_t thread;
};

struct wire_want {
	uint32_t sclass; /* span class */
	uint32_t spans;
};

struct wire_span {
	uint32_t page;
	uint32_t generation;
};

/* Large spans. A refill and a request for a large block may bring some along: they are freed before anything is granted. */
struct wire_free {
	uint32_t n_spans;
	struct wire_span spans[WIRE_BIGS];
};

struct wire_refill {
	uint32_t n_wants, n_returns, n_reports;
	struct wire_want wants[WIRE_WANTS];
	struct wire_span returns[WIRE_SPANS]; /* spans of blocks that the client holds no longer */
	uint32_t reports[WIRE_REPORTS]; /* first pages of spans that had slots put back while nobody held them */
	struct wire_free freed;
};

/* As many of what was asked for as there was memory for; none at all is WIRE_E_NO_MEMORY or WIRE_E_LIMIT, unless nothing
 * was wanted. */
struct wire_grant {
	uint32_t page;
	uint32_t generation;
	uint32_t sclass;
	bool fresh; /* never handed out since its pages were backed: they are zero */
};

struct wire_refill_ok {
	uint32_t n_grants;
	struct wire_grant grants[WIRE_SPANS];
};

struct wire_large {
	uint64_t bytes;
	uint32_t pages; /* bytes rounded up */
	uint32_t align_pages; /* power of two, 1 for any */
	uint32_t attrs; /* SHMI_SCOPED | SHMI_NOSCAN */
	bool lazy;
	struct wire_free freed;
};

struct wire_large_ok {
	uint32_t page;
	uint32_t generation;
	bool zeroed; /* the pages are fresh from the system */
};

struct wire_root {
	char name[WIRE_NAME];
	uint64_t off;
	uint32_t client; /* in replies: who set it */
};

struct wire_trim {
	bool all; /* also ask for what clients could spare; false: only the page heap's idle pages */
};

struct wire_trim_ok {
	uint64_t bytes; /* returned to the system */
};

enum wire_query_kind { WIRE_Q_STATS = 1, WIRE_Q_CLIENTS, WIRE_Q_CLASSES, WIRE_Q_SPANS, WIRE_Q_ROOTS, WIRE_Q_CHECK };

struct wire_query {
	uint32_t kind;
	char heap[WIRE_NAME];
	uint64_t cursor; /* 0: from the start; else the `next` of the last reply */
};

struct wire_stats {
	char heap[WIRE_NAME];
	uint64_t limit, published, owned, central, free, backed, returned, lazy, moving, peak_backed;
	uint64_t live, live_blocks, cached, slots_free, tail, written_off, quarantined, metadata;
	uint32_t clients, threads, roots;
	uint64_t counters[WIRE_COUNTERS]; /* struct shmi_counters, in its order */
	uint64_t requests; /* messages that the daemon has answered */
	uint64_t uptime_ms;
	uint32_t damaged; /* 1: fenced */
};

struct wire_client_row {
	uint32_t client, pid, uid, threads;
	uint32_t detached; /* 1: alive, but its connection is gone */
	uint64_t spans, bytes, cached, limit, requests;
	char label[WIRE_NAME];
};

struct wire_class_row {
	uint32_t sclass, size;
	uint64_t spans_owned, spans_central, bytes, live, cached, slots_free;
};

struct wire_span_row {
	uint32_t page, pages, state, sclass, owner, generation;
	uint32_t slots, slots_free;
};

struct wire_check_row {
	uint32_t invariant, page;
	uint64_t detail;
	char text[120];
};

#define WIRE_ROWS_HEAD                                                                                                 \
	uint32_t n_rows;                                                                                               \
	uint64_t next; /* cursor of the next page of rows; 0: that was all */

struct wire_clients {
	WIRE_ROWS_HEAD
	struct wire_client_row rows[WIRE_ROWS];
};

struct wire_classes {
	WIRE_ROWS_HEAD
	struct wire_class_row rows[WIRE_ROWS];
};

struct wire_span_rows {
	WIRE_ROWS_HEAD
	struct wire_span_row rows[WIRE_ROWS];
};

struct wire_roots {
	WIRE_ROWS_HEAD
	struct wire_root rows[WIRE_ROWS];
};

struct wire_check {
	WIRE_ROWS_HEAD
	uint32_t violations; /* how many there are in all */
	struct wire_check_row rows[WIRE_ROWS];
};

struct wire_error {
	uint32_t code;
	char text[WIRE_TEXT];
};

struct wire_msg {
	uint64_t serial;
	enum wire_kind kind;
	union {
		struct wire_hello hello; /* also HELLO_OK */
		struct wire_attach attach;
		struct wire_attach_ok attach_ok;
		struct wire_thread thread;
		struct wire_thread_ok thread_ok;
		struct wire_refill refill;
		struct wire_refill_ok refill_ok;
		struct wire_large large;
		struct wire_large_ok large_ok;
		struct wire_free free;
		struct wire_root root; /* ROOT_SET, ROOT_DEL */
		struct wire_trim trim;
		struct wire_trim_ok trim_ok;
		struct wire_query query;
		struct wire_stats stats;
		struct wire_clients clients;
		struct wire_classes classes;
		struct wire_span_rows span_rows;
		struct wire_roots roots;
		struct wire_check check;
		struct wire_error error;
	} u;
};

#endif
