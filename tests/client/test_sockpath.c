#include "client/sockpath.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(sockpath, .timeout = 10);

static char path[SHMI_PATH_MAX];

static void touch(const char *file)
{
	int fd = open(file, O_CREAT | O_WRONLY, 0600);

	cr_assert_geq(fd, 0);
	close(fd);
}

Test(sockpath, the_environment_comes_first)
{
	char longer[SHMI_PATH_MAX + 1];

	setenv("SHMALLOC_SOCKET", "/somewhere/else", 1);
	cr_assert(shmi_socket_default(path));
	cr_assert_str_eq(path, "/somewhere/else");
	memset(longer, 'x', SHMI_PATH_MAX);
	longer[SHMI_PATH_MAX] = 0;
	setenv("SHMALLOC_SOCKET", longer, 1);
	cr_assert_not(shmi_socket_default(path));
}

Test(sockpath, a_users_daemon_is_found_where_it_listens)
{
	char xdg[] = "/tmp/sockpath-XXXXXX", own[64], file[128];

	unsetenv("SHMALLOC_SOCKET");
	cr_assert_not_null(mkdtemp(xdg));
	setenv("XDG_RUNTIME_DIR", xdg, 1);
	snprintf(own, sizeof(own), "/tmp/shmalloc-%u", (unsigned)geteuid());
	if (mkdir(own, 0700) != 0) {
		fprintf(stderr, "skipped: %s is in use\n", own);
		rmdir(xdg);
		return;
	}
	cr_expect(shmi_socket_default(path));
	cr_expect_str_eq(path, "/run/shmalloc/shmalloc.sock");

	snprintf(file, sizeof(file), "%s/shmalloc.sock", own);
	touch(file);
	cr_expect(shmi_socket_default(path));
	cr_expect_str_eq(path, file);
	chmod(own, 0777); /* anybody could have put it there */
	cr_expect(shmi_socket_default(path));
	cr_expect_str_eq(path, "/run/shmalloc/shmalloc.sock");
	unlink(file);
	rmdir(own);

	snprintf(file, sizeof(file), "%s/shmalloc", xdg);
	mkdir(file, 0700);
	strcat(file, "/shmalloc.sock");
	touch(file);
	cr_expect(shmi_socket_default(path));
	cr_expect_str_eq(path, file);
	chmod(xdg, 0720); /* another's, perhaps */
	cr_expect(shmi_socket_default(path));
	cr_expect_str_eq(path, "/run/shmalloc/shmalloc.sock");
	unlink(file);
	*strrchr(file, '/') = 0;
	rmdir(file);
	rmdir(xdg);
}
