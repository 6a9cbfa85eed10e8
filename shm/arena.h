/* Arenas: how a heap grows. The data object is a sparse object as long as the heap's limit; its pages are of no use until
 * their metadata (page classes, page map, records, holders, bitmaps: shmi_geometry_arena_part) has memory behind it. That
 * comes by the arena of 64 MiB. Arena k holds the pages from k * SHMI_ARENA_PAGES on; the last one may be short. Page 0
 * belongs to no run, so that offset 0 and page 0 can mean none.
 */
#ifndef SHM_ARENA_H
#define SHM_ARENA_H

#include "shm/image.h"

/* Pages of the arena that comes next; 0 when the heap has reached its limit. */
static inline shmi_npages shmi_arena_next(const struct shmi_image *img)
{
	uint32_t rest = img->geo.limit_pages - shmi_image_published(img);

	return (shmi_npages){rest < SHMI_ARENA_PAGES ? rest : SHMI_ARENA_PAGES};
}

/* Enters the pages [published, published + pages) as one returned run, coalesced with a returned run before them; the
 * metadata is backed already and `pages` is shmi_arena_next. Publishing (P3) is the last store: whoever dies before it has
 * left nothing that is not entered again. */
void shmi_arena_publish(struct shmi_image *img, shmi_npages pages, uint32_t now);

#endif
