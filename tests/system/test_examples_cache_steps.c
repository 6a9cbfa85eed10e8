/* The cache among the examples, killed at every instruction that changes what others see of it: while a process puts an entry in, for
 * which another one is evicted. What tells apart the moments is a store to the lock, the count or the chains; after each, and before
 * the first, one victim dies. A process that lives looks at what it finds. `make soak` does so after every instruction, those of the
 * heap included. */
int cache_main(int argc, char **argv);
#define main cache_main
#include "client/examples/cache.c"
#undef main

#include <sys/mman.h>

#include "tests/lib/stepper.h"
#include "tests/system/system.h"

#define TRIALS 20000u /* more than there are instructions */

static const char *const kept[] = {"one", "two", "three", "four"};
#define KEPT (sizeof(kept) / sizeof(kept[0]))
static const char *const added = "another";

/* As a process that puts an entry in, after a warm-up: it is a client, and has memory. */
static void victim(void *arg)
{
	uint64_t size;
	unsigned char *value = compute(added, &size);

	(void)arg;
	shma_free(shma_malloc(sizeof(struct entry) + strlen(added) + size));
	stepper_mark(1);
	cache_lock();
	(void)entry_put(added, value, size);
	cache_unlock();
	stepper_mark(2);
}

/* Puts what is missing, takes out what was added: all victims find the same, with room for no more and the first key to go next. */
static void restore(void)
{
	uint64_t size, entries;

	cache_lock();
	cache->limit = LIMIT;
	struct entry *extra = entry_find(added);
	_Atomic shma_off *link = chain_of(added);

	while (extra && entry_at(link) != extra)
		link = &entry_at(link)->next;
	if (extra)
		entry_remove(link);
	for (size_t i = 0; i < KEPT; i++) {
		unsigned char *value = compute(kept[i], &size);

		child_check(entry_find(kept[i]) || entry_put(kept[i], value, size));
		entry_find(kept[i])->marked = 0;
		free(value);
	}
	cache->limit = count(&entries);
	cache->hand = (uint64_t)(chain_of(kept[0]) - cache->chain);
	cache_unlock();
}

/* Absent, or with its whole value. */
static bool whole(const char *key)
{
	const struct entry *entry = entry_find(key);
	uint64_t size;
	unsigned char *value = compute(key, &size);
	bool good = !entry || (entry->value_size == size && memcmp(entry->bytes + entry->key_size, value, size) == 0);

	free(value);
	return good;
}

/* Whoever has the lock next finds the count right, the bound kept, and no entry that is not whole. */
static void look(void)
{
	uint64_t entries;

	cache_lock();
	child_check(cache->bytes == count(&entries));
	child_check(cache->bytes <= cache->limit);
	child_check(entries >= 1 && entries <= KEPT + 1);
	child_check(whole(added));
	for (size_t i = 0; i < KEPT; i++)
		child_check(whole(kept[i]));
	cache_unlock();
}

/* Kills a victim after so many stores, or instructions in a soak. False when it was done before. */
static bool kill_after(uint32_t stores)
{
	struct stepper s = {.pid = 0};
	struct stepper_watch watch = {.block = NULL};
	enum stepper_stop stop = STEPPER_BOUNDARY;
	uint32_t seen = 0;

	child_check(stepper_start(&s, victim, NULL) == 0);
	child_check(stepper_run(&s) == STEPPER_MARK && s.mark == 1);
	stepper_watch_add(&watch, &cache->lock, sizeof(cache->lock));
	stepper_watch_add(&watch, (const char *)cache + offsetof(struct cache, bytes), sizeof(cache->bytes));
	stepper_watch_add(&watch, (const char *)cache + offsetof(struct cache, chain), sizeof(cache->chain));
	stepper_watch_look(&watch);
	while (seen < stores && (stop = stepper_step(&s)) == STEPPER_BOUNDARY)
		seen += stepper_watch_look(&watch) || system_soaks();
	child_check(stop == STEPPER_BOUNDARY || (stop == STEPPER_MARK && s.mark == 2));
	stepper_kill(&s);
	stepper_watch_free(&watch);
	return seen == stores;
}

/* The number of deaths goes to *arg. */
static int kill_at_each_store(void *arg)
{
	uint32_t *deaths = arg;

	heap = shma_default();
	child_check(heap);
	cache_open(false);
	bool more = true;

	for (uint32_t stores = 0; more; stores++) {
		child_check(stores < TRIALS);
		restore();
		more = kill_after(stores);
		++*deaths;
		look();
	}
	child_check(cache->mended >= 5); /* after the lock, the link, the count, the head, the count */
	child_check(cache->evicted >= 1);
	fprintf(stderr, "%u deaths, %llu with the lock\n", *deaths, (unsigned long long)cache->mended);
	drop();
	return 0;
}

Test(examples_cache_steps, the_cache_at_each_store)
{
	uint32_t *deaths = mmap(NULL, sizeof(*deaths), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct test_daemon d;
	int64_t last;

	if (stepper_why_not())
		cr_skip_test("%s", stepper_why_not());
	cr_assert_neq(deaths, MAP_FAILED);
	system_start(&d, NULL);
	cr_expect_eq(child_run(kill_at_each_store, deaths), 0);
	cr_expect_gt(*deaths, 10);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	last = test_ctl_stat(&d, "live_blocks");
	fprintf(stderr, "%lld blocks\n", (long long)last);
	cr_expect(last >= 0 && last <= *deaths, "%lld blocks after %u deaths", (long long)last, *deaths);
	cr_expect_eq(test_ctl_check(&d), 0);
	munmap(deaths, sizeof(*deaths));
	system_end(&d);
}
