/* Where every byte is: sums over a heap, read by the daemon (or from a saved image) without stopping a client.
 *
 * The sums over meta are exact, as the daemon is its only writer. Those over ctl (free slots, cached slots) are read while
 * clients run: each word once; they are exact when no client is inside an allocation. All in bytes unless said otherwise.
 */
#ifndef SHM_STATS_H
#define SHM_STATS_H

#include "shm/image.h"

struct shmi_heap_stats {
	uint64_t limit, published;
	uint64_t owned, central, free, backed; /* backed = owned + central + free, exactly */
	uint64_t returned, lazy, moving, peak_backed;
	uint64_t seized; /* spans taken from clients that have not heard of it yet: address space */
	uint64_t live; /* allocated blocks: in no bitmap and in no magazine, plus large blocks not cached */
	uint64_t live_blocks; /* how many */
	uint64_t cached; /* in magazines, spills and big caches */
	uint64_t slots_free; /* in bitmaps */
	uint64_t tail; /* behind the last slot of spans */
	uint64_t written_off;
	uint64_t quarantined;
	uint64_t metadata; /* backed bytes of meta, ctl and thread records */
	uint32_t clients;
	uint32_t threads; /* records with magazines: a process's own record has none */
	uint32_t roots;
	uint64_t counters[32]; /* struct shmi_counters, in its order */
};

/* One row per span class in use. */
struct shmi_class_stats {
	shmi_sclass sclass;
	uint32_t size; /* bytes of a block; 0: large */
	uint64_t spans_owned, spans_central;
	uint64_t bytes; /* of their pages */
	uint64_t live, cached, slots_free; /* slots */
};

/* One row per client. */
struct shmi_client_stats {
	uint32_t client;
	uint32_t threads; /* records with magazines */
	uint64_t spans;
	uint64_t bytes; /* of pages of the spans that it holds */
	uint64_t cached; /* in its magazines and big cache */
};

void shmi_stats_heap(const struct shmi_image *img, struct shmi_heap_stats *stats);

/* Fills rows[SHMI_SPAN_CLASSES] indexed by span class. */
void shmi_stats_classes(const struct shmi_image *img, struct shmi_class_stats *rows);

/* `client` is less than SHMI_MAX_CLIENTS. */
void shmi_stats_client(const struct shmi_image *img, uint32_t client, struct shmi_client_stats *stats);

#endif
