/* The free runs in order of length: per kind, a list for each length up to SHMI_EXACT_PAGES and a tree for those above, and a
 * bit for each list that is not empty. What the page heap chooses from; where neighbours lie is not its business.
 *
 * A run is entered with its record (state MOVING, length set) and comes out in state MOVING again; page map entries of both
 * ends come and go with it. Within one length a list gives the run that came last, a tree the lowest.
 */
#ifndef SHM_FREERUNS_H
#define SHM_FREERUNS_H

#include "shm/span.h"

/* Index of the heads. */
enum shmi_kind { SHMI_BACKED, SHMI_RETURNED };

/* MOVING to free. `stamp` is the tick at which it came. */
void shmi_freeruns_insert(struct shmi_image *img, shmi_page run, enum shmi_kind kind, uint32_t stamp);

/* Free to MOVING. */
void shmi_freeruns_remove(struct shmi_image *img, shmi_page run);

/* From the shortest run with at least `pages` pages (at least 1) to ever longer ones; SHMI_NO_PAGE at the end. */
shmi_page shmi_freeruns_first(const struct shmi_image *img, enum shmi_kind kind, uint32_t pages);
shmi_page shmi_freeruns_next(const struct shmi_image *img, enum shmi_kind kind, shmi_page run);

/* From the longest run to ever shorter ones; SHMI_NO_PAGE at the end. */
shmi_page shmi_freeruns_last(const struct shmi_image *img, enum shmi_kind kind);
shmi_page shmi_freeruns_prev(const struct shmi_image *img, enum shmi_kind kind, shmi_page run);

#endif
