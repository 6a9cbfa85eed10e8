/* The lock that keeps a second daemon of an instance out: /shmalloc.INSTANCE.lock, which holds the daemon's pid. It is never handed
 * out, as a reader could lock it; it belongs to the instance and not to one of its heaps. */
#ifndef DAEMON_LOCK_H
#define DAEMON_LOCK_H

#include <stddef.h>

struct lock {
	int fd; /* -1: not held */
	char name[96];
};

/* Takes the lock for as long as this process lives or until lock_drop. Returns 0, or a negative errno with the reason in words;
 * -EWOULDBLOCK: another has it. */
int lock_take(struct lock *lock, const char *instance, char *why, size_t room);

/* Gives it up and removes its object. Harmless if it is not held. */
void lock_drop(struct lock *lock);

#endif
