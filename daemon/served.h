/* One heap on the loop: its objects and core, and what of the loop belongs to it alone: the deaths of its clients, its scavenger, the
 * look at its leases.
 *
 * A heap that cannot be opened is not served, and keeps the others from nothing: `open` is false then, and objects.why says why.
 */
#ifndef DAEMON_SERVED_H
#define DAEMON_SERVED_H

#include "daemon/config.h"
#include "daemon/core.h"
#include "daemon/lease.h"
#include "daemon/objects.h"
#include "daemon/timer.h"

struct server;

struct served {
	struct server *server;
	const struct config_heap *config;
	bool open;
	bool adopted; /* from an earlier daemon */
	uint64_t began_us; /* when it was begun to be opened */
	struct objects objects;
	struct heap heap;
	struct leases leases;
	struct core core;
	int descriptors[WIRE_FDS]; /* that a client gets */
	struct timer scavenge;
	struct timer look; /* at leases */
	bool looks_soon;
	struct event *deaths[SHMI_MAX_CLIENTS]; /* pidfds */
};

/* Opens or makes the heap of server->config->instance, and checks one that was there. Returns 0, or 1 after the reason has been logged; then
 * nothing is open. */
int served_open(struct served *served, struct server *server, const struct config_heap *config);

/* From now on it scavenges. */
void served_start(struct served *served);

/* Its settings have changed: those that can take effect do. */
void served_set(struct served *served);

/* The core is about to have a step, or to hear of something. */
void served_tick(struct served *served);

/* The system is short of memory. */
void served_pressed(struct served *served);

/* Leases are to be looked at soon. */
void served_look_soon(struct served *served);

/* Ends what its clients have under way, and jobs until `deadline_ms`. Sessions are gone. */
void served_finish(struct served *served, uint64_t deadline_ms);

/* Removes the heap unless somebody may still want it, and closes it. */
void served_end(struct served *served);

/* Closes what served_open has opened; harmless if that is nothing. */
void served_close(struct served *served);

/* The heap of a core that is on the loop. */
struct served *served_of(struct core *core);

#endif
