/* A heap in memory for tests of shm/, without a daemon: an image, and a floor below the page heap that pretends to back
 * pages and can be told to fail.
 *
 * Suites run on three kinds of memory. Exact allocations of malloc, so that a sanitizer sees a step beyond meta; a memfd
 * mapped once; and a memfd mapped twice, where what one mapping writes is looked at through the other, at another address:
 * an absolute pointer in the image does not survive that.
 *
 *	TEST_ON_IMAGES(pageheap, split, 8192)
 *	{
 *		shmi_pageheap_alloc(&t->img, &t->floor, ...);
 *		cr_assert_eq(shmi_pageheap_longest(&t->view, true).n, 31);
 *	}
 */
#ifndef TESTS_LIB_IMAGE_H
#define TESTS_LIB_IMAGE_H

#include "shm/pageheap.h"

#define TEST_NEVER UINT32_MAX

enum test_memory { TEST_MALLOC, TEST_MEMFD, TEST_MEMFD_TWICE };

struct test_image {
	struct shmi_image img; /* what the daemon has */
	struct shmi_image view; /* what a client has: meta read-only if it is mapped twice, else the same as img */
	struct shmi_floor floor;
	uint32_t limit;

	/* the floor's book */
	uint8_t *backed; /* by page of data: is there memory behind it? */
	uint32_t commits; /* calls so far */
	uint32_t publishes; /* calls so far */
	uint32_t fresh; /* pages that were committed */
	uint32_t again; /* pages that were committed though they were backed */
	uint32_t wild; /* commits or returns of page 0 or beyond the heap, publishing out of order */
	uint32_t fail_commit_in; /* this many commits succeed, then one fails; TEST_NEVER */
	uint32_t fail_publish_in; /* likewise */

	enum test_memory memory;
	uint64_t meta_len, ctl_len;
	int meta_fd, ctl_fd;
};

/* A formatted heap of `limit` pages, nothing published. ctl has room for `TEST_IMAGE_THREADS` thread records only. */
#define TEST_IMAGE_THREADS 8u
struct test_image *test_image_new(enum test_memory memory, uint32_t limit);
void test_image_free(struct test_image *t);

/* Publishes `arenas` arenas, as growth does. */
void test_image_publish(struct test_image *t, uint32_t arenas);

/* Takes a backed run of `pages` pages. Fails the test if there is none. */
struct shmi_run test_image_run(struct test_image *t, uint32_t pages);

/* Opens a span of blocks of `size` bytes for `owner`. */
shmi_page test_image_span(struct test_image *t, uint32_t size, uint32_t attrs, uint32_t owner);

/* What a daemon does after shmi_pageheap_pick, or with a lazy span: the pages have no memory behind them now. */
void test_image_return(struct test_image *t, shmi_page first, shmi_npages pages);

/* True if all, or none, of the pages are backed. */
bool test_image_all_backed(const struct test_image *t, shmi_page first, shmi_npages pages);
bool test_image_none_backed(const struct test_image *t, shmi_page first, shmi_npages pages);

/* Defines three tests of one body, which is given `struct test_image *t`. */
#define TEST_ON_IMAGES(suite, name, limit)                                                                             \
	static void suite##_##name(struct test_image *t);                                                              \
	TEST_ON_IMAGE_(suite, name, malloc, TEST_MALLOC, limit)                                                        \
	TEST_ON_IMAGE_(suite, name, memfd, TEST_MEMFD, limit)                                                          \
	TEST_ON_IMAGE_(suite, name, memfd_twice, TEST_MEMFD_TWICE, limit)                                              \
	static void suite##_##name(struct test_image *t)

#define TEST_ON_IMAGE_(suite, name, suffix, memory, limit)                                                             \
	Test(suite, name##_on_##suffix)                                                                                \
	{                                                                                                              \
		struct test_image *image = test_image_new(memory, limit);                                              \
		suite##_##name(image);                                                                                 \
		test_image_free(image);                                                                                \
	}

#endif
