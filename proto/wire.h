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

#define WIRE_PROTOCOL 5u
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
#define WIRE_COUNTERS 29u
#define WIRE_BUCKETS                                                                                                   \
	24u /* of a histogram of times: bucket b counts those of up to 2^b microseconds, the last one all longer ones */

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
	WIRE_EVICT, /* grant a client nothing any more: root and the daemon's user */
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
	WIRE_USERS,
	WIRE_HEAPS,
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
	WIRE_E_DAMAGED, /* the heap is fenced */
	WIRE_E_EVICTED, /* an operator has ended this client's use of the heap */
	WIRE_E_EXISTS /* an exclusive ROOT_SET: the name is taken */
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
	uint32_t waited_us; /* how long the client waited for the answer before this request; 0: it had not to wait */
	uint32_t remote_freed; /* slots that were put back into spans of other threads since the last message */
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
	bool exclusive; /* ROOT_SET: only where there is none of that name */
};

struct wire_trim {
	bool all; /* also ask for what clients could spare; false: only the page heap's idle pages */
	char heap[WIRE_NAME];
	bool one; /* ask `client` alone for what it can spare */
	uint32_t client;
};

struct wire_trim_ok {
	uint64_t bytes; /* returned to the system */
};

struct wire_evict {
	char heap[WIRE_NAME];
	uint32_t client;
};

enum wire_query_kind {
	WIRE_Q_STATS = 1,
	WIRE_Q_CLIENTS,
	WIRE_Q_CLASSES,
	WIRE_Q_SPANS,
	WIRE_Q_ROOTS,
	WIRE_Q_CHECK,
	WIRE_Q_USERS,
	WIRE_Q_HEAPS /* of the daemon; the name of a heap is not looked at */
};

struct wire_query {
	uint32_t kind;
	char heap[WIRE_NAME];
	uint64_t cursor; /* 0: from the start, as things are now; else the `next` of the last reply, or a `snapshot` */
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
	uint64_t seized; /* address space of spans that were taken from sleeping clients */
	uint64_t soft_limit; /* of the heap; 0: none */
	uint32_t pressure; /* 0: none; 1: memory is short; 2: very short */
	uint32_t sessions; /* connections to the daemon */
	uint64_t recovery_us; /* what taking over the heap took, at the start of this daemon; 0: it was made anew */
	uint64_t swallowed; /* log lines that were left out */
	uint64_t served_us[WIRE_BUCKETS],
	        waited_us[WIRE_BUCKETS]; /* refills: as the daemon sees it, and as the clients do */
	uint64_t served_sum_us, waited_sum_us;
	uint64_t snapshot; /* the moment of all these figures: as a cursor it asks for rows of the same */
	/* Of all spans in use, those that no client holds. With the clients' rows they add up to the heap's. */
	uint64_t unowned, unowned_live, unowned_cached, unowned_slots_free, unowned_tail, unowned_written_off;
};

struct wire_client_row {
	uint32_t client, pid, uid, threads;
	uint32_t detached; /* 1: alive, but its connection is gone */
	uint64_t spans, bytes, cached, limit, requests; /* cached: free blocks of its spans, in whosever caches */
	char label[WIRE_NAME];
	uint64_t live, slots_free, tail, written_off; /* with `cached` they add up to `bytes` */
	uint64_t soft_limit, guaranteed; /* 0: none */
	uint64_t granted; /* bytes of spans, since it attached to this daemon */
	uint64_t failed; /* requests refused */
	uint64_t since_ms; /* since it attached, or was taken over */
	uint32_t evicted; /* 1: nothing is granted to it any more */
};

struct wire_user_row {
	uint32_t uid, clients, sessions;
	uint64_t bytes, limit, soft_limit, guaranteed, requests, failed;
};

struct wire_heap_row {
	char name[WIRE_NAME];
	uint64_t limit, backed;
	uint32_t clients;
	uint32_t backing; /* 0: POSIX shared memory; 1: memfd */
	uint32_t damaged;
	uint32_t allowed; /* 1: who asks may attach */
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

struct wire_users {
	WIRE_ROWS_HEAD
	struct wire_user_row rows[WIRE_ROWS];
};

struct wire_heaps {
	WIRE_ROWS_HEAD
	struct wire_heap_row rows[WIRE_ROWS];
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
		struct wire_evict evict;
		struct wire_stats stats;
		struct wire_clients clients;
		struct wire_users users;
		struct wire_heaps heaps;
		struct wire_classes classes;
		struct wire_span_rows span_rows;
		struct wire_roots roots;
		struct wire_check check;
		struct wire_error error;
	} u;
};

#endif
