/* Descriptors that the service manager passes at the start, by name, and those that it keeps for us while no daemon runs (systemd's
 * socket activation and descriptor store, by libsystemd).
 *
 *	the listening sockets   of socket units: named by FileDescriptorName=, else after the unit
 *	a heap's memory         HEAP.meta, HEAP.ctl, HEAP.data, HEAP.state: of a heap whose backing is memfd, which has no other name
 *
 * What was put into the store comes back with every start until it is dropped, or the service is stopped for good. Without a
 * service manager nothing is passed, and nothing can be kept.
 */
#ifndef DAEMON_PASSED_H
#define DAEMON_PASSED_H

#include <stdbool.h>
#include <stddef.h>

#define PASSED_MAX 136u /* descriptors: FileDescriptorStoreMax= of the units, and sockets */
#define PASSED_NAME 128u /* bytes of a name, with the final zero; systemd allows 255 and no colon */

/* Takes over what was passed; the environment that says so is removed. Returns 0, or -EINVAL with the reason in words. */
int passed_init(char *why, size_t room);

/* Closes what nobody has taken. It stays in the store, if it came from there. */
void passed_deinit(void);

/* The descriptor of that name, which is the caller's from now on; -1 if there is none. */
int passed_take(const char *name);

/* Whether one of that name is there. */
bool passed_has(const char *name);

/* The first one that does not bear the name of a part of a heap, with its name; -1 if there is none. The name is good until the next call. */
int passed_take_other(const char **name);

/* How many have not been taken. */
unsigned passed_left(void);

/* Whether there is a store at all: a service manager that listens. What it allows is not known before something is put there. */
bool passed_has_store(void);

/* Has the service manager keep a copy of `fd` under this name, and waits until it has read that; a store that is full says nothing.
 * Returns 0 or a negative errno. */
int passed_keep(int fd, const char *name);

/* It forgets all that it keeps under this name. */
void passed_forget(const char *name);

#endif
