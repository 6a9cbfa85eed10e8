/* A best-fit tree over span records: free runs ordered by length, then by first page.
 *
 * A treap whose links lie in the records (`next` left child, `prev` right child, `parent`) and whose priorities are a hash
 * of the first page: nothing more is stored, the shape follows from the set alone, and a tree of n runs is about
 * 2 log2 n deep on average, whatever the order of insertions. (Red-black trees are a little shallower and five times the
 * code.) No function recurses. A root is a page index, 0 for the empty tree; where it lies is the caller's business.
 *
 * The length of a record must not change while it is in a tree. One caller at a time; readers of a tree that changes see
 * nonsense, so only the daemon and a check between two requests look at it.
 */
#ifndef SHM_SPANTREE_H
#define SHM_SPANTREE_H

#include "shm/image.h"

void shmi_spantree_insert(struct shmi_image *img, uint32_t *root, shmi_page page);

/* `page` must be in the tree. */
void shmi_spantree_remove(struct shmi_image *img, uint32_t *root, shmi_page page);

/* The shortest run of at least `pages` pages, the lowest of those. SHMI_NO_PAGE if there is none. */
shmi_page shmi_spantree_best(const struct shmi_image *img, uint32_t root, shmi_npages pages);

/* The longest run, the highest of those. SHMI_NO_PAGE if the tree is empty. */
shmi_page shmi_spantree_last(const struct shmi_image *img, uint32_t root);

/* The next and the one before in order; SHMI_NO_PAGE at the end. */
shmi_page shmi_spantree_next(const struct shmi_image *img, shmi_page page);
shmi_page shmi_spantree_prev(const struct shmi_image *img, shmi_page page);

#endif
