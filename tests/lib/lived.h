/* A heap in which something of every kind is there, at rest, made by the real operations: for suites that look at a whole heap
 * (stats, check, dump).
 *
 *	client 1   thread 0 (all parts), its process record 2
 *	client 2   thread 1 (part 0)
 *
 *	span          class    owner    slots: free  cached  allocated  written off
 *	held          64 B     1               64    57      7                        54 in thread 0, 1 in thread 1, 2 in its spill
 *	scoped        256 B    1               0     30      2                        in thread 0
 *	wide          2816 B   2               rest  2       1          1             in thread 1
 *	central_free  16 B     -               502           10
 *	central_full  8192 B   -               0             4
 *	odd           128 B    quarantined
 *	large         33 pages of 2; cached_large, 40 of 1, in its process's cache; orphan, 35 of nobody; lazy, 50 of 1
 *
 * Free runs: backed of 150 and of 20 pages, a returned one of 10, what is left over, the tail. MOVING: 5 pages. Roots: `first`,
 * an allocated slot of held; `large`.
 */
#ifndef TESTS_LIB_LIVED_H
#define TESTS_LIB_LIVED_H

#include "shm/threadrec.h"
#include "tests/lib/image.h"

#define LIVED_LIMIT (SHMI_ARENA_PAGES + 1000)

struct lived {
	struct test_image *t;
	shmi_page held, scoped, wide, central_free, central_full, odd;
	shmi_page large, cached_large, orphan, lazy, moving;
	shmi_page long_free, short_free, short_returned;
	struct shmi_threadrec *rec[3];
	uint32_t wide_pages, wide_slots;
};

void lived_init(struct lived *h, struct test_image *t);

/* The magazine of a class of blocks of `size` bytes of a thread. */
struct shmi_magazine *lived_magazine(const struct lived *h, uint32_t thread, uint32_t size, uint32_t attrs);

/* Takes the slots `bits` of bitmap word `word` of a span into the magazine of a thread. */
void lived_take(const struct lived *h, uint32_t thread, shmi_page span, uint32_t word, uint64_t bits);

/* malloc and free as a thread's cache does them. */
uint64_t lived_pop(struct shmi_magazine *mag);
void lived_push(struct shmi_magazine *mag, uint64_t off);

/* A group for what is cached: slots `bits` of word `word` of a span. */
struct shmi_group lived_group(const struct lived *h, shmi_page span, uint32_t word, uint64_t bits);

#endif
