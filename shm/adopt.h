/* Adoption: after the daemon's own death, rebuild all that is derived from the spans in use.
 *
 * Spans in use (their state words) are the only truth; free runs, lists, trees, page map entries of free pages, central lists,
 * owners' lists and page counts are made anew. Nothing that a live client reads is changed: page classes and page map of
 * spans in use, their records' words and lengths, and the roots stay as they are.
 * Whether a free page is backed is not recorded: all free runs come out as returned, and the caller punches them out first
 * or afterwards, by shmi_adopt's `returned` callback.
 */
#ifndef SHM_ADOPT_H
#define SHM_ADOPT_H

#include "shm/pageheap.h"

#define SHMI_E_ADOPT_DAMAGED 1 /* spans in use overlap or leave the heap; nothing was changed */

/* `returned` (may be NULL) is told each free run, so that its backing can be dropped. Returns 0 or SHMI_E_ADOPT_DAMAGED, with the
 * page that is to blame in *where. */
int shmi_adopt(struct shmi_image *img, uint32_t now, void (*returned)(void *ctx, struct shmi_run run), void *ctx,
	shmi_page *where);

#endif
