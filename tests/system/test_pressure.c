/* Memory is short, and processes that do not run hold some that they do not use: others get it, and those go on afterwards. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "client/shmalloc.h"
#include "daemon/policy.h"

#define MIB (1024 * 1024ull)
#define SIZE 1000u
#define BLOCKS (24 * MIB / 1024)

/* Between the test and its two processes. */
struct scene {
	shma_off block[BLOCKS];
	int to_sleeper[2], from_sleeper[2], to_user[2], from_user[2];
};

static struct scene *scene;

static void say(int fd)
{
	child_check(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
	char byte;

	child_check(read(fd, &byte, 1) == 1);
}

static void fill(unsigned char *block, size_t i)
{
	memset(block, (int)(i & 0xff), SIZE);
}

static void must_be(const unsigned char *block, size_t i)
{
	child_check(block[0] == (i & 0xff) && block[SIZE - 1] == (i & 0xff));
}

/* Allocates, and is stopped; others free its blocks. When it goes on, all is as it should be. */
static int sleeper(void *arg)
{
	unsigned char *block;

	(void)arg;
	for (size_t i = 0; i < BLOCKS; i++) {
		child_check((block = shma_malloc(SIZE)) != NULL);
		fill(block, i);
		scene->block[i] = shma_to_off(block);
	}
	say(scene->from_sleeper[1]);
	hear(scene->to_sleeper[0]); /* stopped meanwhile */
	for (size_t round = 0; round < 3; round++) {
		for (size_t i = 0; i < BLOCKS / 4; i++) {
			child_check((block = shma_malloc(SIZE)) != NULL);
			fill(block, i);
			scene->block[i] = shma_to_off(block);
		}
		for (size_t i = 0; i < BLOCKS / 4; i++) {
			block = shma_from_off(shma_default(), scene->block[i]);
			must_be(block, i);
			shma_free(block);
		}
	}
	return 0;
}

/* Frees what the sleeper had, and when it is told takes as much for itself. */
static int user(void *arg)
{
	static unsigned char *mine[BLOCKS];
	size_t most = *(const size_t *)arg;

	for (size_t i = 0; i < BLOCKS; i++) {
		unsigned char *block = shma_from_off(shma_default(), scene->block[i]);

		must_be(block, i);
		shma_free(block);
	}
	child_check(shma_trim(shma_default()) == 0);
	say(scene->from_user[1]);
	hear(scene->to_user[0]);
	for (size_t i = 0; i < most; i++) {
		child_check((mine[i] = shma_malloc(SIZE * 3)) != NULL);
		fill(mine[i], i);
	}
	for (size_t i = 0; i < most; i++) {
		must_be(mine[i], i);
		shma_free(mine[i]);
	}
	return 0;
}

static void new_scene(void)
{
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(scene, MAP_FAILED);
	cr_assert_eq(pipe(scene->to_sleeper), 0);
	cr_assert_eq(pipe(scene->from_sleeper), 0);
	cr_assert_eq(pipe(scene->to_user), 0);
	cr_assert_eq(pipe(scene->from_user), 0);
}

/* A process that is stopped and holds 24 MiB in spans that are wholly free; and another one. */
static void put_to_sleep(pid_t *sleeping, pid_t *using, size_t *most)
{
	int status;

	new_scene();
	*sleeping = child_start(sleeper, NULL);
	hear(scene->from_sleeper[0]);
	cr_assert_eq(kill(*sleeping, SIGSTOP), 0);
	cr_assert_eq(waitpid(*sleeping, &status, WUNTRACED), *sleeping);
	cr_assert(WIFSTOPPED(status));
	*using = child_start(user, most);
	hear(scene->from_user[0]);
	usleep((POLICY_SLEEP_MS + 200) * 1000); /* nothing but time makes it a sleeper */
}

static void wake_up(pid_t sleeping)
{
	cr_assert_eq(kill(sleeping, SIGCONT), 0);
	say(scene->to_sleeper[1]);
	cr_expect_eq(child_join(sleeping), 0);
}

/* One of the counters of `stats`. */
static int64_t counter(const struct test_daemon *d, const char *key)
{
	json_t *stats = test_ctl_json(d, "stats"), *value = json_object_get(json_object_get(stats, "counters"), key);
	int64_t n = json_is_integer(value) ? json_integer_value(value) : -1;

	json_decref(stats);
	return n;
}

Test(pressure, a_full_tmpfs)
{
	static const char *const args[] = {"--size=1GiB", NULL};
	size_t most = 22 * MIB / (3 * 1024);
	pid_t sleeping, using;
	struct test_daemon d;

	if (!system_private_shm("size=40m")) /* less than both hold in the end */
		return;
	system_start(&d, args);
	put_to_sleep(&sleeping, &using, &most);
	say(scene->to_user[1]);
	cr_expect_eq(child_join(using), 0, "it did not get what the other one does not use");
	cr_expect_gt(counter(&d, "seizures_bytes"), (int64_t)(BLOCKS * 1024 + most * 3 * 1024 - 40 * MIB), "%lld bytes",
	        (long long)counter(&d, "seizures_bytes"));
	cr_expect_eq(counter(&d, "no_memory"), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	wake_up(sleeping);
	system_expect_empty(&d);
	system_end(&d);
}

/* A service manager says that memory is short. */
Test(pressure, a_word_from_the_system)
{
	char dir[] = "/tmp/shmalloc-pressure-XXXXXX", fifo[64];
	size_t most = 1000;
	pid_t sleeping, using;
	struct test_daemon d;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/watch", dir);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	setenv("TEST_PRESSURE_WATCH", fifo, 1);
	system_start(&d, NULL);
	put_to_sleep(&sleeping, &using, &most);
	cr_expect_eq(counter(&d, "seizures_bytes"), 0);
	int fd = open(fifo, O_WRONLY | O_NONBLOCK); /* the daemon reads there */

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "short", 5), 5);
	for (long long limit = test_now_ms() + 20000; counter(&d, "seizures_bytes") < (int64_t)(16 * MIB);)
		cr_assert_lt(test_now_ms(), limit, "%lld bytes", (long long)counter(&d, "seizures_bytes"));
	cr_expect_eq(counter(&d, "pressures"), 1);
	cr_expect_geq(counter(&d, "trims"), 2);
	cr_expect_eq(test_ctl_check(&d), 0);
	say(scene->to_user[1]);
	cr_expect_eq(child_join(using), 0);
	wake_up(sleeping);
	system_expect_empty(&d);
	system_end(&d);
	close(fd);
	unlink(fifo);
	rmdir(dir);
}
