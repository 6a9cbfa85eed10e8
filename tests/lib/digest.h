/* What is true of a heap, without how it is linked: spans in use, roots, records, clients and page counts. Two runs that should
 * come to the same are compared by their digests.
 *
 * Free runs are counted and not listed: a restart returns all of them and puts neighbours together. Of the spans that a client
 * held before, each must be the same in both; spans that nobody held, and those that were made since, are as good as
 * each other, and their number counts, by class and owner.
 */
#ifndef TESTS_LIB_DIGEST_H
#define TESTS_LIB_DIGEST_H

#include "daemon/heap.h"

#define DIGEST_SPANS 512u
#define DIGEST_ROOTS 16u
#define DIGEST_THREADS 32u
#define DIGEST_CLIENTS 8u

struct digest_span {
	uint32_t page, pages, written_off, flags, free;
	struct shmi_word word;
	uint64_t bytes;
	uint64_t bitmap; /* a hash */
};

struct digest {
	struct digest_span span[DIGEST_SPANS];
	struct {
		uint64_t off;
		char name[SHMI_ROOT_NAME_MAX + 1];
	} root[DIGEST_ROOTS];
	struct {
		uint32_t thread, client, parts;
	} thread[DIGEST_THREADS];
	struct {
		uint32_t pid, evicted;
		uint64_t inode, charged;
	} client[DIGEST_CLIENTS]; /* by id */
	uint32_t spans, roots, threads;
	uint64_t owned, central, lazy, unpublished, free; /* pages; what is returned or moving is free */
};

void digest_take(struct digest *d, const struct heap *heap);

/* What is different, in words, or NULL. `before`: the state that both come from; NULL: not one span may be another. */
const char *digest_differs(const struct digest *is, const struct digest *should, const struct digest *before);

/* The span that begins at this page, if it has this generation. */
const struct digest_span *digest_find(const struct digest *d, uint32_t page, uint32_t generation);

#endif
