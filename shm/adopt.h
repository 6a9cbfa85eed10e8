/* Adoption: after the daemon's own death, rebuild all that is derived from the spans in use.
 *
 * Spans in use (their state words) are the only truth; free runs, lists, trees, page map entries and page classes of free
 * pages, central lists, owners' lists and page counts are made anew, whatever the dead daemon was about to do with them. A span
 * is in use from the store of its word on (P5), so a predecessor that died in shmi_span_open has left free pages with some page
 * classes set, and one that died in shmi_span_close likewise: both are free pages here.
 *
 * Nothing that a live client reads is changed: page classes and page map of spans in use, their records' words and lengths,
 * bitmaps, and the roots stay as they are. (A client may look at the word of a span that it has given back: it finds a free
 * state before, meanwhile and afterwards.) It may itself be cut short anywhere, and be done again.
 *
 * Whether a free page is backed is not recorded: all free runs come out as returned, and `returned` is told each of them
 * once, so that the caller can punch out what is still there.
 *
 * Before anything is changed, all spans in use are checked: inside the heap, none inside another, of a length, class and owner
 * that go together, and their pages marked as they ought to be; and that roots have names and lead into the heap, and thread
 * records belong to clients that there can be. A heap where that does not hold was not left so by any death of a daemon; to
 * go on with it would hand out pages that are in use. Counters that contradict each other are raised until they do not.
 */
#ifndef SHM_ADOPT_H
#define SHM_ADOPT_H

#include "shm/pageheap.h"

#define SHMI_E_ADOPT_DAMAGED                                                                                           \
	1 /* spans, roots or thread records contradict each other or the heap; nothing was changed */

/* Rebuilds; `img` is open and nobody else writes meta. Central spans are filed by what their bitmaps say, or, without ctl, as
 * having free slots. `returned` may be NULL. Bumps super->generation. Returns 0 or SHMI_E_ADOPT_DAMAGED, with the page that
 * is to blame (0: no page is) in *where. Cost: linear in the published pages. */
int shmi_adopt(struct shmi_image *img, uint32_t now, void (*returned)(void *ctx, struct shmi_run run), void *ctx,
        shmi_page *where);

#endif
