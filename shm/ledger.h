/* The ledger: what the spans of a heap add up to, by owner and by span class, kept up to date.
 *
 * The daemon has it in memory of its own. What is in meta (which spans there are, whose, of what class) changes only through
 * shmi_span_set, which tells the ledger: so those sums are exact at every moment, and cost nothing to read. What is in ctl (which
 * slots are free, which are cached) changes without a word; of each span the ledger knows what was found when somebody last
 * looked. A look at all of it is a round, in steps of any size:
 *
 *	shmi_ledger_see(...)      once for each cached block found in a magazine, spill or big cache
 *	shmi_ledger_count(...)    then for each span in use: counts its bitmap, and takes over what was seen
 *
 * Spans that open, close or change hands meanwhile are accounted for as they do. Each span's slots are shared out among free,
 * written off, cached and live, in this order and never more than there are, whatever stands in ctl; sums only ever have whole spans'
 * shares added and taken off. So at any moment, in the middle of a round too:
 *
 *	bytes = live + cached + slots_free + tail + written_off + quarantined     of each owner
 *	sums over owners = sums over classes (blocks times size)                  and both are the heap's
 *
 * A block that is cached counts for the owner of the span it is in, whoever has it in a cache. 16 bytes for each page of the limit,
 * of which the system backs what is used. Called by the daemon only.
 */
#ifndef SHM_LEDGER_H
#define SHM_LEDGER_H

#include "shm/span.h"

/* What is known of a span that is in use, by its first page. */
struct shmi_counted {
	uint32_t free, cached, written_off; /* slots; a large block has one */
	uint32_t seen; /* cached slots found in this round */
};

/* What an owner, or nobody, holds. Bytes, unless said otherwise. */
struct shmi_holding {
	uint64_t spans, live_blocks; /* counts */
	uint64_t bytes;
	uint64_t live, cached, slots_free, tail, written_off, quarantined;
};

/* The spans of a class. Counts but for `bytes`. */
struct shmi_stock {
	uint64_t spans_owned, spans_central, bytes;
	uint64_t live, cached, slots_free, written_off;
};

struct shmi_ledger {
	struct shmi_counted *counted; /* one for each page of the limit */
	struct shmi_holding owner[SHMI_MAX_CLIENTS];
	struct shmi_holding nobody;
	struct shmi_stock stock[SHMI_SPAN_CLASSES];
};

/* Begins to keep the ledger of the image, over zeroed memory for its pages. All spans are entered in one go, from meta alone: their
 * slots are all taken for live until the first round. */
void shmi_ledger_open(struct shmi_ledger *ledger, struct shmi_image *img, struct shmi_counted *counted);

/* For shmi_span_set: the word of the record at `page` was `from`, and is `to` now. */
void shmi_ledger_change(const struct shmi_image *img, shmi_page page, struct shmi_word from, struct shmi_word to);

/* A block at `off`, of a small span class, was found in a cache; what makes no sense is passed over. */
void shmi_ledger_see(const struct shmi_image *img, shmi_sclass sclass, uint64_t off);

/* The same for slots of a group in a spill, and for a large block's entry in a big cache. */
void shmi_ledger_see_group(const struct shmi_image *img, const struct shmi_group *group);
void shmi_ledger_see_large(const struct shmi_image *img, uint64_t entry);

/* Counts the span in use at `page`. */
void shmi_ledger_count(const struct shmi_image *img, shmi_page page);

/* All owners and nobody together. */
struct shmi_holding shmi_ledger_sum(const struct shmi_ledger *ledger);

#endif
