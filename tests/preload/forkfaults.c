/* Forks where something is missing: pages of the heap that are read, memory for the copy, a call of the system. This program stands
 * before the C library's functions that fail. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/preload/program.h"

#define BLOCKS 300
#define LAZY (1 << 3 | 1 << 0) /* SHMA_LAZY | SHMA_SCOPED */

static int fail_advice, fail_errno, refuse_read, reads;
static char *gone; /* is freed when a fork is about to copy */

int madvise(void *at, size_t bytes, int advice)
{
	if (gone && advice == MADV_POPULATE_READ) {
		char *block = gone;

		gone = NULL;
		free(block);
	}
	if (fail_advice && advice == fail_advice) {
		errno = fail_errno;
		return -1;
	}
	return (int)syscall(SYS_madvise, at, bytes, advice);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long n_local, const struct iovec *remote,
        unsigned long n_remote, unsigned long flags)
{
	reads++;
	if (!refuse_read)
		return syscall(SYS_process_vm_readv, pid, local, n_local, remote, n_remote, flags);
	errno = EPERM;
	return -1;
}

static char *block[BLOCKS];

static size_t size_of(size_t i)
{
	return i % 50 == 7 ? 900000 : 10 + i * 91 % 9000;
}

static void make(void)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		block[i] = malloc(size_of(i));
		expect(block[i] && in_heap(block[i]));
		memset(block[i], (int)(i & 0x7f), size_of(i));
	}
}

static void check(void)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < size_of(i); at++)
			expect(block[i][at] == (char)(i & 0x7f));
}

static void fork_and_check(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		check();
		_exit(0);
	}
	expect_ended(pid);
	check();
}

static void expect_aborted(pid_t pid)
{
	int status = 0;

	expect(pid > 0 && waitpid(pid, &status, 0) == pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Whatever the system does not know or allow, the copy is whole. */
static void refused(void)
{
	make();
	fail_advice = MADV_POPULATE_READ;
	fail_errno = EINVAL;
	fork_and_check();
	expect(reads > 0);
	refuse_read = 1;
	fork_and_check();
	fail_advice = MADV_POPULATE_WRITE;
	fork_and_check();
	fail_errno = EPERM;
	fork_and_check();
}

/* The parent goes on, and the child says why it does not. */
static void no_memory(void)
{
	make();
	fail_advice = MADV_POPULATE_WRITE;
	fail_errno = ENOMEM;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	check();
	expect_aborted(pid);
	fail_advice = 0;
	fork_and_check();
}

/* What goes while the copy is made is not in it. */
static void freed_meanwhile(void)
{
	char *block_gone = malloc(6000000);

	make();
	expect(block_gone);
	memset(block_gone, 1, 6000000);
	gone = block_gone;
	pid_t pid = fork();

	if (pid == 0) {
		check();
		expect(!gone && block_gone[0] == 0 && block_gone[5999999] == 0);
		(void)malloc_usable_size(block_gone);
		_exit(0);
	}
	expect_aborted(pid);
	check();
}

/* All pages of the tmpfs, by a file in it. */
static void fill_tmpfs(void)
{
	static char zeros[65536];
	int fd = open("/dev/shm/filler", O_CREAT | O_EXCL | O_WRONLY, 0600);

	expect(fd >= 0);
	for (size_t step = sizeof(zeros); step >= 4096;)
		if (write(fd, zeros, step) < (ssize_t)step)
			step /= 2;
	expect(close(fd) == 0);
}

/* Of a block that was never backed the child has what was written, and zeros: in a /dev/shm of its own that is full. */
static void holes(void)
{
	char *(*alloc)(void *heap, size_t size, size_t alignment, unsigned flags);
	void *(*standard)(void);

	*(void **)&alloc = dlsym(RTLD_DEFAULT, "shma_heap_alloc");
	*(void **)&standard = dlsym(RTLD_DEFAULT, "shma_default");
	expect(alloc && standard);
	char *lazy = alloc(standard(), 16 << 20, 0, LAZY);

	expect(lazy);
	for (size_t at = 0; at < 16 << 20; at += 3 << 20)
		lazy[at] = 'x';
	make();
	fill_tmpfs();
	pid_t pid = fork();

	if (pid == 0) {
		check();
		for (size_t at = 0; at < 16 << 20; at += 1 << 20)
			expect(lazy[at] == (at % (3 << 20) == 0 ? 'x' : 0) && lazy[at + 70000] == 0);
		_exit(0);
	}
	expect_ended(pid);
	expect(reads > 0 && unlink("/dev/shm/filler") == 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} ways[] = {
	        {"refused", refused}, {"no_memory", no_memory}, {"freed_meanwhile", freed_meanwhile}, {"holes", holes}};

	for (size_t i = 0; argc == 2 && i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(argv[1], ways[i].name) == 0) {
			ways[i].run();
			return 0;
		}
	return 2;
}
