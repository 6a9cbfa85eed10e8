/* shmallocctl evict on a real daemon: with and without --kill, with children that share memory, after a restart, by whom. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/shmalloc.h"
#include "tests/system/family.h"

#define NOBODY 65534
#define MIB (1024 * 1024)

static struct test_daemon d;

static void start(void)
{
	system_start(&d, NULL);
}

static void end(void)
{
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- clients ---- */

/* Holds three blocks, one of them large and one scoped, until it is told to go; says each time that it is asked whether it is
 * granted more. */
static int hold(void *arg)
{
	struct family *f = arg;

	child_check(shma_malloc(100) && shma_malloc(3 * MIB));
	char *scoped = shma_heap_alloc(shma_default(), 5000, 0, SHMA_SCOPED);

	child_check(scoped != NULL);
	memset(scoped, 7, 5000);
	family_say(f);
	while (family_hears(f)) {
		errno = 0;
		void *more = shma_malloc(5 * MIB);

		child_check(more || errno == EACCES);
		child_check(write(f->from_child[1], more ? "y" : "n", 1) == 1);
		shma_free(more);
	}
	for (int i = 0; i < 5000; i++)
		child_check(scoped[i] == 7);
	return 0;
}

/* A child of it that only has its memory, and is no client. */
static int hold_with_child(void *arg)
{
	struct family *f = arg;

	child_check(shma_malloc(100) != NULL);
	char *scoped = shma_heap_alloc(shma_default(), 5000, 0, SHMA_SCOPED);

	child_check(scoped != NULL);
	memset(scoped, 7, 5000);
	pid_t pid = fork();

	if (pid) {
		family_forget(f);
		return child_join(pid);
	}
	family_say(f);
	while (family_hears(f))
		family_say(f);
	for (int i = 0; i < 5000; i++)
		child_check(scoped[i] == 7);
	_exit(0);
}

static char asks(struct family *f)
{
	char byte = 0;

	cr_assert_eq(write(f->to_child[1], "x", 1), 1);
	cr_assert_eq(read(f->from_child[0], &byte, 1), 1);
	return byte;
}

static void await(struct family *f)
{
	char byte;

	cr_assert_eq(read(f->from_child[0], &byte, 1), 1);
}

static void let_go(struct family *f)
{
	(void)close(f->to_child[1]);
}

/* ---- the command ---- */

/* The id of the client with this pid. */
static void id_of(pid_t pid, char id[16])
{
	json_t *json = test_ctl_json(&d, "clients"), *row;
	size_t i;

	cr_assert_not_null(json);
	id[0] = 0;
	json_array_foreach(
	        json_object_get(json, "clients"), i, row) if (json_integer_value(json_object_get(row, "pid")) == pid)
	        snprintf(id, 16, "%lld", (long long)json_integer_value(json_object_get(row, "client")));
	json_decref(json);
	cr_assert(id[0], "pid %d is no client", (int)pid);
}

static int evict(const char *id, const char *option, json_t **json)
{
	char *out = NULL;
	int status = test_ctl_run(&d, (const char *[]){"-f", "json", "-t", "2", "evict", id, option, NULL}, &out);

	if (json)
		*json = out ? json_loads(out, 0, NULL) : NULL;
	free(out);
	return status;
}

static int64_t evictions(void)
{
	json_t *json = test_ctl_json(&d, "stats");
	const json_t *n = json_object_get(json_object_get(json, "counters"), "evictions");
	int64_t count = json_is_integer(n) ? json_integer_value(n) : -1;

	json_decref(json);
	return count;
}

static int64_t number(const json_t *json, const char *key)
{
	return json ? json_integer_value(json_object_get(json, key)) : -1;
}

/* ---- ---- */

Test(evict, one_of_two, .init = start, .fini = end)
{
	struct family one, two;
	char id[16];

	family_init(&one, NULL);
	pid_t first = child_start(hold, &one);

	await(&one);
	family_init(&two, NULL);
	pid_t second = child_start(hold, &two);

	await(&two);
	cr_expect_eq(asks(&one), 'y');
	id_of(first, id);
	cr_expect_eq(evict(id, NULL, NULL), 0);
	cr_expect_eq(asks(&one), 'n');
	cr_expect_eq(asks(&two), 'y');
	cr_expect_eq(evict(id, NULL, NULL), 0, "again");
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_eq(asks(&one), 'n', "the next daemon knows of it");
	cr_expect_eq(asks(&two), 'y');
	cr_expect_eq(evictions(), 1);
	let_go(&one);
	let_go(&two);
	cr_expect_eq(child_join(first), 0);
	cr_expect_eq(child_join(second), 0);
	cr_expect_neq(evict(id, NULL, NULL), 0, "there is no such client");
	/* what is shared stays after those who have allocated it; nobody needs it here */
	cr_expect_gt(test_ctl_stat(&d, "live_bytes"), 0);
	test_daemon_kill(&d);
	cr_assert_eq(
	        test_daemon_start_again(&d, &(struct test_daemon_options){.args = (const char *[]){"--reset", NULL}}),
	        0);
}

/* Once the command has ended all is back. */
Test(evict, kill_it, .init = start)
{
	struct family f;
	char id[16];
	json_t *json = NULL;

	family_init(&f, NULL);
	pid_t pid = child_start(hold, &f);

	await(&f);
	id_of(pid, id);
	cr_expect_eq(evict(id, "--kill", &json), 0);
	cr_expect_eq(test_ctl_stat(&d, "clients"), 0);
	cr_expect_eq(test_ctl_stat(&d, "owned_bytes"), 0);
	cr_expect_eq(number(json, "pid"), pid);
	cr_expect(json_is_true(json_object_get(json, "killed")));
	cr_expect_geq(number(json, "reclaimed_bytes"), 3 * MIB + 2 * 8192);
	cr_expect_eq(child_join(pid), 128 + SIGKILL);
	json_decref(json);
	cr_expect_neq(evict(id, "--kill", NULL), 0, "there is no such client any more");
	system_end(&d);
}

/* Its child shares its scoped memory and is no client: it keeps that, lives on, and the command says what is the matter. */
Test(evict, a_child_keeps_what_it_shares, .init = start)
{
	struct family f;
	char id[16];

	family_init(&f, NULL);
	pid_t pid = child_start(hold_with_child, &f);

	await(&f);
	id_of(pid, id);
	cr_expect_eq(evict(id, NULL, NULL), 0);
	cr_expect_eq(asks(&f), 'x');
	cr_expect_eq(evict(id, "--kill", NULL), 4, "its memory is not free within two seconds");
	cr_expect_eq(child_join(pid), 128 + SIGKILL);
	cr_expect_eq(asks(&f), 'x', "the child lives");
	json_t *json = test_ctl_json(&d, "clients");
	const json_t *row = json_array_get(json_object_get(json, "clients"), 0);

	cr_expect_eq(number(row, "spans"), 1, "the shared block's span is nobody's, the scoped one's stays");
	json_decref(json);
	int64_t last;

	let_go(&f);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	cr_expect_eq(test_ctl_stat(&d, "owned_bytes"), 0);
	system_end(&d);
}

/* ---- who may ---- */

static int evict_as_nobody(void *arg)
{
	const char *id = arg;

	child_check(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
	child_check(test_ctl_run(&d, (const char *[]){"evict", id, NULL}, NULL) == 4);
	child_check(test_ctl_run(&d, (const char *[]){"evict", id, "--kill", NULL}, NULL) == 4);
	child_check(test_ctl_run(&d, (const char *[]){"trim", id, NULL}, NULL) == 4);
	child_check(test_ctl_run(&d, (const char *[]){"trim", "--all", NULL}, NULL) == 4);
	return 0;
}

Test(evict, another_user_may_not, .init = start)
{
	struct family f;
	char id[16];

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: only root can become another user\n");
		system_end(&d);
		return;
	}
	cr_assert_eq(chmod(d.dir, 0755), 0);
	cr_assert_eq(chmod(d.socket, 0666), 0);
	family_init(&f, NULL);
	pid_t pid = child_start(hold, &f);

	await(&f);
	id_of(pid, id);
	cr_expect_eq(child_run(evict_as_nobody, id), 0);
	cr_expect_eq(asks(&f), 'y');
	cr_expect_eq(evictions(), 0);
	cr_expect_eq(evict(id, "--kill", NULL), 0);
	(void)child_join(pid);
	system_end(&d);
}
