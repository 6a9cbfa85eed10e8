/* A heap in readable text, for debugging and for tests that failed. Reads only; a damaged heap is printed as it stands.
 *
 *	heap default: 131072 pages of 8192 bytes, 8192 published, base 200000000000, id 1234, generation 1
 *	pages: owned 12, central 0, free 20, returned 8159, lazy 0, moving 0, unpublished 122881
 *	counter refills: 3
 *	client 3: 4 spans, 12 pages
 *	run 1: OWNED, 1 pages, class 16 (64 B), owner 3, generation 7, 120 of 128 slots free, 0 written off
 *	run 2: RETURNED, 8190 pages, stamp 0
 *	central 16 (64 B): 2 with free slots, 0 without
 *	thread 5: client 3, tid 4711, parts 1, spill 0, big 0
 *	  magazine 16 (64 B): 40
 *	root jobs: offset 8192, set by client 3
 */
#ifndef SHM_DUMP_H
#define SHM_DUMP_H

#include "shm/image.h"

/* Calls `line` with each line of text, without its end, at most 200 bytes. */
void shmi_dump(const struct shmi_image *img, void (*line)(void *ctx, const char *text), void *ctx);

/* "OWNED"; "state?" for what is none. */
const char *shmi_state_name(uint32_t state);

#endif
