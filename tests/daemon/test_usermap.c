#include "daemon/usermap.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "tests/lib/child.h"

Test(usermap, maps_all_or_not)
{
	cr_expect(usermap_is_whole("         0          0 4294967295\n"));
	cr_expect(usermap_is_whole("0 0 1000\n1000 5000 4294966295\n"));
	cr_expect_not(usermap_is_whole(""));
	cr_expect_not(usermap_is_whole("0 100000 65536\n"));
	cr_expect_not(usermap_is_whole("0 0 1000\n1000 5000 4294966294\n"));
	cr_expect_not(usermap_is_whole("0 0 4294967296\n"), "more than there are");
	cr_expect_not(usermap_is_whole("0 0 18446744073709551615\n1 1 1\n"), "nor does a sum go round");
	cr_expect_not(usermap_is_whole("0 0\n"));
	cr_expect_not(usermap_is_whole("none"));
}

/* The kernel's own answer: what id it gives to a user whom no line of the map has. */
static int without_a_map(void *arg)
{
	(void)arg;
	if (unshare(CLONE_NEWUSER))
		return 77;
	child_check(usermap_unmapped() == (int64_t)getuid());
	return 0;
}

Test(usermap, what_is_not_mapped)
{
	int status = child_run(without_a_map, NULL);

	if (status == 77)
		fprintf(stderr, "skipped: this user may make no user namespace\n");
	else
		cr_expect_eq(status, 0);
}
