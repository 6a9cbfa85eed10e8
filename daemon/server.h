/* The event loop: sockets, processes, signals and time on one side, the core on the other.
 *
 * Everything runs in one thread. Jobs of the core have a step in every turn of the loop, between the sockets; with no jobs and
 * nothing to scavenge the daemon sleeps, but for some 50 us after a request that came soon after another (awake.h).
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "daemon/config.h"
#include "daemon/core.h"
#include "daemon/lease.h"
#include "daemon/awake.h"
#include "daemon/http.h"
#include "daemon/listener.h"
#include "daemon/objects.h"
#include "daemon/policy.h"
#include "daemon/session.h"

struct server {
	struct event_base *base;
	const struct config *config;
	struct heap heap;
	struct objects objects;
	struct leases leases;
	struct core core;
	struct listener listener;
	struct http *http; /* NULL: none */
	struct session_list sessions;
	struct session_counts counts; /* of the sessions */
	int descriptors[WIRE_FDS];
	struct timer turn; /* steps of jobs */
	struct timer scavenge;
	struct timer alive; /* feeds the watchdog */
	struct timer good; /* fires once, when the heap has been served well for a while */
	struct timer look; /* at leases */
	bool looks_soon;
	struct awake awake;
	struct event *signals[2];
	struct event *deaths[SHMI_MAX_CLIENTS]; /* pidfds */
};

/* Takes the lock and the socket, opens or makes the heap, and checks one that was there. Returns 0, or an exit status after the reason has been logged. */
int server_start(struct server *server, const struct config *config);

/* Serves until a signal says stop. */
void server_run(struct server *server);

/* Ends sessions and jobs; removes the heap unless somebody may still want it, and the socket. */
void server_stop(struct server *server);

/* ---- for sessions and the listener ---- */

bool server_admits(struct server *server, uint32_t uid);
void server_session_came(struct server *server, uint32_t uid);
void server_session_gone(struct server *server, uint32_t uid);

/* Tells the core the time. */
void server_tick(struct server *server);

/* Jobs may have come. */
void server_wake(struct server *server);

#endif
