/* The shared memory objects of a heap: their names and their descriptors.
 *
 *	/shmalloc.INSTANCE.HEAP.meta    mapped; handed out read-only, through a descriptor that was opened O_RDONLY
 *	/shmalloc.INSTANCE.HEAP.ctl     mapped; handed out
 *	/shmalloc.INSTANCE.HEAP.data    never mapped; handed out
 *	/shmalloc.INSTANCE.HEAP.state   mapped; never handed out
 *
 * Or sealed memfds, which the service manager keeps under the names HEAP.meta and so on while no daemon runs; `sealed` says so, and is
 * to be set before any of them is made, opened or unlinked.
 *
 * All are made with O_EXCL and mode 0600 and belong to the daemon's user. A heap is there when its meta is: meta is made under
 * another name (.new) and renamed when the heap is complete, and unlinked first. So the other three without meta are
 * what a killed daemon left of a heap that nobody has ever used, or that was being removed.
 *
 * What is backed: meta's fixed part, the first 4 KiB of ctl and of state at once; the rest before it is used.
 */
#ifndef DAEMON_OBJECTS_H
#define DAEMON_OBJECTS_H

#include "daemon/heap.h"

#define OBJECTS_NAME_MAX 48u /* bytes of an instance's or a heap's name */

struct objects {
	char instance[OBJECTS_NAME_MAX + 1];
	char heap[OBJECTS_NAME_MAX + 1];
	int fd[HEAP_OBJECTS];
	int meta_readonly;
	bool sealed; /* memfds, which have no name here: daemon/memfd.h */
	void *map[HEAP_OBJECTS]; /* NULL for data */
	uint64_t bytes[HEAP_OBJECTS];
	char why[256]; /* after a failure: the reason in words */
};

/* The last part of each object's name. */
extern const char *const objects_suffix[HEAP_OBJECTS];

struct objects_path {
	char text[192];
};

/* Where an object of the heap lies in the file system. */
struct objects_path objects_path(const struct objects *o, const char *what);

/* Letters, digits, '-' and '_', 1 to OBJECTS_NAME_MAX of them. */
bool objects_name_ok(const char *name);

/* Binds to the names, which are good, and opens nothing. */
void objects_init(struct objects *o, const char *instance, const char *heap);

/* The functions below return 0, or a negative errno with `why` filled. */

/* True if the heap is there. */
bool objects_exist(const struct objects *o);

/* True if the service manager has passed the memory of a sealed heap of this name. */
bool objects_are_kept(const struct objects *o);

/* Makes, sizes, backs and maps the objects of a new heap. Leftovers without a meta are removed. */
int objects_create(struct objects *o, uint32_t limit_pages);

/* Renames meta into place, or has the service manager keep what is sealed, if there is one: the heap exists. */
int objects_publish(struct objects *o);

/* Opens and maps the objects of a heap that is there. -EPROTO: one is not what it should be; it was not touched. */
int objects_open(struct objects *o);

/* Removes the heap's objects by name, whatever they are. */
void objects_unlink(const struct objects *o);

/* Unmaps and closes. */
void objects_close(struct objects *o);

/* The floor of a heap over these objects. */
struct heap_floor objects_floor(struct objects *o);

struct heap_memory objects_memory(const struct objects *o);

#endif
