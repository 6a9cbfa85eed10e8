/* A reference model of a heap's pages: an array that says of each page what it is, and a comparison of all that the image
 * holds (records, page map, page classes, lists, trees, counts) with what follows from that array. Slow and simple.
 */
#ifndef TESTS_LIB_PAGEMODEL_H
#define TESTS_LIB_PAGEMODEL_H

#include "shm/span.h"

#define PAGEMODEL_OWNERS 8u /* clients whose lists are compared */

enum pagemodel_kind { MODEL_OUT, MODEL_BACKED, MODEL_RETURNED, MODEL_MOVING, MODEL_USED };

/* What a page is part of; `first` and what follows it are for MOVING and USED pages. */
struct pagemodel_page {
	enum pagemodel_kind kind;
	uint32_t first;
	struct shmi_word word;
	bool lazy;
};

struct pagemodel {
	uint32_t limit, published;
	struct pagemodel_page *page;
	uint8_t *seen; /* of the comparison: entries that were met on a list */
};

struct pagemodel *pagemodel_new(uint32_t limit);
void pagemodel_free(struct pagemodel *model);

/* Pages up to `published` are there: the new ones are returned. */
void pagemodel_publish(struct pagemodel *model, uint32_t published);

void pagemodel_set(struct pagemodel *model, struct shmi_run run, enum pagemodel_kind kind);
void pagemodel_use(struct pagemodel *model, struct shmi_run run, struct shmi_word word, bool lazy);

/* The end of the run that begins at `page`: free pages of one kind, or one MOVING run, or one span. */
uint32_t pagemodel_end(const struct pagemodel *model, uint32_t page);

/* Length of the shortest free run of a kind that has an aligned place for `pages` pages; 0 if there is none. *lowest is the
 * first page of the lowest such run; *candidates, how many runs of the kind have `pages` pages or more. */
uint32_t pagemodel_fit(const struct pagemodel *model, enum pagemodel_kind kind, uint32_t pages, uint32_t align,
        uint32_t *lowest, uint32_t *candidates);

/* Is there a place in free or unpublished pages, of whatever kind? `returned_only`: in the returned pages before the end of
 * the arenas, if any, and those that come after. */
bool pagemodel_possible(const struct pagemodel *model, uint32_t pages, uint32_t align);
bool pagemodel_growth_possible(const struct pagemodel *model, uint32_t pages, uint32_t align);

/* NULL if the image is what the model says, else what is wrong. Publishing is taken over from the image first. */
const char *pagemodel_compare(struct pagemodel *model, const struct shmi_image *img);

#endif
