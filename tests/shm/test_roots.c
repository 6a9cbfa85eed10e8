#include "shm/roots.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/image.h"

TestSuite(roots, .timeout = 60);

static uint64_t get(const struct test_image *t, const char *name)
{
	shmi_off off;
	int error = shmi_roots_get(&t->view, name, &off);

	cr_assert(error == 0 || error == SHMI_E_ROOT_NONE);
	return error ? 0 : off.b;
}

TEST_ON_IMAGES(roots, set_get_del, 16)
{
	shmi_off off;

	cr_assert_eq(shmi_roots_get(&t->view, "a", &off), SHMI_E_ROOT_NONE);
	cr_assert_eq(shmi_roots_set(&t->img, "a", (shmi_off){8192}, 3), 0);
	cr_assert_eq(shmi_roots_set(&t->img, "ab", (shmi_off){16384}, 4), 0);
	cr_assert_eq(get(t, "a"), 8192);
	cr_assert_eq(get(t, "ab"), 16384);
	cr_assert_eq(get(t, "b"), 0);
	cr_assert_eq(shmi_roots_set(&t->img, "a", (shmi_off){24576}, 5), 0);
	cr_assert_eq(get(t, "a"), 24576);
	cr_assert_eq(shmi_load(&shmi_root_at(&t->view, 0)->client), 5);
	cr_assert_eq(shmi_roots_del(&t->img, "a"), 0);
	cr_assert_eq(shmi_roots_del(&t->img, "a"), SHMI_E_ROOT_NONE);
	cr_assert_eq(get(t, "a"), 0);
	cr_assert_eq(get(t, "ab"), 16384);
}

TEST_ON_IMAGES(roots, names, 16)
{
	char name[SHMI_ROOT_NAME_MAX + 2];
	shmi_off off;

	memset(name, 'n', sizeof(name));
	name[SHMI_ROOT_NAME_MAX + 1] = 0;
	for (uint32_t i = 0; i < 2; i++) {
		const char *bad = i ? name : "";

		cr_assert_eq(shmi_roots_set(&t->img, bad, (shmi_off){8192}, 0), SHMI_E_ROOT_NAME);
		cr_assert_eq(shmi_roots_get(&t->view, bad, &off), SHMI_E_ROOT_NAME);
		cr_assert_eq(shmi_roots_del(&t->img, bad), SHMI_E_ROOT_NAME);
	}
	name[SHMI_ROOT_NAME_MAX] = 0;
	cr_assert_eq(shmi_roots_set(&t->img, name, (shmi_off){8192}, 0), 0);
	cr_assert_eq(get(t, name), 8192);
	name[SHMI_ROOT_NAME_MAX - 1] = 0;
	cr_assert_eq(get(t, name), 0);
}

TEST_ON_IMAGES(roots, full_table, 16)
{
	char name[16];

	for (uint32_t i = 0; i < SHMI_MAX_ROOTS; i++) {
		snprintf(name, sizeof(name), "root%u", i);
		cr_assert_eq(shmi_roots_set(&t->img, name, (shmi_off){8192 + i * 16ull}, 1), 0);
	}
	cr_assert_eq(shmi_roots_set(&t->img, "one more", (shmi_off){8192}, 1), SHMI_E_ROOT_FULL);
	cr_assert_eq(shmi_roots_set(&t->img, "root7", (shmi_off){4096}, 1), 0); /* replaces: needs no room */
	cr_assert_eq(get(t, "root7"), 4096);
	cr_assert_eq(shmi_roots_del(&t->img, "root5"), 0);
	cr_assert_eq(shmi_roots_set(&t->img, "one more", (shmi_off){8192}, 1), 0);
	cr_assert_eq(get(t, "one more"), 8192);
	cr_assert_eq(get(t, "root5"), 0);
}

/* A daemon that died while it named an entry left it odd and without an offset: it is taken over, and even again. */
TEST_ON_IMAGES(roots, half_named_entry, 16)
{
	struct shmi_root *root = shmi_root_at(&t->img, 0);

	shmi_store(&root->seq, 7);
	memcpy(root->name, "half", 5);
	cr_assert_eq(get(t, "half"), 0);
	cr_assert_eq(shmi_roots_set(&t->img, "whole", (shmi_off){8192}, 1), 0);
	cr_assert_eq(shmi_load(&root->seq), 8);
	cr_assert_eq(get(t, "whole"), 8192);
}

/* An entry in use whose sequence number says that its name is being changed is damaged: it is not found, and nobody hangs. */
TEST_ON_IMAGES(roots, damaged_entry, 16)
{
	cr_assert_eq(shmi_roots_set(&t->img, "a", (shmi_off){8192}, 3), 0);
	shmi_store(&shmi_root_at(&t->img, 0)->seq, 3);
	cr_assert_eq(get(t, "a"), 0);
}

/* A writer gives a few entries ever new names, while a reader looks: a name never has the offset of another. */
struct race {
	struct test_image *t;
	shmi_a32 stop;
};

static void race_name(uint32_t i, char name[64])
{
	memset(name, 'a' + (int)i % 26, 63);
	name[63] = 0;
	snprintf(name, 64, "%u", i);
	name[strlen(name)] = 'x'; /* a long name of which many words change */
}

static void *write_roots(void *arg)
{
	struct race *race = arg;
	char name[64];

	for (uint32_t i = 0; !shmi_load(&race->stop); i = (i + 1) % 50) {
		race_name(i, name);
		shmi_roots_set(&race->t->img, name, (shmi_off){8192 + 16 * (uint64_t)i}, 1);
		race_name((i + 47) % 50, name);
		shmi_roots_del(&race->t->img, name);
	}
	return NULL;
}

TEST_ON_IMAGES(roots, reader_beside_a_writer, 16)
{
	struct race race = {.t = t};
	uint32_t found = 0;
	pthread_t writer;
	char name[64];

	cr_assert_eq(pthread_create(&writer, NULL, write_roots, &race), 0);
	for (uint32_t i = 0; i < 200000 || (!found && i < 20000000); i++) {
		race_name(i % 50, name);
		uint64_t off = get(t, name);

		cr_assert(!off || off == 8192 + 16 * (uint64_t)(i % 50), "%s is at %lu", name, off);
		found += off != 0;
	}
	shmi_store(&race.stop, 1);
	pthread_join(writer, NULL);
	cr_assert_neq(found, 0);
}
