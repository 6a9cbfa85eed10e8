#include "tests/interleave/parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/arena.h"

/* ---- preparation ---- */

static void *map(size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

/* Memory of the last scenario is given up, so that the next one finds zeros. */
static void *map_again(void **at, size_t len)
{
	if (*at)
		munmap(*at, len);
	return *at = map(len);
}

static void new_heap(void)
{
	static void *old_meta, *old_ctl, *old_copy, *old_caches;
	struct shmi_geometry geo;

	shmi_geometry_init(&geo, PAGES);
	parts.meta = map_again(&old_meta, geo.meta_bytes);
	parts.ctl = map_again(&old_ctl, geo.records + ACTORS * geo.record_bytes);
	parts.copy = map_again(&old_copy, geo.record_bytes);
	parts.caches = map_again(&old_caches, ACTORS * sizeof(*parts.caches));
	parts.class = NULL; /* nothing is checked until there are spans */
	shmi_image_format(&parts.img, parts.meta, parts.ctl,
	        &(struct shmi_image_params){
	                .heap_id = 1, .base = 1ull << 45, .heap_name = "interleave", .limit_pages = PAGES});
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++)
		shmi_thread_slot_at(&parts.img, t)->client = SHMI_NOBODY;
	shmi_arena_publish(&parts.img, (shmi_npages){PAGES}, 0);
	memset(&world, 0, sizeof(world));
	parts.sclass = shmi_sclass_make(shmi_class_of(parts.scenario->size), parts.scenario->attrs);
	parts.class = &parts.img.classes[shmi_sclass_size_class(parts.sclass)];
}

static void new_thread(uint32_t a)
{
	uint32_t c = parts.scenario->client[a], part = 1u << shmi_sclass_attrs(parts.sclass);
	struct shmi_thread_slot *slot = shmi_thread_slot_at(&parts.img, a);

	parts.envs[c] = (struct shmi_tc_env){.img = parts.img,
	        .base = 1ull << 45,
	        .held = parts.held[c],
	        .own_scoped = &parts.own_scoped[c],
	        .owner = shmi_owner_at(&parts.img, c),
	        .ops = &parts_ops};
	shmi_owner_at(&parts.img, c)->in_use = 1;
	slot->client = (uint16_t)c;
	slot->parts = (uint8_t)part;
	slot->head = 1;
	shmi_threadrec_at(&parts.img, a)->client = c;
	shmi_tcache_init(&parts.caches[a], &parts.envs[c], a, part);
	(void)shmi_tcache_set_up(&parts.caches[a], parts.sclass);
	parts.caches[a].limit[parts.sclass.c] = parts.scenario->limit;
	parts.caches[a].limit_bytes = SHMI_TC_BUDGET; /* magazines do not grow */
}

/* The span on page 1, held by the first actor. Slots that the book does not know belong to somebody who never frees them. */
static void open_first(void)
{
	struct shmi_run run = {{0}, {0}, false};

	(void)daemon_take_page(&run);
	shmi_span_open(&parts.img, run, parts.sclass, parts.scenario->client[1]);
	for (uint32_t slot = 0; slot < parts.class->slots && !parts.scenario->spare; slot++)
		if (parts_slot(slot) == TRACKED)
			(void)shmi_fetch_and(&shmi_bitmap_at(&parts.img, run.first)[slot / 64], ~(1ull << slot % 64));
	shmi_tcache_grant(&parts.caches[1], run.first.i, shmi_span_word(&parts.img, run.first).generation, parts.sclass,
	        parts.scenario->spare || parts.class->slots == parts_tracked());
}

#define REGION(at, owner) explore_region(&(at), sizeof(at), owner, true)

static void cache_regions(uint32_t a)
{
	struct shmi_tcache *tc = &parts.caches[a];
	uint32_t owner = parts.scenario->client[a], s = parts.sclass.c;

	REGION(tc->mag[s], owner);
	REGION(tc->limit[s], owner);
	explore_region(&tc->base, offsetof(struct shmi_tcache, cls) - offsetof(struct shmi_tcache, base), owner, true);
	REGION(tc->cls[s], owner);
	explore_region(&tc->rec, offsetof(struct shmi_tcache, whole) - offsetof(struct shmi_tcache, rec), owner, true);
	REGION(tc->whole[s], owner);
	REGION(tc->keep[s], owner);
	REGION(tc->given[s], owner);
	REGION(tc->ready[s], owner);
	REGION(tc->full[s], owner);
	explore_region(&tc->ask, offsetof(struct shmi_tc_ask, wants) + sizeof(tc->ask.wants[0]), owner, true);
	explore_region(tc->ask.returns, MAILS * sizeof(tc->ask.returns[0]), owner, true);
	explore_region(tc->ask.reports, MAILS * sizeof(tc->ask.reports[0]), owner, true);
	explore_region(&tc->ask.remote_freed, sizeof(tc->ask.remote_freed), owner, false); /* a figure */
	explore_region(tc->groups, 4 * sizeof(tc->groups[0]), owner, true);
	for (uint32_t p = 1; p <= 1 + parts.scenario->pages; p++)
		for (uint32_t w = 0; w < parts.class->words; w++) /* where the cache looks for the group of a word */
			explore_region(
			        &tc->hash[(p * 8u + w) * 0x9e3779b1u >> 22], 2 * sizeof(tc->hash[0]), owner, false);
}

static void heap_regions(void)
{
	struct shmi_counters *counters = &parts.img.super->counters;

	explore_region(&parts.img.super->generation, 4, NO_CLIENT, false);
	explore_region(&parts.img.super->generations, 4, NO_CLIENT, true);
	REGION(parts.img.super->pages, NO_CLIENT);
	explore_region(counters, sizeof(*counters), NO_CLIENT, false); /* nothing is decided by them */
	REGION(counters->slots_written_off, NO_CLIENT);
	explore_region(shmi_central_at(&parts.img, parts.sclass), sizeof(struct shmi_central_lists), NO_CLIENT, true);
	for (uint32_t c = 0; c < CLIENTS; c++)
		explore_region(shmi_owner_at(&parts.img, c), sizeof(struct shmi_owner), NO_CLIENT, true);
	for (uint32_t a = 1; a < parts.scenario->actors; a++)
		explore_region(shmi_thread_slot_at(&parts.img, a), sizeof(struct shmi_thread_slot), NO_CLIENT, true);
	explore_region(shmi_span_at(&parts.img, (shmi_page){0}), PAGES * sizeof(struct shmi_span), NO_CLIENT, true);
	explore_region(shmi_page_class_at(&parts.img, (shmi_page){0}), PAGES * 2, NO_CLIENT, true);
	explore_region(shmi_page_span_at(&parts.img, (shmi_page){0}), PAGES * 4, NO_CLIENT, true);
	explore_region(shmi_holder_at(&parts.img, (shmi_page){0}), PAGES * 4, NO_CLIENT, false);
	for (uint32_t p = 1; p <= 1 + parts.scenario->pages; p++)
		explore_region(shmi_bitmap_at(&parts.img, (shmi_page){p}), parts.class->words * 8, NO_CLIENT, true);
}

static void regions(void)
{
	heap_regions();
	REGION(world, NO_CLIENT);
	REGION(parts.daemon, NO_CLIENT);
	REGION(parts.write_off, NO_CLIENT);
	REGION(parts.seizing, NO_CLIENT);
	REGION(parts.scoped_death, NO_CLIENT);
	explore_region(parts.copy, RECORD_HEAD, NO_CLIENT, true);
	explore_region(shmi_magazine_at(&parts.img, parts.copy, parts.sclass), MAGAZINE_BYTES, NO_CLIENT, true);
	for (uint32_t a = 1; a < parts.scenario->actors; a++) {
		struct shmi_threadrec *rec = shmi_threadrec_at(&parts.img, a);

		explore_region(rec, RECORD_HEAD, NO_CLIENT, true);
		explore_region(shmi_magazine_at(&parts.img, rec, parts.sclass), MAGAZINE_BYTES, NO_CLIENT, true);
		explore_watch(rec, parts.img.geo.record_bytes);
		cache_regions(a);
	}
	for (uint32_t c = 0; c < CLIENTS; c++) {
		REGION(parts.held[c], c);
		REGION(parts.own_scoped[c], c);
	}
	explore_watch(parts.meta, parts.img.geo.meta_bytes);
	explore_watch(parts.ctl, parts.img.geo.bitmaps + PAGES * SHMI_BITMAP_BYTES_PER_PAGE);
	explore_watch(parts.caches, ACTORS * sizeof(*parts.caches));
	explore_watch(parts.copy, parts.img.geo.record_bytes);
}

void world_run(const struct scenario *s, struct explore_result *result)
{
	struct explore explore = {.model = s->model, .actors = s->actors, .wide = s->wide};

	parts = (struct parts){.scenario = s};
	parts_explore(&explore);
	explore_reset();
	new_heap();
	for (uint32_t a = 1; a < s->actors; a++)
		new_thread(a);
	open_first();
	s->prepare();
	world.kills_left = s->kills;
	world.daemon_kills_left = s->daemon_kills;
	world.seizes_left = s->seizes;
	world.may_die = s->may_die;
	explore_actor[DAEMON].client = NO_CLIENT;
	for (uint32_t a = 1; a < s->actors; a++)
		explore_actor[a].client = s->client[a];
	regions();
	explore_run(&explore, result);
}
