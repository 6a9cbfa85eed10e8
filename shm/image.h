/* An opened heap: where its meta and ctl lie in this process, and the way from an index to its struct.
 *
 * The daemon has both writable; a client has meta read-only (writing through an image there is a fault, and what writes is
 * not even linked into the client). Accessors do not check ranges: callers hold an index that they have checked, by
 * shmi_image_page_ok or against the class table. Accessors of ctl give memory that another process may change at any time.
 *
 * Threads: an opened image does not change, so any number may use it.
 */
#ifndef SHM_IMAGE_H
#define SHM_IMAGE_H

#include "shm/layout.h"

struct shmi_ledger;

struct shmi_image {
	unsigned char *meta;
	unsigned char *ctl; /* may be NULL where only meta is looked at */
	struct shmi_super *super;
	const struct shmi_class *classes;
	struct shmi_geometry geo; /* private copy, validated */
	struct shmi_ledger *ledger; /* the daemon's: shm/ledger.h; NULL: none is kept */
};

/* Why an image was refused. */
#define SHMI_E_IMAGE_CUT 1 /* shorter than its header says */
#define SHMI_E_IMAGE_FOREIGN 2 /* not one of our objects */
#define SHMI_E_IMAGE_VERSION 3 /* another layout */
#define SHMI_E_IMAGE_DAMAGED 4 /* header fields contradict each other */

/* A sentence for each of the above. */
const char *shmi_image_strerror(int error);

/* Lengths and offsets for a heap of `limit_pages` pages, 2 <= limit_pages <= SHMI_MAX_PAGES. */
void shmi_geometry_init(struct shmi_geometry *geo, uint32_t limit_pages);

/* Bytes of meta, from `*off` on, that must be backed before the pages [first, first + pages) are published; likewise for
 * the other per-page arrays by `part` = 0 (page_class), 1 (page_span), 2 (spans), 3 (ctl holders), 4 (ctl bitmaps).
 * Ranges are widened to 4 KiB. */
#define SHMI_ARENA_PARTS 5u
void shmi_geometry_arena_part(
        const struct shmi_geometry *geo, uint32_t part, uint32_t first, uint32_t pages, uint64_t *off, uint64_t *len);
/* True for the parts of shmi_geometry_arena_part that lie in ctl. */
static inline bool shmi_arena_part_in_ctl(uint32_t part)
{
	return part >= 3;
}

struct shmi_image_params {
	uint64_t heap_id;
	uint64_t base;
	uint64_t created_ns;
	const char *heap_name; /* at most 63 bytes */
	uint32_t limit_pages;
};

/* Makes a new heap in zeroed memory: meta_bytes and ctl_bytes of the geometry, of which fixed_bytes of meta and the first
 * 4 KiB of ctl are backed. Nothing is published yet: see shm/arena.h. The magic is stored last. */
void shmi_image_format(struct shmi_image *img, void *meta, void *ctl, const struct shmi_image_params *params);

/* Opens what another process made. `meta` of `meta_len` bytes and `ctl` of `ctl_len` bytes (NULL, 0: only meta) may hold
 * anything. Returns 0 or an SHMI_E_IMAGE code. */
int shmi_image_open(struct shmi_image *img, void *meta, uint64_t meta_len, void *ctl, uint64_t ctl_len);

static inline uint32_t shmi_image_published(const struct shmi_image *img)
{
	return shmi_load_acquire(&img->super->published_pages);
}

/* A page that can be in a span: not page 0 and inside the published arenas. */
static inline bool shmi_image_page_ok(const struct shmi_image *img, shmi_page page)
{
	return page.i != 0 && page.i < shmi_image_published(img);
}

static inline struct shmi_span *shmi_span_at(const struct shmi_image *img, shmi_page page)
{
	return (struct shmi_span *)(void *)(img->meta + img->geo.spans) + page.i;
}

static inline shmi_a16 *shmi_page_class_at(const struct shmi_image *img, shmi_page page)
{
	return (shmi_a16 *)(void *)(img->meta + img->geo.page_class) + page.i;
}

static inline shmi_a32 *shmi_page_span_at(const struct shmi_image *img, shmi_page page)
{
	return (shmi_a32 *)(void *)(img->meta + img->geo.page_span) + page.i;
}

static inline struct shmi_pageheap_heads *shmi_pageheap_at(const struct shmi_image *img)
{
	return (struct shmi_pageheap_heads *)(void *)(img->meta + img->geo.pageheap);
}

static inline struct shmi_central_lists *shmi_central_at(const struct shmi_image *img, shmi_sclass sclass)
{
	return (struct shmi_central_lists *)(void *)(img->meta + img->geo.central) + sclass.c;
}

static inline struct shmi_owner *shmi_owner_at(const struct shmi_image *img, uint32_t client)
{
	return (struct shmi_owner *)(void *)(img->meta + img->geo.owners) + client;
}

static inline struct shmi_thread_slot *shmi_thread_slot_at(const struct shmi_image *img, uint32_t thread)
{
	return (struct shmi_thread_slot *)(void *)(img->meta + img->geo.threads) + thread;
}

static inline struct shmi_root *shmi_root_at(const struct shmi_image *img, uint32_t root)
{
	return (struct shmi_root *)(void *)(img->meta + img->geo.roots) + root;
}

static inline shmi_a32 *shmi_holder_at(const struct shmi_image *img, shmi_page page)
{
	return (shmi_a32 *)(void *)(img->ctl + img->geo.holders) + page.i;
}

/* The bitmap of the span that begins at `page`. */
static inline shmi_a64 *shmi_bitmap_at(const struct shmi_image *img, shmi_page page)
{
	return (shmi_a64 *)(void *)(img->ctl + img->geo.bitmaps + (uint64_t)page.i * SHMI_BITMAP_BYTES_PER_PAGE);
}

static inline struct shmi_threadrec *shmi_threadrec_at(const struct shmi_image *img, uint32_t thread)
{
	return (struct shmi_threadrec *)(void *)(img->ctl + img->geo.records + thread * img->geo.record_bytes);
}

/* The magazine of a small span class in the record `rec` of this image, or in a private copy of one. */
static inline struct shmi_magazine *shmi_magazine_at(
        const struct shmi_image *img, struct shmi_threadrec *rec, shmi_sclass sclass)
{
	return (struct shmi_magazine *)(void *)((unsigned char *)rec + SHMI_THREAD_HEAD_BYTES +
	                                        (uint64_t)shmi_sclass_attrs(sclass) * img->geo.part_bytes +
	                                        img->classes[shmi_sclass_size_class(sclass)].mag_off);
}

#endif
