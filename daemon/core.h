/* The core of the daemon: clients, accounts and jobs over one heap. No socket, no event loop, no clock.
 *
 * A caller is whoever has a connection; a client is a process that is attached, and outlives its connections. Messages come
 * in through daemon/dialogue.h and are carried out by daemon/requests.h; what cannot be done in one turn of the loop is a job:
 *
 *	a large block being backed, pages being returned, a trim, a client being reclaimed, holes being filled, figures being
 *	gathered, spans being taken from clients that sleep
 *
 * core_turn does one step of one of them, whose turn it is (daemon/jobs.h), and no step takes more than a millisecond. All that touches ctl runs under the SIGBUS guard: if that trips, the heap is fenced and
 * every job ends with WIRE_E_DAMAGED.
 *
 * The world outside is three functions (struct core_hooks).
 */
#ifndef DAEMON_CORE_H
#define DAEMON_CORE_H

#include "daemon/account.h"
#include "daemon/heap.h"
#include "daemon/fair.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/histogram.h"
#include "daemon/peer.h"
#include "daemon/policy.h"
#include "proto/codec.h"
#include "shm/ledger.h"
#include "shm/reclaim.h"

struct core;
struct client;
struct snapshot;

/* What became of a request: see daemon/session_fsm.h for what it does to the connection. */
enum outcome {
	OUTCOME_ANSWERED,
	OUTCOME_GREETED, /* hello accepted */
	OUTCOME_ATTACHED, /* the answer goes with descriptors */
	OUTCOME_LATER, /* no answer yet: hooks.finished brings it */
	OUTCOME_REFUSED, /* the answer is the last one */
};

/* An encoded message, in the buffer of the core or of the heaps: good until the next call of that. */
struct answer {
	enum outcome outcome;
	const unsigned char *bytes;
	size_t len;
};

/* Encodes `reply` under `serial`; with OUTCOME_LATER there is nothing to encode. */
void answer_encode(struct wire_msg *reply, struct codec_scratch *scratch, unsigned char out[WIRE_MAX], uint64_t serial,
        enum outcome outcome, struct answer *answer);

/* ---- jobs ---- */

/* Pages being returned to the system before they go back to the page heap: runs in state MOVING, linked through their records. */
struct drops {
	struct job job;
	struct shmi_list waiting;
	struct shmi_run now; /* no pages: none */
	uint32_t done; /* pages of it */
	bool kept; /* some could not be dropped */
};

/* A walk over all spans in search of central ones that have become empty without anybody telling us. */
struct look {
	struct job job;
	uint32_t page; /* where to go on */
	bool again; /* from the start, once this walk is over */
};

/* Backing again what clients have punched out (daemon/damage.h). */
struct damage {
	struct job job;
	uint32_t range; /* of ctl: where to go on */
	uint32_t page; /* of data: likewise */
	uint64_t done; /* bytes of that range, or pages of the run at that page */
	uint64_t lost; /* bytes that were missing */
	uint64_t quarantined; /* pages that the operator has been told of */
};

/* Somebody waits for the figures of the heap. */
struct survey_wait {
	TAILQ_ENTRY(survey_wait) link;
	void (*ready)(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot);
	uint32_t uid; /* who asks */
	uint64_t round; /* the survey that answers; 0: nothing is asked */
};

TAILQ_HEAD(survey_waits, survey_wait);

/* A look at all that clients have written in ctl: see daemon/survey.h. */
#define SURVEY_KEPT 16u
struct survey {
	struct job job;
	bool running;
	bool begun; /* its first step is done */
	uint64_t round; /* of the one that runs, or ran last */
	uint32_t thread, sclass, entry, page; /* where to go on */
	struct survey_waits waiting; /* by round */
	struct shmi_counted *counted; /* the ledger's, one for each page of the limit */
	struct snapshot *kept[SURVEY_KEPT];
	uint32_t last_id;
};

/* A round of taking wholly free spans from clients that sleep (daemon/seizer.h). */
struct seizer {
	struct job job;
	bool running;
	uint32_t round; /* a client that bears this number has had its turn */
	uint32_t client, cursor; /* whose list it goes through, and the span to go on with; 0: the next client's */
	uint64_t want, got; /* pages */
};

/* How short memory is: 0, 1 or 2, by each of its sources (daemon/pressure.h). */
struct pressure {
	uint32_t level; /* the highest of these: */
	uint32_t heap, tmpfs, system;
	uint64_t looked_ms, pressed_ms; /* when the tmpfs was last looked at; when the system last said so */
	uint64_t told_ms, seized_ms; /* when all were last told, and a round of seizing was begun; 0: never */
};

/* ---- callers and clients ---- */

enum trim_stage { TRIM_SEIZE, TRIM_LOOK, TRIM_RETURN };

struct trim {
	struct job job;
	enum trim_stage stage;
	bool all; /* spans are taken from every client */
	uint32_t client; /* from whom else; SHMI_NOBODY: nobody */
	uint32_t page; /* where the look goes on */
	uint64_t seized; /* the counter, before */
	uint64_t bytes, serial;
};

/* A query that waits for a survey. */
struct asking {
	struct survey_wait wait;
	uint32_t kind; /* WIRE_Q_... */
	uint64_t serial;
};

struct caller {
	struct peer peer;
	struct peer_groups groups;
	struct client *client; /* NULL: not attached */
	char label[WIRE_NAME];
	int lease; /* the client's own descriptor of `data`, to go with the answer; -1: none */
	struct trim trim;
	struct asking asking;
};

enum client_state {
	CLIENT_FREE,
	CLIENT_ATTACHED,
	CLIENT_DETACHED, /* alive without a connection: may resume */
	CLIENT_LEAVING, /* dead, or has left: being reclaimed */
	CLIENT_BARRED, /* evicted, and holds nothing any more; its process lives, and is to be known */
};

/* A large block that is being backed. */
struct large {
	struct job job;
	bool active;
	bool clean; /* its pages are zero */
	bool wipe; /* they are another user's until they have been dropped: daemon/passing.h */
	bool waited; /* for memory of clients that sleep, since it last got any */
	uint32_t done; /* pages */
	uint64_t serial;
	struct shmi_run run;
	struct wire_large want;
	struct charge charge;
};

enum reclaim_stage { RECLAIM_RECORDS, RECLAIM_SHARED, RECLAIM_WAIT, RECLAIM_SCOPED };

struct reclaim {
	struct job job;
	enum reclaim_stage stage;
	bool dead; /* else it has asked for it, or has become another program */
	uint32_t thread; /* next thread record to look at */
	uint32_t cursor; /* span to go on with */
	uint64_t pages; /* taken from it so far */
	uint64_t serial; /* of the request to detach */
};

struct client {
	uint32_t id;
	enum client_state state;
	struct peer peer;
	struct caller *caller; /* its connection */
	uint64_t unleased_ms; /* when its lease was seen to be free, without a connection; plus 1; 0: it was not */
	bool evicted; /* nothing is granted to its process any more (daemon/evict.h) */
	struct user *user;
	struct account account;
	struct charge held; /* what its spans and records take */
	uint32_t threads;
	uint32_t record_pages;
	uint64_t requests;
	uint64_t failed; /* of these, refused */
	uint64_t granted_pages;
	uint64_t since_ms; /* when it attached, or was taken over */
	uint64_t heard_ms; /* when it last asked for something */
	uint32_t seize_round; /* of the last one in which it had its turn */
	bool seize_now; /* though it may not sleep */
	uint64_t redo; /* number of a request that an earlier daemon began and did not finish; 0: none */
	struct large large;
	struct reclaim reclaim;
};

struct core_hooks {
	void *ctx;
	/* Watch the client's process: `pidfd` becomes readable when it dies, and then core_client_died is due. -1: no longer. */
	void (*watch)(void *ctx, uint32_t client, int pidfd);
	/* The answer to a request that had OUTCOME_LATER; `last`: the connection ends with it. */
	void (*finished)(void *ctx, struct caller *caller, const struct answer *answer, bool last);
	/* Another connection has taken the caller's client: close this one. */
	void (*replaced)(void *ctx, struct caller *caller);
};

/* Who still has a client's memory mapped: see daemon/lease.h. Both NULL: nobody can say; then a client's scoped memory goes with
 * its process, and never before. */
struct core_leases {
	void *ctx;
	/* A descriptor of `data` with the client's lease, or a negative errno. */
	int (*give)(void *ctx, uint32_t client);
	bool (*held)(void *ctx, uint32_t client);
};

struct core {
	struct heap *heap;
	struct core_hooks hooks;
	struct core_leases leases; /* all zero after core_init */
	struct limits limits;
	uint32_t uid; /* the daemon's */
	const struct fair *connections; /* to the daemon; NULL: not known */
	uint64_t now_ms, started_ms;
	uint64_t recovery_us; /* what taking over the heap took; 0: it was made anew */
	uint64_t requests;
	struct histogram served, waited; /* refills: from arrival to answer, and as clients say that they waited */
	struct account all; /* of the heap: what its clients hold and what is reserved for them, together */
	struct users users;
	struct client client[SHMI_MAX_CLIENTS];
	struct jobs jobs;
	struct drops drops;
	struct look look;
	struct job stale; /* dropping what an earlier daemon left behind free pages */
	struct damage damage;
	struct survey survey;
	struct shmi_ledger ledger;
	struct seizer seizer;
	struct pressure pressure;
	bool overpromised; /* more is guaranteed than there is: it has been said */
	uint32_t waiting; /* clients whose scoped memory waits for the end of the lease */
	uint32_t looked; /* the client whose lease was last looked at */
	uint32_t looks; /* leases to look at, at once */
	struct client *copying; /* whose record is being reclaimed: one at a time; NULL: nobody's */
	struct shmi_reclaim record; /* how far that is */
	struct shmi_threadrec *copy; /* snapshot of one thread record */
	struct wire_msg reply;
	struct codec_scratch scratch;
	unsigned char out[WIRE_MAX];
};

/* `heap` is open. Returns 0 or -ENOMEM. */
int core_init(struct core *core, struct heap *heap, const struct core_hooks *hooks, const struct limits *limits);
void core_deinit(struct core *core);

/* The time, in milliseconds of any clock that does not go back; before each of the calls below. */
void core_tick(struct core *core, uint64_t now_ms);

/* One step of one job. False when there is none. */
bool core_turn(struct core *core);
bool core_has_jobs(const struct core *core);

/* The caller's connection is gone. */
void core_caller_left(struct core *core, struct caller *caller);

/* The client's process is dead. Returns the caller whose connection is still open, or NULL. */
struct caller *core_client_died(struct core *core, uint32_t client);

/* Closes the descriptor that should have gone to this caller, or has gone. */
void core_drop_lease(struct caller *caller);

/* Nothing in this heap can be trusted any more. */
void core_fence(struct core *core);

/* ---- for the modules of the core ---- */

void core_queue(struct core *core, struct job *job);
void core_unqueue(struct core *core, struct job *job);

/* Encodes core->reply under `serial`. */
void core_encode(struct core *core, uint64_t serial, enum outcome outcome, struct answer *answer);

/* core->reply is the answer to the request `serial` of `client` (kept for a repeat; NULL: of nobody) from `caller` (NULL: gone). */
void core_finish(struct core *core, struct client *client, struct caller *caller, uint64_t serial, bool last);

/* core->reply becomes an error. The outcome is OUTCOME_ANSWERED. */
enum outcome core_fail(struct core *core, enum wire_error_code code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* What only root and the daemon's user may ask for, of the heap of that name ("": of any): true, with an error in core->reply,
 * if it is not to be done. */
bool core_refuses(struct core *core, const struct caller *caller, const char *heap);

/* For the log: whom a line is about. */
struct log_fields core_about(const struct core *core, const struct client *client);
struct log_fields core_about_peer(const struct core *core, const struct peer *peer);
struct log_fields core_about_heap(const struct core *core);

/* Returns a run in state MOVING to the page heap after its pages have been dropped, in steps: not one at once, since a single
 * message or turn can bring very many. */
void core_drop_run(struct core *core, struct shmi_run run);

/* Ends a large span: its pages are free. */
void core_close_large(struct core *core, shmi_page page);

/* A large block was freed, whoever owned it. */
void core_free_large(struct core *core, shmi_page page);

#endif
