/* Clients in containers: in namespaces of their own, made by root or by an ordinary user, with a root that has the directory of the
 * socket and nothing else, read-only. What holds outside holds there. And daemons in namespaces: whom they see, and whom they refuse.
 * Needs root; what needs namespaces of an ordinary user says so where these are not to be had. */
#include "tests/system/system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/system/family.h"

#define USER 64111 /* outside; root inside */
#define BLOCKS 600

static struct test_daemon d;
static char outside[] = "outside", inside[] = "inside";
static const char *const for_all[] = {"--socket-mode", "0666", NULL};
static const char *const for_root[] = {"--socket-mode", "0666", "--allowed-users", "root", NULL};

/* ---- a container ---- */

struct box {
	bool rootless; /* an ordinary user has made it */
	int (*program)(struct box *box); /* its first process */
	struct family family;
};

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	child_check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	(void)close(fd);
}

static void become_user(void)
{
	child_check(setgroups(0, NULL) == 0 && setgid(USER) == 0 && setuid(USER) == 0);
	child_check(prctl(PR_SET_DUMPABLE, 1) == 0); /* else /proc/self is root's, and with it the maps */
	child_check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

static void map_root(unsigned to)
{
	char line[64];

	snprintf(line, sizeof(line), "0 %u 1", to);
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", line);
	write_file("/proc/self/gid_map", line);
}

static void make_namespaces(bool rootless)
{
	if (rootless)
		become_user();
	child_check(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS |
	                    (rootless ? CLONE_NEWUSER : 0)) == 0);
	if (rootless)
		map_root(USER);
}

/* ---- what is new ---- */

static const char *const kinds[] = {"mnt", "pid", "ipc", "net", "uts", "user"};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), USER_KIND = KINDS - 1, LINK_SIZE = 64 };

/* "pid:[4026531836]" for each kind of namespace that this process is in. */
static void read_namespaces(char links[KINDS][LINK_SIZE])
{
	for (size_t i = 0; i < KINDS; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
		memset(links[i], 0, LINK_SIZE);
		child_check(readlink(path, links[i], LINK_SIZE - 1) > 0);
	}
}

static void expect_new_namespaces(char before[KINDS][LINK_SIZE], bool rootless)
{
	char now[KINDS][LINK_SIZE];

	read_namespaces(now);
	for (size_t i = 0; i < KINDS; i++)
		child_check((strcmp(now[i], before[i]) != 0) == (rootless || i != USER_KIND));
}

/* The objects have names as yet, but none is open: what it maps later it got by the socket. */
static void expect_nothing_open(void)
{
	DIR *open_ones = opendir("/proc/self/fd");

	child_check(open_ones);
	for (struct dirent *entry; (entry = readdir(open_ones)) != NULL;) {
		char to[PATH_MAX] = "";

		if (readlinkat(dirfd(open_ones), entry->d_name, to, sizeof(to) - 1) > 0)
			child_check(strncmp(to, "/dev/shm/shmalloc.", 18) != 0);
	}
	closedir(open_ones);
	child_check(test_daemon_objects(&d) > 0);
}

/* The directory, not the socket itself: the next daemon makes another socket there. */
static void make_root(void)
{
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};

	child_check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	child_check(mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") == 0);
	child_check(chdir("/dev/shm") == 0 && mkdir("run", 0755) == 0);
	child_check(mount(d.dir, "run", NULL, MS_BIND, NULL) == 0);
	child_check(mount_setattr(AT_FDCWD, "run", 0, &read_only, sizeof(read_only)) == 0);
	child_check(syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0);
	child_check(setenv("SHMALLOC_SOCKET", "/run/sock", 1) == 0);
}

static void expect_nothing_else(void)
{
	char object[160];
	DIR *root = opendir("/");

	child_check(root);
	for (struct dirent *entry; (entry = readdir(root)) != NULL;)
		child_check(entry->d_name[0] == '.' || strcmp(entry->d_name, "run") == 0);
	closedir(root);
	snprintf(object, sizeof(object), "/shmalloc.%s.%s.meta", d.instance, d.heap);
	child_check(shm_open(object, O_RDONLY, 0) < 0 && errno == ENOENT);
	child_check(getpid() == 1 && geteuid() == 0);
	child_check(open("/run/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EROFS);
}

/* The process that makes the container waits for its first one, and ends as that does. */
static int contain(void *arg)
{
	struct box *box = arg;
	int status = 0;
	char before[KINDS][LINK_SIZE];

	read_namespaces(before);
	make_namespaces(box->rootless);
	pid_t first = fork();

	child_check(first >= 0);
	if (first == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		expect_new_namespaces(before, box->rootless);
		expect_nothing_open();
		make_root();
		expect_nothing_else();
		_exit(box->program(box));
	}
	family_forget(&box->family);
	child_check(waitpid(first, &status, 0) == first);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static pid_t start_box(struct box *box)
{
	family_init(&box->family, NULL);
	return child_start(contain, box);
}

/* Whether a process can do that to itself. */
static int try_user(void *arg)
{
	(void)arg;
	become_user();
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) ? 1 : 0;
}

static bool start(const char *const *args)
{
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: making containers needs root\n");
		return false;
	}
	system_start(&d, args);
	cr_assert_eq(chmod(d.dir, 0755), 0);
	return true;
}

static bool users_can(void)
{
	fflush(NULL);
	if (child_run(try_user, NULL) == 0)
		return true;
	fprintf(stderr, "skipped: an ordinary user may make no user namespace here\n");
	return false;
}

/* Runs `test` with containers of both kinds. */
static void with_both(void (*test)(struct box *box), int (*program)(struct box *box))
{
	for (int rootless = 0; rootless < 2; rootless++) {
		struct box box = {.rootless = rootless, .program = program};

		if (!start(for_all))
			return;
		if (!rootless || users_can())
			test(&box);
		system_expect_empty(&d);
		system_end(&d);
	}
}

/* A number of the client that came `nth`, -1 if there is none. */
static int64_t of_client(size_t nth, const char *field)
{
	json_t *clients = test_ctl_json(&d, "clients");
	json_t *rows = json_is_object(clients) ? json_object_get(clients, "clients") : clients;
	json_t *number = json_object_get(json_array_get(rows, nth), field);
	int64_t value = number ? json_integer_value(number) : -1;

	json_decref(clients);
	return value;
}

static void settle_clients(int64_t n)
{
	int64_t last;

	cr_expect_eq(test_ctl_settle(&d, "clients", n, n, &last), 0, "%lld clients", (long long)last);
}

/* ---- blocks ---- */

static unsigned char *block[BLOCKS];

static size_t size_of(size_t i)
{
	return i % 200 == 7 ? 300000 + i : 16 + i * 41 % 4000;
}

static void fill(unsigned flags)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		block[i] = shma_heap_alloc(shma_default(), size_of(i), 0, flags);
		child_check(block[i]);
		memset(block[i], (int)(i & 0xff), size_of(i));
	}
}

static void expect_filled(void)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < size_of(i); at += 1 + at / 8)
			child_check(block[i][at] == (i & 0xff));
}

/* Finds the text under that name, and frees it, whoever made it. */
static int free_root(void *arg)
{
	system_find_root(arg);
	char *text = shma_root_get(shma_default(), arg);

	child_check(text && shma_root_del(shma_default(), arg) == 0);
	shma_free(text);
	return 0;
}

/* ---- the socket alone ---- */

static int exchange(struct box *box)
{
	int status;

	(void)box;
	fill(SHMA_SCOPED);
	free_root(outside);
	pid_t child = fork(); /* a client of its own */

	if (child == 0) {
		expect_filled();
		system_leave_root(inside);
		_exit(0);
	}
	child_check(child > 0 && waitpid(child, &status, 0) == child && status == 0);
	system_find_root(inside);
	return 0;
}

static void shares_blocks(struct box *box)
{
	cr_expect_eq(child_run(system_leave_root, outside), 0);
	cr_expect_eq(child_join(start_box(box)), 0);
	cr_expect_eq(child_run(free_root, inside), 0);
}

Test(namespaces, a_container_needs_the_socket_alone)
{
	with_both(shares_blocks, exchange);
}

/* ---- death ---- */

/* Two clients in one container: its first process, which has both kinds of blocks, and a child. */
static int two_clients(struct box *box)
{
	fill(SHMA_SCOPED);
	system_leave_root(inside);
	pid_t child = fork();

	child_check(child >= 0);
	if (child == 0) {
		fill(SHMA_SCOPED);
		family_say(&box->family);
		while (family_hears(&box->family))
			;
		_exit(0);
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

static void is_cleaned_up(struct box *box)
{
	int64_t live = test_ctl_stat(&d, "live_bytes");
	pid_t outer = start_box(box);

	family_await(&box->family);
	settle_clients(2);
	cr_expect_eq(of_client(0, "uid"), box->rootless ? USER : 0);
	cr_expect_gt(of_client(0, "live_bytes"), live);
	pid_t first = (pid_t)of_client(0, "pid"); /* as it is called out here */

	cr_assert_gt(first, 1);
	cr_assert_neq(first, outer);
	cr_expect_eq(kill(first, SIGKILL), 0);
	cr_expect_eq(child_join(outer), 128 + SIGKILL);
	settle_clients(0);
	cr_expect_eq(child_run(free_root, inside), 0);
}

Test(namespaces, killed_in_a_container)
{
	with_both(is_cleaned_up, two_clients);
}

/* The first process looks on; its child has scoped blocks, and a child that has them, too. */
static int generations(struct box *box)
{
	pid_t parent = fork();

	child_check(parent >= 0);
	if (parent == 0) {
		fill(SHMA_SCOPED);
		if (fork() != 0)
			pause();
		system_leave_root(inside); /* attaches, after its parent */
		family_say(&box->family);
		while (family_hears(&box->family)) {
			expect_filled();
			free_root(inside);
			system_leave_root(inside);
			family_say(&box->family);
		}
		expect_filled();
		free_root(inside);
		_exit(0);
	}
	family_forget(&box->family);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return 0;
}

static void outlives_parent_and_daemon(struct box *box)
{
	pid_t outer = start_box(box);

	family_await(&box->family);
	settle_clients(2);
	cr_expect_eq(kill((pid_t)of_client(0, "pid"), SIGKILL), 0);
	family_ask(&box->family);
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, &(struct test_daemon_options){.args = for_all}), 0);
	family_ask(&box->family);
	family_end(&box->family);
	cr_expect_eq(child_join(outer), 0);
}

Test(namespaces, a_child_in_a_container_outlives_parent_and_daemon)
{
	with_both(outlives_parent_and_daemon, generations);
}

/* ---- who they are ---- */

static int attach_and_stay(struct box *box)
{
	child_check(shma_default() != NULL);
	family_say(&box->family);
	while (family_hears(&box->family))
		;
	return 0;
}

/* A user who has no name at all in its own namespace. */
static int without_a_name(void *arg)
{
	become_user();
	child_check(unshare(CLONE_NEWUSER) == 0 && getuid() != USER && getuid() != 0);
	return attach_and_stay(arg);
}

Test(namespaces, a_user_is_who_it_is_outside)
{
	struct box box = {.rootless = true, .program = attach_and_stay};

	if (!start(for_all))
		return;
	if (users_can())
		for (int mapped = 0; mapped < 2; mapped++) {
			pid_t pid;

			family_init(&box.family, NULL);
			pid = child_start(mapped ? contain : without_a_name, &box);
			family_await(&box.family);
			cr_expect_eq(of_client(0, "uid"), USER, "%s", mapped ? "root inside" : "nobody inside");
			family_end(&box.family);
			cr_expect_eq(child_join(pid), 0);
			settle_clients(0);
		}
	system_expect_empty(&d);
	system_end(&d);
}

static int be_refused(struct box *box)
{
	(void)box;
	child_check(shma_default() == NULL && errno == EACCES);
	return 0;
}

Test(namespaces, root_inside_is_not_root_outside)
{
	struct box box = {.rootless = true, .program = be_refused};

	if (!start(for_root))
		return;
	if (users_can())
		cr_expect_eq(child_join(start_box(&box)), 0);
	box = (struct box){.rootless = false, .program = attach_and_stay};
	pid_t outer = start_box(&box);

	family_await(&box.family);
	family_end(&box.family);
	cr_expect_eq(child_join(outer), 0);
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- daemons in namespaces ---- */

/* A client that is there before the daemon's namespace, and so is outside. */
static int be_refused_when_told(void *arg)
{
	struct box *box = arg;

	child_check(family_hears(&box->family));
	(void)be_refused(box);
	family_say(&box->family);
	return 0;
}

/* LeakSanitizer looks for its own threads in /proc, which is that of the namespace outside. */
static void look_for_no_leaks(void)
{
	const char *options = getenv("ASAN_OPTIONS");
	char text[512];

	snprintf(text, sizeof(text), "%s:detect_leaks=0", options ? options : "");
	setenv("ASAN_OPTIONS", text, 1);
}

/* Starts a daemon that is the first process of a pid namespace; `arg` leads to one who is outside. */
static int in_pid_namespace(void *arg)
{
	struct family *outsider = arg;

	if (unshare(CLONE_NEWPID) != 0)
		return 77;
	look_for_no_leaks();
	child_check(test_daemon_start_again(&d, NULL) == 0);
	child_check(child_run(system_leave_root, outside) == 0); /* one of its own namespace */
	child_check(write(outsider->to_child[1], "x", 1) == 1);
	child_check(read(outsider->from_child[0], (char[1]){0}, 1) == 1);
	child_check(child_run(free_root, outside) == 0);
	child_check(test_ctl_stat(&d, "live_bytes") == 0 && test_ctl_check(&d) == 0);
	child_check(test_daemon_stop(&d) == 0);
	return 0;
}

Test(namespaces, a_daemon_that_cannot_see_a_process_refuses_it)
{
	struct box box = {0};

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: a daemon in a namespace needs root\n");
		return;
	}
	alarm(system_limit());
	cr_assert_eq(test_daemon_init(&d, NULL), 0);
	setenv("SHMALLOC_SOCKET", d.socket, 1);
	family_init(&box.family, NULL);
	pid_t outsider = child_start(be_refused_when_told, &box);
	int status = child_run(in_pid_namespace, &box.family);

	if (status == 77) {
		fprintf(stderr, "skipped: no pid namespaces here\n");
		test_daemon_remove(&d);
		return;
	}
	cr_expect_eq(status, 0);
	cr_expect_eq(child_join(outsider), 0);
	family_forget(&box.family);
	cr_expect_eq(test_daemon_objects(&d), 0);
	test_daemon_remove(&d);
}

/* What starts the daemon in a user namespace that maps root, or nobody. NULL, and said so, if that cannot be had. */
static const char *in_user_namespace(const char *map)
{
	static char path[96];

	if (geteuid() != 0 || !users_can()) {
		fprintf(stderr, "skipped: a daemon in a namespace needs root\n");
		return NULL;
	}
	alarm(system_limit());
	cr_assert_eq(test_daemon_init(&d, NULL), 0);
	setenv("SHMALLOC_SOCKET", d.socket, 1);
	snprintf(path, sizeof(path), "%.80s/start", d.dir);
	FILE *script = fopen(path, "we");

	cr_assert_not_null(script);
	fprintf(script, "#!/bin/sh\nexec unshare --user %s %s \"$@\"\n", map, test_build_path("shmallocd"));
	fclose(script);
	cr_assert_eq(chmod(path, 0755), 0);
	return path;
}

static bool start_unmapped(const char *const *args)
{
	struct test_daemon_options options = {.program = in_user_namespace("--map-root-user"), .args = args};

	if (!options.program)
		return false;
	cr_assert_eq(test_daemon_start_again(&d, &options), 0);
	cr_assert_eq(chmod(d.dir, 0755), 0);
	return true;
}

static int stay_as_user(void *arg)
{
	become_user();
	return attach_and_stay(arg);
}

static int be_refused_as_user(void *arg)
{
	become_user();
	return be_refused(arg);
}

Test(namespaces, users_whom_a_daemon_does_not_know_are_one)
{
	struct box box = {0};
	char log[4096] = "";

	if (!start_unmapped(for_all))
		return;
	family_init(&box.family, NULL);
	pid_t user = child_start(stay_as_user, &box);

	family_await(&box.family);
	int64_t uid = of_client(0, "uid");

	cr_expect(uid > 0 && uid != USER, "%lld", (long long)uid);
	family_end(&box.family);
	cr_expect_eq(child_join(user), 0);
	FILE *file = fopen(d.log, "re");

	cr_assert_not_null(file);
	cr_expect_gt(fread(log, 1, sizeof(log) - 1, file), 0);
	fclose(file);
	cr_expect_not_null(strstr(log, "count as one, uid"), "%s", log);
	system_expect_empty(&d);
	system_end(&d);
}

Test(namespaces, and_are_not_root)
{
	if (!start_unmapped(for_root))
		return;
	cr_expect_eq(child_run(system_leave_root, outside), 0, "root is still root");
	cr_expect_eq(child_run(be_refused_as_user, NULL), 0);
	cr_expect_eq(child_run(free_root, outside), 0);
	system_expect_empty(&d);
	system_end(&d);
}

/* One whose own id is that of all these users would take each of them for itself. */
Test(namespaces, a_daemon_without_a_user_of_its_own_does_not_start)
{
	struct test_daemon_options options = {.program = in_user_namespace("")};
	char said[4096] = "";

	if (!options.program)
		return;
	cr_expect_eq(test_daemon_refused(&d, &options, said, sizeof(said)), 1);
	cr_expect_not_null(strstr(said, "run it as another user of the namespace"), "%s", said);
	cr_expect_eq(test_daemon_objects(&d), 0);
	test_daemon_remove(&d);
}
