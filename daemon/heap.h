/* A heap as the daemon has it: the image, the state object, and the floor that memory comes from.
 *
 * The floor is five functions over the heap's objects (daemon/objects.h makes them of fallocate, PUNCH_HOLE, pread and fstat; a
 * test can give a false one), so that all above it is a function over a memory image. The last two only look: that is how damage
 * by clients is found (daemon/damage.h), and how short memory is (daemon/pressure.h).
 *
 * Memory is backed before it is handed out, in steps of at most 2 MiB; when the system has none left, idle pages of the
 * heap itself are returned and the step is tried once more. Long runs are returned in steps as well (daemon/large.h).
 *
 * A heap is fenced once its objects cannot be trusted: a client has cut one short. Nothing is granted, freed or reclaimed
 * from then on; clients are told WIRE_E_DAMAGED.
 */
#ifndef DAEMON_HEAP_H
#define DAEMON_HEAP_H

#include "shm/adopt.h"
#include "shm/pageheap.h"

enum heap_object { HEAP_META, HEAP_CTL, HEAP_DATA, HEAP_STATE, HEAP_OBJECTS };

struct heap_floor {
	void *ctx;
	/* Backs, or drops the backing of, a byte range of an object: 0 or a negative errno. */
	int (*back)(void *ctx, enum heap_object object, uint64_t off, uint64_t len);
	int (*unback)(void *ctx, enum heap_object object, uint64_t off, uint64_t len);
	/* Copies a byte range of an object without touching a mapping of it: 0 or a negative errno. */
	int (*snapshot)(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len);
	/* How long an object is, and how many bytes of it are backed. */
	void (*measure)(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed);
	/* Bytes that the file system of the objects has, and has free; false if nobody can say. May be NULL. */
	bool (*space)(void *ctx, uint64_t *all, uint64_t *free);
};

struct heap {
	struct shmi_image img;
	struct shmi_state *state;
	struct heap_floor floor;
	struct shmi_floor page_floor; /* the page heap's view of it */
	struct shmi_run last_commit; /* what was backed last */
	struct {
		uint32_t next, end; /* pages */
		uint32_t run; /* where `next` was found to lie */
	} stale; /* daemon/stale.h */
	uint32_t now; /* tick: milliseconds */
	bool fenced;
	bool starved; /* the last time that there was no memory, it was the system that had none, and not the heap */
	char name[64];
};

/* Memory of the objects as mapped into this process; data is not among them. */
struct heap_memory {
	void *meta, *ctl, *state;
	uint64_t meta_bytes, ctl_bytes, state_bytes;
	const char *instance, *name; /* as the objects are named; NULL: not looked at */
};

/* Where clients map a heap: from its name alone, so that it has one address over restarts. Between 0x2000_0000_0000 and
 * 0x5000_0000_0000, 1 GiB apart, where neither programs nor their libraries lie. */
uint64_t heap_base_address(const char *instance, const char *name, uint32_t limit_pages);

/* Makes a new heap in zeroed memory; the fixed parts are backed already. Returns 0 or GUARD_E_BUS. */
int heap_create(struct heap *heap, const struct heap_floor *floor, const struct heap_memory *memory,
        const struct shmi_image_params *params);

/* Takes over what an earlier daemon left and rebuilds what is derived. Free pages are stale then. `data_bytes` is the
 * length of the data object. Returns 0, or -1 and in *why the reason in words; then nothing has been changed. */
int heap_adopt(struct heap *heap, const struct heap_floor *floor, const struct heap_memory *memory, uint64_t data_bytes,
        const char **why);

/* A run in state MOVING, as shmi_pageheap_alloc, trying harder: looks at central spans again, returns idle memory to the system,
 * before it gives up. *clean: its pages are zero, or will be once they are backed. Returns 0 or SHMI_E_NOMEM. */
int heap_alloc(struct heap *heap, shmi_npages pages, shmi_npages align, bool lazy, struct shmi_run *run, bool *clean);

/* Gives a run in state MOVING back. */
void heap_put(struct heap *heap, struct shmi_run run);

/* Backs at most POLICY_TURN_PAGES pages of data. Returns 0 or SHMI_E_NOMEM. */
int heap_commit(struct heap *heap, shmi_page first, shmi_npages pages);

/* Drops the backing of pages of data: 0 or a negative errno. */
int heap_decommit(struct heap *heap, shmi_page first, shmi_npages pages);

/* Returns up to `most` pages of a free run that has been idle for `min_age` ticks. How many there were: 0 is the end. */
uint32_t heap_release(struct heap *heap, uint32_t min_age, uint32_t most);

/* Backs the head (with `head`) and the parts `parts` of thread record `thread`, which are zero then, whatever was there. 0 or SHMI_E_NOMEM. */
int heap_back_record(struct heap *heap, uint32_t thread, bool head, uint32_t parts);

/* Pages that the head and these parts of a record take, for accounts. */
uint32_t heap_record_pages(const struct heap *heap, uint32_t parts);

/* Drops the backing of a whole record. */
void heap_drop_record(struct heap *heap, uint32_t thread);

#endif
