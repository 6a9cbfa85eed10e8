/* The boot counter: which starts count, that a heap which three of them died of is set aside, and that this can be cut short too.
 * A start that never serves is here a store_take after which nothing says boots_ready. */
#include "daemon/boots.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/aside.h"
#include "daemon/guard.h"
#include "daemon/log.h"
#include "daemon/store.h"
#include "tests/lib/instance.h"

struct fixture {
	struct config_heap config;
	char instance[64];
	struct objects objects;
	struct heap heap;
	bool adopted;
	atomic_bool serves;
	int log;
};

static struct fixture *begin(void)
{
	struct fixture *f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(f, MAP_FAILED);
	f->log = memfd_create("log", MFD_CLOEXEC);
	log_set_fd(f->log);
	guard_install();
	instance_name(f->instance, sizeof(f->instance), "boots");
	snprintf(f->config.name, sizeof(f->config.name), "h");
	f->config.size = 64u << 20;
	objects_init(&f->objects, f->instance, "h");
	return f;
}

static const char *said(const struct fixture *f)
{
	static char text[16384];
	ssize_t n = pread(f->log, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void end(struct fixture *f)
{
	objects_close(&f->objects);
	objects_unlink(&f->objects);
	for (unsigned n = 1; n <= ASIDE_MOST; n++)
		for (int i = 0; i < HEAP_OBJECTS; i++)
			unlink(aside_path(&f->objects, n, (enum heap_object)i).text);
	close(f->log);
}

/* How a daemon's life goes on after it has opened the heap. */
enum life { NEVER_READY, READY_KILLED, READY_SEGV, READY_ABORTED, READY_BUS, GOOD_SEGV, SEGV, STARVED, BUSY };

static void die(struct fixture *f, enum life life)
{
	if (life != NEVER_READY && life != SEGV)
		boots_ready();
	if (life == GOOD_SEGV)
		boots_good();
	if (life == READY_ABORTED)
		abort();
	if (life == READY_BUS) {
		int fd = memfd_create("cut", MFD_CLOEXEC);

		*(volatile char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) = 1;
	}
	atomic_store(&f->serves, true);
	while (life == STARVED) /* until the parent, as a watchdog, ends it */
		pause();
	for (volatile unsigned i = 0; life == BUSY;)
		i++;
	raise(life == NEVER_READY || life == READY_KILLED ? SIGKILL : SIGSEGV);
}

/* As a service manager does it, once the process is ready and, if it is to be `busy`, has computed long enough to see that. */
static void watchdog(struct fixture *f, pid_t child, bool busy)
{
	struct timespec t = {0}, wait = {.tv_nsec = 10000000};
	clockid_t clock;

	cr_assert_eq(clock_getcpuclockid(child, &clock), 0);
	while ((busy && !clock_gettime(clock, &t) && t.tv_sec < 2) || !atomic_load(&f->serves))
		nanosleep(&wait, NULL);
	kill(child, SIGABRT);
}

/* A daemon that opens the heap, and dies. The signal that ended it, 0 if the heap could not be opened. */
static int live(struct fixture *f, enum life life)
{
	int status;

	atomic_store(&f->serves, false);
	pid_t child = fork();

	if (!child) {
		prctl(PR_SET_DUMPABLE, 0);
		signal(SIGSEGV, SIG_DFL); /* not the test framework's */
		signal(SIGABRT, SIG_DFL);
		guard_install();
		if (!store_take(&f->objects, &f->heap, f->instance, &f->config, &f->adopted))
			die(f, life);
		_exit(1);
	}
	if (life == STARVED || life == BUSY)
		watchdog(f, child, life == BUSY);
	cr_assert_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static uint32_t count(struct fixture *f)
{
	shmi_a32 boots;
	int fd = open(objects_path(&f->objects, "state").text, O_RDONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pread(fd, &boots, sizeof(boots), offsetof(struct shmi_state, boots)), (ssize_t)sizeof(boots));
	close(fd);
	return shmi_load(&boots);
}

static uint64_t heap_id(const char *meta)
{
	struct shmi_super super = {0};
	int fd = open(meta, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		cr_assert_eq(pread(fd, &super, sizeof(super), 0), (ssize_t)sizeof(super));
	if (fd >= 0)
		close(fd);
	return super.heap_id;
}

static uint64_t current_id(struct fixture *f)
{
	return heap_id(objects_path(&f->objects, "meta").text);
}

static bool is_aside(struct fixture *f, unsigned number)
{
	struct stat st;

	for (int i = 0; i < HEAP_OBJECTS; i++)
		if (lstat(aside_path(&f->objects, number, (enum heap_object)i).text, &st))
			return false;
	return true;
}

Test(boots, three_starts_that_never_serve)
{
	struct fixture *f = begin();

	cr_expect_eq(live(f, NEVER_READY), SIGKILL);
	uint64_t id = current_id(f);

	for (uint32_t i = 2; i <= BOOTS_MOST; i++) {
		cr_expect_eq(count(f), i - 1);
		cr_expect_eq(live(f, NEVER_READY), SIGKILL);
		cr_expect_eq(current_id(f), id, "start %u", i);
	}
	cr_expect_not(is_aside(f, 1));
	cr_expect_eq(live(f, READY_KILLED), SIGKILL);
	cr_expect_not(f->adopted);
	cr_expect(is_aside(f, 1));
	cr_expect_eq(heap_id(aside_path(&f->objects, 1, HEAP_META).text), id, "nothing of it is lost");
	cr_expect_neq(current_id(f), id, "a new heap is there");
	cr_expect_not_null(strstr(said(f), "SET ASIDE heap 'h'"), "%s", said(f));
	cr_expect_not_null(strstr(said(f), aside_path(&f->objects, 1, HEAP_META).text), "%s", said(f));
	cr_expect_eq(count(f), 0);
	end(f);
}

Test(boots, what_counts_after_ready)
{
	static const struct {
		enum life life;
		int signal;
		uint32_t counts;
	} lives[] = {{READY_KILLED, SIGKILL, 0}, {GOOD_SEGV, SIGSEGV, 0}, {READY_SEGV, SIGSEGV, 1},
	        {READY_KILLED, SIGKILL, 0}, {READY_ABORTED, SIGABRT, 1}, {READY_BUS, SIGBUS, 2},
	        {GOOD_SEGV, SIGSEGV, 0}, {SEGV, SIGSEGV, 1}, {STARVED, SIGABRT, 0}, {BUSY, SIGABRT, 1}};
	struct fixture *f = begin();

	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		cr_expect_eq(live(f, lives[i].life), lives[i].signal, "life %zu", i);
		cr_expect_eq(count(f), lives[i].counts, "life %zu: %u", i, count(f));
	}
	end(f);
}

/* A heap whose clients' first requests crash the daemon. */
Test(boots, crashes_right_after_ready)
{
	struct fixture *f = begin();

	for (uint32_t i = 0; i < BOOTS_MOST; i++)
		cr_expect_eq(live(f, READY_SEGV), SIGSEGV);
	cr_expect_eq(live(f, READY_KILLED), SIGKILL);
	cr_expect(is_aside(f, 1));
	end(f);
}

Test(boots, kills_of_a_serving_daemon_never_count)
{
	struct fixture *f = begin();

	cr_expect_eq(live(f, READY_KILLED), SIGKILL);
	uint64_t id = current_id(f);

	for (int i = 0; i < 20; i++)
		cr_expect_eq(live(f, READY_KILLED), SIGKILL);
	cr_expect_eq(current_id(f), id);
	end(f);
}

Test(boots, a_start_refused_in_words_does_not_count)
{
	struct fixture *f = begin();

	cr_expect_eq(live(f, NEVER_READY), SIGKILL);
	uint64_t id = current_id(f);

	cr_assert_eq(truncate(objects_path(&f->objects, "data").text, 8192), 0);
	for (int i = 0; i < 6; i++)
		cr_expect_eq(live(f, READY_KILLED), 0);
	cr_expect_eq(count(f), 1);
	cr_expect_eq(current_id(f), id);
	cr_expect_null(strstr(said(f), "SET ASIDE"), "%s", said(f));
	end(f);
}

Test(boots, a_clean_stop_begins_anew)
{
	struct fixture *f = begin();

	cr_expect_eq(live(f, NEVER_READY), SIGKILL);
	cr_expect_eq(live(f, NEVER_READY), SIGKILL);
	cr_assert_eq(store_take(&f->objects, &f->heap, f->instance, &f->config, &f->adopted), 0);
	cr_expect(f->adopted);
	store_end(&f->objects, &f->heap, true);
	boots_good();
	objects_close(&f->objects);
	cr_expect_eq(count(f), 0);
	end(f);
}

/* Killed between the renames: whichever of them had been done. */
Test(boots, setting_aside_is_finished_by_the_next_start)
{
	for (int done = 1; done < HEAP_OBJECTS; done++) {
		struct fixture *f = begin();

		cr_expect_eq(live(f, READY_KILLED), SIGKILL);
		uint64_t id = current_id(f);

		for (int i = 0; i < done; i++)
			cr_assert_eq(rename(objects_path(&f->objects, objects_suffix[i]).text,
			                     aside_path(&f->objects, 3, (enum heap_object)i).text),
			        0);
		cr_expect_eq(live(f, READY_KILLED), SIGKILL);
		cr_expect_not(f->adopted);
		cr_expect(is_aside(f, 3), "%d were renamed", done);
		cr_expect_eq(heap_id(aside_path(&f->objects, 3, HEAP_META).text), id);
		cr_expect_neq(current_id(f), id);
		end(f);
	}
}

Test(boots, set_aside_heaps_are_bounded)
{
	struct fixture *f = begin();

	for (unsigned n = 1; n <= ASIDE_MOST; n++) /* one part is enough for a number not to be used */
		close(open(aside_path(&f->objects, n, n % 2 ? HEAP_META : HEAP_DATA).text, O_CREAT | O_CLOEXEC, 0600));
	for (uint32_t i = 0; i < BOOTS_MOST; i++)
		cr_expect_eq(live(f, NEVER_READY), SIGKILL);
	uint64_t id = current_id(f);

	cr_expect_eq(live(f, READY_KILLED), 0, "refused");
	cr_expect_not_null(strstr(said(f), "8 heaps are set aside already"), "%s", said(f));
	cr_expect_eq(current_id(f), id, "it is still there");
	unlink(aside_path(&f->objects, 5, HEAP_META).text);
	cr_expect_eq(live(f, READY_KILLED), SIGKILL);
	cr_expect(is_aside(f, 5));
	end(f);
}

/* ---- several heaps ---- */

struct other {
	struct config_heap config;
	struct objects objects;
	struct heap heap;
};

static uint32_t count_of(struct objects *o)
{
	shmi_a32 boots;
	int fd = open(objects_path(o, "state").text, O_RDONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pread(fd, &boots, sizeof(boots), offsetof(struct shmi_state, boots)), (ssize_t)sizeof(boots));
	close(fd);
	return shmi_load(&boots);
}

/* Opens heap h, then heap i, and dies: on the way to i, or while it works on i, on h, or on none that is known. */
enum death { OPENING_I, WORKING_ON_I, WORKING_ON_H, WORKING_ON_NONE, SERVING };

static void live_with_two(struct fixture *f, struct other *i, enum death death)
{
	bool adopted;
	pid_t child = fork();
	int status;

	if (!child) {
		prctl(PR_SET_DUMPABLE, 0);
		signal(SIGSEGV, SIG_DFL);
		if (store_take(&f->objects, &f->heap, f->instance, &f->config, &adopted))
			_exit(1);
		boots_opened(f->heap.state);
		if (store_take(&i->objects, &i->heap, f->instance, &i->config, &adopted))
			_exit(1);
		if (death == OPENING_I)
			raise(SIGKILL);
		boots_opened(i->heap.state);
		boots_ready();
		boots_working_on(death == WORKING_ON_I ? i->heap.state : death == WORKING_ON_H ? f->heap.state : NULL);
		raise(death == SERVING ? SIGKILL : SIGSEGV);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status), "it could not be opened: %s", said(f));
}

Test(boots, each_heap_has_its_own_count)
{
	static const struct {
		enum death death;
		uint32_t h, i;
	} lives[] = {{SERVING, 0, 0}, {OPENING_I, 0, 1}, {OPENING_I, 0, 2}, {SERVING, 0, 0}, {WORKING_ON_I, 0, 1},
	        {WORKING_ON_H, 1, 0}, {WORKING_ON_NONE, 2, 1}, {SERVING, 0, 0}};
	struct fixture *f = begin();
	static struct other i;

	i.config = f->config;
	snprintf(i.config.name, sizeof(i.config.name), "i");
	objects_init(&i.objects, f->instance, "i");
	for (size_t n = 0; n < sizeof(lives) / sizeof(lives[0]); n++) {
		live_with_two(f, &i, lives[n].death);
		cr_expect_eq(count_of(&f->objects), lives[n].h, "life %zu: %u", n, count_of(&f->objects));
		cr_expect_eq(count_of(&i.objects), lives[n].i, "life %zu: %u", n, count_of(&i.objects));
	}
	objects_unlink(&i.objects);
	end(f);
}

/* One that is refused has no count, and the other goes on having one. */
Test(boots, a_refused_heap_beside_another)
{
	struct fixture *f = begin();
	static struct other i;
	bool adopted;

	i.config = f->config;
	snprintf(i.config.name, sizeof(i.config.name), "i");
	cr_assert_eq(store_take(&f->objects, &f->heap, f->instance, &f->config, &adopted), 0);
	cr_assert_eq(store_take(&i.objects, &i.heap, f->instance, &i.config, &adopted), 0);
	boots_refused(f->heap.state);
	cr_expect_eq(count(f), 0);
	cr_expect_eq(count_of(&i.objects), 1);
	boots_ready();
	cr_expect_eq(count_of(&i.objects), 0);
	boots_crashed();
	cr_expect_eq(count_of(&i.objects), 1);
	cr_expect_eq(count(f), 0);
	boots_good();
	objects_close(&i.objects);
	objects_unlink(&i.objects);
	end(f);
}
