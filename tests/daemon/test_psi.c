/* Memory pressure as a service manager or the kernel tells of it. */
#include "daemon/psi.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(psi, .timeout = 60);

static char dir[64], path[128], why[256];

static void make_dir(void)
{
	strcpy(dir, "/tmp/shmalloc-psi-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/watch", dir);
	setenv("MEMORY_PRESSURE_WATCH", path, 1);
	unsetenv("MEMORY_PRESSURE_WRITE");
}

static void remove_dir(void)
{
	unlink(path);
	rmdir(dir);
}

static bool is_readable(const struct psi *psi)
{
	struct pollfd fd = {.fd = psi->watch, .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

Test(psi, base64)
{
	unsigned char to[64];

	cr_assert_eq(psi_decode("", to, sizeof(to)), 0);
	cr_assert_eq(psi_decode("c29tZSAyMDAwMDAgMjAwMDAwMAA=", to, sizeof(to)), 20);
	cr_assert_str_eq((char *)to, "some 200000 2000000");
	cr_assert_eq(psi_decode("QQ==", to, sizeof(to)), 1);
	cr_assert_eq(to[0], 'A');
	cr_assert_eq(psi_decode("QUI=", to, 2), 2);
	cr_assert_eq(psi_decode("QUJD", to, 2), -1, "no room");
	cr_assert_eq(psi_decode("QUJ", to, sizeof(to)), -1);
	cr_assert_eq(psi_decode("Q=JD", to, sizeof(to)), -1);
	cr_assert_eq(psi_decode("QU*D", to, sizeof(to)), -1);
	cr_assert_eq(psi_decode("====", to, sizeof(to)), -1);
}

Test(psi, a_fifo)
{
	struct psi psi;

	make_dir();
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(psi_open(&psi, why, sizeof(why)), 0, "%s", why);
	cr_assert_not(is_readable(&psi));
	for (int i = 0; i < 2; i++) { /* whoever wrote has gone again: that is no end */
		int fd = open(path, O_WRONLY);

		cr_assert_eq(write(fd, "pressed", 7), 7);
		close(fd);
		cr_assert(is_readable(&psi));
		cr_assert(psi_read(&psi));
		cr_assert_not(is_readable(&psi));
	}
	psi_close(&psi);
	remove_dir();
}

/* What is to be written arrives; and a peer that hangs up is the end. */
Test(psi, a_socket)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct psi psi;
	char got[16] = "";

	make_dir();
	setenv("MEMORY_PRESSURE_WRITE", "aGVsbG8=", 1);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	cr_assert_eq(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(sock, 1), 0);
	cr_assert_eq(psi_open(&psi, why, sizeof(why)), 0, "%s", why);
	int peer = accept(sock, NULL, NULL);

	cr_assert_eq(read(peer, got, sizeof(got)), 5);
	cr_assert_str_eq(got, "hello");
	cr_assert_not(is_readable(&psi));
	cr_assert_eq(write(peer, "x", 1), 1);
	cr_assert(is_readable(&psi));
	cr_assert(psi_read(&psi));
	cr_assert_not(is_readable(&psi));
	close(peer);
	cr_assert(is_readable(&psi));
	cr_assert_not(psi_read(&psi));
	cr_assert_eq(psi.watch, -1);
	close(sock);
	remove_dir();
}

Test(psi, what_cannot_be_watched)
{
	struct psi psi;

	make_dir();
	cr_assert_eq(psi_open(&psi, why, sizeof(why)), -ENOENT);
	cr_assert_not_null(strstr(why, path));
	setenv("MEMORY_PRESSURE_WATCH", "/dev/null", 1);
	cr_assert_neq(psi_open(&psi, why, sizeof(why)), 0);
	cr_assert_eq(psi.watch, -1);
	setenv("MEMORY_PRESSURE_WATCH", "/dev/zero", 1);
	cr_assert_eq(psi_open(&psi, why, sizeof(why)), -EINVAL);
	cr_assert_eq(mkfifo(path, 0600), 0);
	setenv("MEMORY_PRESSURE_WATCH", path, 1);
	setenv("MEMORY_PRESSURE_WRITE", "not base64", 1);
	cr_assert_eq(psi_open(&psi, why, sizeof(why)), -EINVAL);
	psi_close(&psi);
	remove_dir();
}

/* The kernel's own, where it lets us. */
Test(psi, the_kernels)
{
	struct psi psi;

	unsetenv("MEMORY_PRESSURE_WATCH");
	int error = psi_open(&psi, why, sizeof(why));

	if (error) {
		fprintf(stderr, "skipped: %s\n", why);
		cr_assert_eq(psi.watch, -1);
		return;
	}
	cr_assert_geq(psi.file, 0);
	if (!is_readable(&psi)) /* a trigger has to fire before there is anything */
		cr_assert(psi_read(&psi));
	psi_close(&psi);
}
