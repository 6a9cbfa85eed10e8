/* What the files of the heap check share: the state of one check, and how a finding is reported. See shm/check.h.
 *
 *	check.c         the table of invariants, the passes, what counts as found
 *	check_meta.c    runs, records, page arrays, counts: facts of which the daemon is the only writer
 *	check_lists.c   lists and trees, the same
 *	check_ctl.c     bitmaps and thread records, which change while we look
 *	check_caches.c  that no slot is in two places
 */
#ifndef SHM_CHECKER_H
#define SHM_CHECKER_H

#include "shm/check.h"
#include "shm/threadrec.h"
#include "shm/walk.h"

/* Findings of one pass that are remembered. Whoever has so many does not need the rest listed, and a client that fills its
 * records with rubbish does not get to fill the daemon's memory. */
#define SHMI_FINDINGS_MAX 65536u

/* A place: what has to be found there again. */
struct shmi_finding {
	uint32_t invariant, page;
	uint64_t detail;
	uint32_t seen; /* the last pass that found it */
	uint32_t unused;
};

struct shmi_checker {
	const struct shmi_image *img;
	const struct shmi_check_env *env; /* never NULL here */
	uint32_t published;
	uint32_t invariant; /* the one that is being checked */
	bool live; /* it reads ctl: its findings have to come again on every pass */
	uint32_t pass, passes;

	struct shmi_finding *findings; /* sorted after the first pass */
	uint32_t n_findings, room_findings;

	struct shmi_violation *out;
	uint32_t room, count;

	uint64_t *run_starts; /* bit p: a run begins at page p. Made by I1 */
	uint64_t *
	        slot_marks; /* bit 512 p + s: slot s of the span at page p was met in a magazine. Fresh for every pass */
	bool no_memory;
};

/* Reports that the invariant does not hold at `page` (0: not about a page) for `detail`. */
__attribute__((format(printf, 4, 5))) void shmi_found(
        struct shmi_checker *c, uint32_t page, uint64_t detail, const char *format, ...);

static inline bool shmi_bit_get(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

/* Sets a bit and returns what it was. */
static inline bool shmi_bit_set(uint64_t *bits, uint64_t i)
{
	bool was = shmi_bit_get(bits, i);

	bits[i / 64] |= 1ull << i % 64;
	return was;
}

/* A run begins at `page`: the only pages whose records later invariants believe. */
static inline bool shmi_run_begins(const struct shmi_checker *c, uint32_t page)
{
	return page != 0 && page < c->published && shmi_bit_get(c->run_starts, page);
}

/* One function for each invariant; `shm/README.md` has the sentences. */
void shmi_check_tiling(struct shmi_checker *c);
void shmi_check_words(struct shmi_checker *c);
void shmi_check_classes(struct shmi_checker *c);
void shmi_check_page_map(struct shmi_checker *c);
void shmi_check_owners(struct shmi_checker *c);
void shmi_check_central(struct shmi_checker *c);
void shmi_check_central_free(struct shmi_checker *c);
void shmi_check_coalesced(struct shmi_checker *c);
void shmi_check_counts(struct shmi_checker *c);
void shmi_check_entries(struct shmi_checker *c);
void shmi_check_one_cache(struct shmi_checker *c);
void shmi_check_not_free(struct shmi_checker *c);
void shmi_check_intents(struct shmi_checker *c);
void shmi_check_tops(struct shmi_checker *c);
void shmi_check_bitmaps(struct shmi_checker *c);
void shmi_check_header(struct shmi_checker *c);
void shmi_check_exact_lists(struct shmi_checker *c);
void shmi_check_trees(struct shmi_checker *c);
void shmi_check_clients(struct shmi_checker *c);
void shmi_check_threads(struct shmi_checker *c);
void shmi_check_big(struct shmi_checker *c);
void shmi_check_roots(struct shmi_checker *c);
void shmi_check_counters(struct shmi_checker *c);
void shmi_check_scoped(struct shmi_checker *c);
void shmi_check_seized(struct shmi_checker *c);

#endif
