/* Leases: whether anybody still has a client's heap mapped, be it the client or a process that was forked from it.
 *
 * A client gets its descriptor of `data` as an open file description of its own, on which the daemon has set a read lock: an
 * OFD lock, on the byte LEASE_AT + client id, far beyond the end of the object. Such a lock belongs to the description and not to
 * a process. A mapping keeps the description when the descriptor is closed, a fork passes the mapping on, and munmap, exec and the
 * end of a process give it up; when the last one does, the kernel drops the lock. For a process that is killed that is before its
 * pidfd becomes readable. So, from any other description and after a restart too, F_OFD_GETLK says whether the client's memory can
 * still be reached.
 *
 * A socket would not do: it ends with the daemon, and a program that becomes a daemon closes what it does not know.
 *
 * A client may drop its own lock, or lock other clients' bytes: see "Threats" in README.md. The daemon's own description of `data`
 * is never handed out: locks that a client sets on that would not end with the client.
 */
#ifndef DAEMON_LEASE_H
#define DAEMON_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_AT (INT64_C(1) << 62)

struct leases {
	int data; /* the daemon's own description */
	int spare; /* given up when no other descriptor is to be had; or -1 */
};

/* `data` stays the caller's. Returns 0, or -ENOTSUP: locks on this system do not behave as above. */
int leases_init(struct leases *leases, int data);
void leases_deinit(struct leases *leases);

/* A new descriptor for the client, with its lease; the caller's to close. Or a negative errno. */
int leases_give(struct leases *leases, uint32_t client);

/* False: nobody has the client's lease. True also if that cannot be told. */
bool leases_held(struct leases *leases, uint32_t client);

#endif
