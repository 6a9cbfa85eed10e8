/* Attaching and leaving: several heaps in one process, counted handles, what stays and what goes, other addresses. */
#include "tests/client/api.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(attach, .timeout = 60);

static struct test_daemon d, e;

static void start(void)
{
	api_start(&d, NULL);
}

static void end(void)
{
	api_end(&d);
}

static void start_two(void)
{
	cr_assert_eq(test_daemon_start(&e, NULL), 0);
	start();
}

static void end_two(void)
{
	api_end(&e);
	api_end(&d);
}

/* The daemon has taken us in, but there is no address space: the place is given up again, not kept until we end. */
Test(attach, without_address_space, .init = start, .fini = end)
{
	struct rlimit all, little = {.rlim_cur = 512 * MIB};
	int64_t last;

	cr_assert_eq(getrlimit(RLIMIT_AS, &all), 0);
	little.rlim_max = all.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_AS, &little), 0);
	errno = 0;
	cr_expect_null(shma_attach(NULL));
	cr_expect_eq(errno, ENOMEM);
	cr_assert_eq(setrlimit(RLIMIT_AS, &all), 0);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	cr_expect_eq(shma_detach(shma_attach(NULL)), 0);
}

/* ---- two heaps ---- */

static void *free_array(void *array)
{
	for (void **block = array; *block; block++)
		shma_free(*block);
	return NULL;
}

Test(attach, two_heaps_side_by_side, .init = start_two, .fini = end_two)
{
	enum { N = 2000 };
	static void *block[N + 1];
	shma_heap *heap[2] = {shma_default(), api_attach(&e, 0)};
	pthread_t thread;

	cr_assert(heap[0] && heap[1] && heap[0] != heap[1]);
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < N; i++) {
			size_t size = 1 + i * 7 % (i % 100 ? 3000 : 700000);

			block[i] = shma_heap_alloc(heap[i % 2], size, 0, i % 3 ? 0 : SHMA_SCOPED);
			cr_assert_not_null(block[i]);
			cr_expect_eq(shma_from_off(heap[i % 2], shma_to_off(block[i])), block[i]);
		}
		errno = 0;
		cr_expect(shma_root_set(heap[0], "wrong", block[1]) == -1 && errno == EINVAL, "another heap's block");
		for (size_t i = 0; i < N; i += 5) { /* stays in its heap */
			block[i] = shma_realloc(block[i], 5000);
			cr_expect_eq(shma_from_off(heap[i % 2], shma_to_off(block[i])), block[i]);
		}
		if (round)
			cr_assert_eq(pthread_create(&thread, NULL, free_array, block) | pthread_join(thread, NULL), 0);
		else
			free_array(block);
		api_expect_empty(heap[0]);
		api_expect_empty(heap[1]);
	}
	char *a = shma_malloc(100), *b = shma_heap_alloc(heap[1], 100, 0, 0);

	api_fill(a, 100, 1);
	cr_expect_eq(shma_detach(heap[1]), 0);
	cr_expect_eq(shma_usable_size(b), 0, "is unmapped");
	cr_expect(api_filled(a, 100, 1));
	shma_free(a);
	api_expect_empty(heap[0]);
	heap[1] = api_attach(&e, 0);
	cr_assert_not_null(heap[1]);
	cr_expect_eq(api_live(heap[1]), 112, "the shared block is there still");
	cr_expect_eq(shma_detach(heap[0]), 0);
	void *other = shma_heap_alloc(heap[1], 100, 0, 0);

	cr_expect_not_null(other, "detaching from the default heap leaves the other");
	shma_free(other);
	cr_expect_eq(shma_detach(heap[1]), 0);
}

/* The default heap is what the environment says when it is first used; it need not be the first one attached. */
Test(attach, the_default_may_change, .init = start_two, .fini = end_two)
{
	shma_heap *first = shma_default();
	char *a = shma_malloc(64);

	setenv("SHMALLOC_SOCKET", e.socket, 1);
	shma_heap *second = api_attach(&e, 0);

	cr_assert(first && second && first != second);
	char *b = shma_heap_alloc(second, 64, 0, 0);

	cr_assert(a && b);
	cr_expect_eq(shma_from_off(first, shma_to_off(a)), a, "the first heap is still there");
	cr_expect_eq(shma_from_off(second, shma_to_off(b)), b);
	cr_expect_eq(shma_default(), first);
	shma_free(a);
	shma_free(b);
	api_expect_empty(first);
	api_expect_empty(second);
	cr_expect_eq(shma_detach(first), 0);
	cr_expect_eq(shma_default(), second, "now it is what the environment says");
	b = shma_malloc(64);
	cr_expect_eq(shma_from_off(second, shma_to_off(b)), b);
	shma_free(b);
	cr_expect_eq(shma_detach(second), 0);
}

/* ---- counting ---- */

Test(attach, is_counted, .init = start, .fini = end)
{
	shma_heap *heap = shma_attach(NULL);
	struct shma_options options = {.size = sizeof(options), .heap = "default"};

	cr_assert_not_null(heap);
	cr_expect_eq(shma_attach(&options), heap);
	cr_expect_eq(api_attach(&d, 100), heap);
	cr_expect_eq(shma_default(), heap, "not counted");
	uint32_t client = api_stats(heap).client;
	char *block = shma_heap_alloc(heap, 100, 0, SHMA_SCOPED);

	api_fill(block, 100, 5);
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(api_stats(heap).client, client);
	cr_expect(api_filled(block, 100, 5), "one attach is left");
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(test_ctl_stat(&d, "clients"), 0);
	cr_expect_eq(test_ctl_stat(&d, "live_bytes"), 0);
	block = shma_malloc(1);
	cr_expect_not_null(block, "attached again at first use");
	shma_free(block);
	cr_expect_eq(shma_detach(shma_default()), 0);
}

/* ---- options ---- */

Test(attach, options_that_are_wrong, .init = start, .fini = end)
{
	char name[200];
	struct shma_options good = {.size = sizeof(good), .socket = d.socket, .timeout_ms = 1000}, bad;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	bad = good;
	bad.size = 0;
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == EINVAL);
	bad = good;
	bad.timeout_ms = -2;
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == EINVAL);
	bad = good;
	bad.socket = name;
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == ENAMETOOLONG);
	bad = good;
	bad.heap = name;
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == ENAMETOOLONG);
	bad = good;
	bad.heap = "another";
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == ENXIO, "%s", strerror(errno));
	bad.heap = "";
	errno = 0;
	cr_expect(!shma_attach(&bad) && errno == ENXIO, "%s", strerror(errno));
	setenv("SHMALLOC_HEAP", "another", 1);
	errno = 0;
	cr_expect(!shma_default() && errno == ENXIO);
	errno = 0;
	cr_expect(!shma_malloc(10) && errno == ENXIO);
	unsetenv("SHMALLOC_HEAP");
	for (int i = 0; i < 20; i++) /* what fails takes no place in the table of heaps */
		cr_expect_null(shma_attach(&bad));
	shma_heap *heap = shma_attach(&good);

	cr_expect_not_null(heap);
	cr_expect_eq(shma_detach(heap), 0);
}

/* An older caller's options end after the socket; what lies behind is not looked at. */
Test(attach, options_of_an_older_caller, .init = start, .fini = end)
{
	struct shma_options options = {.size = offsetof(struct shma_options, heap),
	        .socket = d.socket,
	        .heap = (const char *)8,
	        .label = (const char *)8,
	        .timeout_ms = -77};
	shma_heap *heap = shma_attach(&options);

	cr_assert_not_null(heap, "%s", strerror(errno));
	cr_expect_eq(heap->timeout_ms, 5000);
	cr_expect_eq(shma_detach(heap), 0);
}

Test(attach, label, .init = start, .fini = end)
{
	struct shma_options options = {.size = sizeof(options), .label = "a label \"with\" quotes"};
	shma_heap *heap = shma_attach(&options);
	json_t *clients = test_ctl_json(&d, "clients");
	char *text = json_dumps(clients, 0);

	cr_assert(heap && text);
	cr_expect_not_null(strstr(text, "a label \\\"with\\\" quotes"), "%s", text);
	free(text);
	json_decref(clients);
	cr_expect_eq(shma_detach(heap), 0);
}

/* ---- what stays and what goes ---- */

static int find_the_pattern(void *arg)
{
	shma_heap *heap = shma_attach(NULL);

	(void)arg;
	child_check(heap);
	char *small = shma_root_get(heap, "small"), *large = shma_root_get(heap, "large");

	child_check(small && api_filled(small, 3000, 1));
	child_check(large && api_filled(large, MIB, 2));
	child_check(api_live(heap) == shma_usable_size(small) + shma_usable_size(large));
	void *noise = shma_malloc(3000);

	child_check(noise && noise != small);
	memset(noise, 0xee, 3000);
	child_check(api_filled(small, 3000, 1));
	shma_free(noise);
	return 0;
}

Test(attach, detach_frees_scoped_blocks_and_keeps_shared_ones, .init = start, .fini = end)
{
	shma_heap *heap = shma_attach(NULL);
	char *small = shma_malloc(3000), *large = shma_malloc(MIB);

	cr_assert(small && large);
	for (int i = 0; i < 1000; i++) {
		cr_assert_not_null(shma_heap_alloc(heap, 16 + (size_t)i * 3, 0, SHMA_SCOPED));
		if (i % 100 == 0)
			cr_assert_not_null(shma_heap_alloc(heap, 300000, 0, SHMA_SCOPED | (i % 200 ? SHMA_LAZY : 0)));
		shma_free(shma_malloc(16 + (size_t)i * 5)); /* what is cached goes back */
	}
	api_fill(small, 3000, 1);
	api_fill(large, MIB, 2);
	cr_assert_eq(shma_root_set(heap, "small", small), 0);
	cr_assert_eq(shma_root_set(heap, "large", large), 0);
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(test_ctl_stat(&d, "owned_bytes"), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_expect_eq(child_run(find_the_pattern, NULL), 0);
	heap = shma_attach(NULL);
	cr_assert_eq(shma_root_get(heap, "small"), small, "at the same address");
	shma_free(small);
	shma_free(large);
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
}

/* ---- nothing leaks ---- */

static int entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* Lines of /proc/self/maps, and the KiB of address space in them. */
static int mappings(unsigned long *kib)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[500];
	int n = 0;

	cr_assert_not_null(maps);
	for (*kib = 0; fgets(line, sizeof(line), maps); n++) {
		char *end;
		unsigned long from = strtoul(line, &end, 16), to = strtoul(end + 1, NULL, 16);

		*kib += (to - from) / 1024;
	}
	(void)fclose(maps);
	return n;
}

static void *allocate_a_little(void *heap)
{
	void *block = shma_heap_alloc(heap, 100, 0, 0), *large = shma_heap_alloc(heap, 300000, 0, 0);

	child_check(block && large);
	shma_free(block);
	shma_free(large);
	return NULL;
}

static void attach_use_detach(bool thread_too)
{
	shma_heap *heap = shma_attach(NULL);
	pthread_t thread;

	cr_assert_not_null(heap, "%s", strerror(errno));
	allocate_a_little(heap);
	if (thread_too) {
		cr_assert_eq(pthread_create(&thread, NULL, allocate_a_little, heap), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
	}
	cr_assert_eq(shma_detach(heap), 0);
}

Test(attach, many_times, .init = start, .fini = end)
{
	unsigned long kib, kib_before;

	for (int i = 0; i < 3; i++)
		attach_use_detach(true);
	int maps = mappings(&kib_before), fds = entries("/proc/self/fd"), daemon_fds = test_daemon_fds(&d);

	for (int i = 0; i < 200; i++)
		attach_use_detach(i % 2);
	int maps_after = mappings(&kib);

	cr_expect_leq(maps_after, maps + 2, "%d mappings, then %d", maps, maps_after);
	cr_expect_leq(kib, kib_before + 1024, "%lu KiB mapped, then %lu", kib_before, kib);
	cr_expect_eq(entries("/proc/self/fd"), fds);
	cr_expect(api_settles(test_daemon_fds(&d) <= daemon_fds), "%d", test_daemon_fds(&d));
	cr_expect_eq(test_ctl_stat(&d, "clients"), 0);
	shma_heap *heap = shma_attach(NULL);

	cr_expect_leq(api_sums(heap).threads, 1, "thread records are given back");
	cr_expect_lt(api_stats(heap).client, 8, "client ids are used again");
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
}

/* ---- threads that have used a heap which is gone ---- */

static pthread_barrier_t turn;

static void *outlive(void *unused)
{
	for (int i = 0; i < 5; i++) {
		allocate_a_little(shma_default());
		(void)pthread_barrier_wait(&turn); /* the other side detaches */
		(void)pthread_barrier_wait(&turn);
	}
	return unused;
}

static void threads_outlive_the_heap(void)
{
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, outlive, NULL), 0);
	for (int i = 0; i < 5; i++) {
		(void)pthread_barrier_wait(&turn);
		cr_expect_eq(shma_detach(shma_default()), 0);
		if (i % 2)
			allocate_a_little(shma_default());
		if (i == 4 && shma_default())
			cr_expect_eq(shma_detach(shma_default()), 0); /* the threads end with no heap there */
		(void)pthread_barrier_wait(&turn);
	}
	for (int i = 0; i < 2; i++)
		cr_expect_eq(pthread_join(thread[i], NULL), 0);
}

Test(attach, a_thread_outlives_the_heap, .init = start, .fini = end)
{
	unsigned long kib, kib_before;

	cr_assert_eq(pthread_barrier_init(&turn, NULL, 3), 0);
	for (int i = 0; i < 3; i++)
		threads_outlive_the_heap();
	(void)mappings(&kib_before);
	for (int i = 0; i < 20; i++)
		threads_outlive_the_heap();
	(void)mappings(&kib);
	cr_expect_leq(kib, kib_before + 256, "%lu KiB mapped, then %lu", kib_before, kib);
	allocate_a_little(shma_default());
	cr_expect_eq(shma_detach(shma_default()), 0);
}

/* ---- another address ---- */

static int leave_blocks(void *arg)
{
	shma_heap *heap = shma_attach(NULL);
	shma_off *off = arg;
	char *block = shma_malloc(1000);

	child_check(heap && block && api_stats(heap).at_base == 1);
	api_fill(block, 1000, 1);
	child_check(shma_root_set(heap, "here", block) == 0);
	off[0] = shma_to_off(block);
	off[1] = api_stats(heap).base;
	return 0;
}

static int see_replies(void *arg)
{
	shma_heap *heap = shma_attach(NULL);
	char *block = shma_from_off(heap, *(shma_off *)arg);

	child_check(block && api_filled(block, MIB, 2) && api_stats(heap).at_base == 1);
	shma_free(block);
	return 0;
}

static void expect_aligned(shma_heap *heap)
{
	for (size_t align = 16; align <= 64 * MIB; align *= 2) {
		void *block = shma_heap_alloc(heap, 100, align, 0);

		cr_assert_not_null(block, "%zu", align);
		cr_expect_eq((uintptr_t)block % align, 0, "%zu", align);
		shma_free(block);
	}
}

Test(attach, at_another_address, .init = start, .fini = end)
{
	shma_off *off = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(off, MAP_FAILED);
	cr_assert_eq(child_run(leave_blocks, off), 0);
	void *taken = mmap((void *)(uintptr_t)(off[1] + 64 * MIB), 4096, PROT_NONE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	cr_assert_eq((uintptr_t)taken, off[1] + 64 * MIB);
	shma_heap *heap = shma_attach(NULL);

	cr_assert_not_null(heap);
	cr_expect_eq(api_stats(heap).at_base, 0);
	cr_expect_neq(api_stats(heap).base, off[1]);
	char *block = shma_from_off(heap, off[0]);

	cr_expect_eq(shma_root_get(heap, "here"), block);
	cr_expect(api_filled(block, 1000, 1));
	shma_free(block);
	block = shma_malloc(MIB);
	api_fill(block, MIB, 2);
	off[0] = shma_to_off(block);
	(void)munmap(taken, 4096); /* the child finds the place free */
	expect_aligned(heap);
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(child_run(see_replies, off), 0);
	heap = shma_attach(NULL);
	cr_expect_eq(api_stats(heap).at_base, 1);
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
}

/* The same heap by other names of its socket: a client each time, and another place of the memory each time. */
Test(attach, as_many_heaps_as_there_may_be, .init = start, .fini = end)
{
	enum { ALL = SHMI_MAX_HEAPS };
	char path[ALL][108];
	struct shma_options options = {.size = sizeof(options)};
	shma_heap *heap[ALL];

	heap[0] = shma_default();
	for (int i = 1; i < ALL; i++) {
		(void)snprintf(path[i], sizeof(path[i]), "%.80s/sock%d", d.dir, i);
		cr_assert_eq(symlink(d.socket, path[i]), 0);
		options.socket = path[i];
		heap[i] = shma_attach(&options);
		cr_assert_not_null(heap[i], "%d: %s", i, strerror(errno));
		cr_expect_eq(api_stats(heap[i]).at_base, 0);
	}
	(void)snprintf(path[0], sizeof(path[0]), "%.80s/one-more", d.dir);
	cr_assert_eq(symlink(d.socket, path[0]), 0);
	options.socket = path[0];
	errno = 0;
	cr_expect(!shma_attach(&options) && errno == EMFILE);
	for (int i = 0; i < ALL; i++) {
		char *block = shma_heap_alloc(heap[i], 100, 0, 0);

		api_fill(block, 100, 1);
		cr_expect(api_filled(shma_from_off(heap[ALL - 1 - i], shma_to_off(block)), 100, 1));
		shma_free(shma_from_off(heap[ALL - 1 - i], shma_to_off(block)));
	}
	for (int i = ALL; i-- > 0;) {
		cr_expect_eq(shma_trim(heap[i]), 0);
		if (i)
			cr_expect_eq(shma_detach(heap[i]), 0);
	}
	api_expect_empty(heap[0]);
	heap[1] = shma_attach(&options);
	cr_expect_not_null(heap[1], "there is room again");
	cr_expect_eq(shma_detach(heap[1]), 0);
	cr_expect_eq(shma_detach(heap[0]), 0);
}

/* ---- a daemon that is on its way ---- */

static void *attach_patiently(void *unused)
{
	(void)unused;
	return api_attach(&d, 8000);
}

Test(attach, waits_for_a_daemon_that_comes_up)
{
	pthread_t thread;
	void *heap = NULL;

	cr_assert_eq(test_daemon_init(&d, NULL), 0);
	cr_assert_eq(pthread_create(&thread, NULL, attach_patiently, NULL), 0);
	(void)poll(NULL, 0, 300); /* it tries in vain meanwhile */
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_assert_eq(pthread_join(thread, &heap), 0);
	cr_assert_not_null(heap);
	allocate_a_little(heap);
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}
