/* The event loop: sockets, processes, signals and time on one side, the cores of the heaps on the other.
 *
 * Everything runs in one thread. In each turn of the loop every user has a share of it (fair.h), one packet of a connection at a time.
 * Jobs have a step in every turn of the loop, between the sockets: of one heap at a time, those that have
 * jobs in turn, so that no heap's work holds up another's. With no jobs and nothing to scavenge the daemon sleeps, but for some
 * 50 us after a request that came soon after another (awake.h).
 *
 * SIGTERM and SIGINT end the loop, SIGHUP has the configuration read again (reload.h).
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "daemon/awake.h"
#include "daemon/config.h"
#include "daemon/fair.h"
#include "daemon/heaps.h"
#include "daemon/http.h"
#include "daemon/listener.h"
#include "daemon/lock.h"
#include "daemon/policy.h"
#include "daemon/psi.h"
#include "daemon/served.h"
#include "daemon/session.h"

#define SERVER_SIGNALS 3u

struct server {
	struct event_base *base;
	struct config *config;
	struct lock lock;
	struct served served[CONFIG_HEAPS_MAX]; /* one for each heap of the configuration, open or not */
	uint32_t next; /* of them: whose job has the next step */
	struct heaps heaps; /* the same, as requests see them */
	struct listener listener;
	struct http *http; /* NULL: none */
	struct session_list sessions;
	struct fair fair; /* between the users of the sessions */
	struct timer turn; /* steps of jobs */
	struct timer alive; /* feeds the watchdog */
	struct timer resume; /* ends the pause of sessions */
	bool pausing;
	struct timer good; /* fires once, when the heaps have been served well for a while */
	struct awake awake;
	struct psi psi;
	struct event *pressed; /* by the system; NULL: it says nothing */
	struct event *signals[SERVER_SIGNALS];
};

/* Takes the lock and the socket and opens the heaps. Returns 0, or an exit status after the reason has been logged: also if no heap
 * could be opened. `server` is zeroed, as static memory is: it has room for all heaps, and what is not used is not touched.
 * `config` stays the server's. */
int server_start(struct server *server, struct config *config);

/* Serves until a signal says stop. */
void server_run(struct server *server);

/* Ends sessions and jobs; removes the heaps that nobody may still want, and the socket. */
void server_stop(struct server *server);

/* Tells the service manager what is served. */
void server_status(const struct server *server);

/* ---- for sessions and the listener ---- */

bool server_admits(struct server *server, uint32_t uid);
void server_session_gone(struct server *server);

/* Tells the cores the time. */
void server_tick(struct server *server);

/* A session has paused: all are resumed in a moment. */
void server_pause(struct server *server);

/* Jobs may have come. */
void server_wake(struct server *server);

#endif
