/* The cache among the examples: warm for the next process and over a restart of the daemon, bounded, and right after its users were
 * killed. */
#include "tests/system/killing.h"

#include "client/shmalloc.h"

#define KEYS 60u
#define USERS 3u
#define KILLS 30
#define SMALL 65536u /* of about 120 KiB that the values of all keys have */

struct keys {
	char name[KEYS][8];
	char value[KEYS][64]; /* what `cache get` says of it: check sum and length */
	const char *argv[KEYS + 3]; /* cache get KEY... */
};

static void keys_init(struct keys *keys)
{
	*keys = (struct keys){.argv = {"examples/cache", "get"}};
	for (unsigned i = 0; i < KEYS; i++) {
		snprintf(keys->name[i], sizeof(keys->name[i]), "key%u", i);
		keys->argv[2 + i] = keys->name[i];
	}
}

/* A line of `cache get`. The first that is said of a key's value holds for all others. */
static void note(struct keys *keys, const char *line, unsigned *hits)
{
	char how[8], value[64];
	unsigned key;

	cr_assert_eq(sscanf(line, "key%u %7s %63[^\n]", &key, how, value), 3, "%s", line);
	cr_assert_lt(key, KEYS);
	if (!keys->value[key][0])
		memcpy(keys->value[key], value, sizeof(value));
	cr_expect_str_eq(keys->value[key], value, "%s", line);
	*hits += strcmp(how, "hit") == 0;
}

/* Gets all; returns how many were hits. */
static unsigned get_all(struct keys *keys)
{
	unsigned hits = 0, lines = 0;
	char *said = NULL, *rest;

	cr_assert_eq(program_run(keys->argv, &said), 0);
	for (char *line = strtok_r(said, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		note(keys, line, &hits);
		lines++;
	}
	cr_expect_eq(lines, KEYS);
	free(said);
	return hits;
}

/* Of `cache show`: entries, within the bound, and the count of their bytes is right. */
static unsigned entries_within(uint64_t bound)
{
	static const char *const show[] = {"examples/cache", "show", NULL};
	unsigned long long bytes, limit;
	unsigned entries = 0;
	char *said = NULL;

	cr_expect_eq(program_run(show, &said), 0);
	cr_assert_eq(sscanf(said, "show: %u entries, %llu of %llu bytes", &entries, &bytes, &limit), 3, "%s", said);
	fputs(said, stderr);
	cr_expect_eq(limit, bound);
	cr_expect_leq(bytes, bound);
	free(said);
	return entries;
}

static void set_limit(const char *bytes)
{
	const char *const limit[] = {"examples/cache", "limit", bytes, NULL};

	cr_expect_eq(program_run(limit, NULL), 0);
}

static void drop(void)
{
	static const char *const drop[] = {"examples/cache", "drop", NULL};

	cr_expect_eq(program_run(drop, NULL), 0);
}

Test(examples_cache, warm_and_bounded)
{
	struct test_daemon d;
	struct keys keys;

	keys_init(&keys);
	system_start(&d, NULL);
	cr_expect_eq(get_all(&keys), 0);
	cr_expect_eq(get_all(&keys), KEYS);
	cr_expect_eq(test_daemon_stop(&d), 0);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_eq(get_all(&keys), KEYS, "warm over a restart of the daemon");
	cr_expect_eq(entries_within(1 << 20), KEYS);
	set_limit("65536");
	unsigned kept = entries_within(SMALL);

	cr_expect(kept > KEYS / 4 && kept < KEYS, "%u entries", kept);
	get_all(&keys);
	cr_expect_gt(entries_within(SMALL), KEYS / 4);
	drop();
	system_expect_empty(&d);
	cr_expect_eq(get_all(&keys), 0, "computed anew, and the same");
	drop();
	system_expect_empty(&d);
	system_end(&d);
}

/* All keys, in another order each time. */
static pid_t user_start(struct killing *k, struct keys *keys)
{
	for (uint32_t i = KEYS - 1; i > 0; i--) {
		uint32_t other = test_random_below(&k->random, i + 1);
		const char *swapped = keys->argv[2 + i];

		keys->argv[2 + i] = keys->argv[2 + other];
		keys->argv[2 + other] = swapped;
	}
	return killing_start(k, keys->argv);
}

Test(examples_cache, users_that_are_killed)
{
	struct test_daemon d;
	struct killing k;
	struct keys keys;
	pid_t user[USERS];
	unsigned hits = 0;

	keys_init(&keys);
	system_start(&d, NULL);
	killing_init(&k, "cache");
	set_limit("65536");
	for (uint32_t i = 0; i < USERS; i++)
		user[i] = user_start(&k, &keys);
	while (k.kills < KILLS ||
	        !hits) { /* on a machine that is busy they are killed before they have found anything */
		uint32_t victim = test_random_below(&k.random, USERS);

		for (uint32_t lines = test_random_below(&k.random, KEYS / 2); lines > 0 && killing_line_is_there(&k);
		        lines--)
			note(&keys, killing_line(&k), &hits);
		killing_linger(&k, 3000);
		killing_kill(&k, user[victim]);
		user[victim] = user_start(&k, &keys);
	}
	for (uint32_t i = 0; i < USERS; i++)
		killing_kill(&k, user[i]);
	while (killing_line_is_there(&k))
		note(&keys, killing_line(&k), &hits);
	get_all(&keys);
	unsigned entries = entries_within(SMALL);
	int64_t live = killing_expect_blocks(&k, &d, entries + 1);

	drop();
	cr_expect_eq(killing_expect_blocks(&k, &d, 0), live - entries - 1);
	killing_end(&k);
	system_end(&d);
}

/* A block under the root with this layout. */
static int leave_layout(void *arg)
{
	uint64_t *header = shma_calloc(64, 1024);

	child_check(header && shma_root_set(shma_default(), "cache", header) == 0);
	memcpy(header, "SHMCACHE", sizeof(*header));
	header[1] = *(const uint64_t *)arg;
	return 0;
}

Test(examples_cache, another_layout_is_refused_in_words)
{
	uint64_t layout = 4711;
	struct test_daemon d;
	char words[256] = "";
	int ends[2], kept = dup(STDERR_FILENO);
	struct keys keys;

	keys_init(&keys);
	system_start(&d, NULL);
	cr_assert_eq(child_run(leave_layout, &layout), 0);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	dup2(ends[1], STDERR_FILENO);
	int status = program_run(keys.argv, NULL);

	dup2(kept, STDERR_FILENO);
	close(kept);
	close(ends[1]);
	cr_expect_gt(read(ends[0], words, sizeof(words) - 1), 0);
	close(ends[0]);
	cr_expect_eq(status, 1);
	cr_expect_not_null(strstr(words, "layout 4711"), "%s", words);
	cr_expect_eq(test_ctl_stat(&d, "live_blocks"), 1, "it is left alone");
	system_end(&d);
}
