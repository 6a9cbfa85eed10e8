/* The examples do what they say, nothing stays behind. */
#include "tests/system/system.h"

#include <stdio.h>
#include <string.h>

Test(examples, hello)
{
	static const char *const leave[] = {"examples/hello", "good morning", NULL}, *const find[] = {
	                                                                                     "examples/hello", NULL};
	struct test_daemon d;
	char *said = NULL;

	system_start(&d, NULL);
	cr_expect_eq(program_run(leave, &said), 0);
	cr_expect_str_eq(said, "");
	free(said);
	cr_expect_eq(program_run(find, &said), 0);
	cr_expect_str_eq(said, "good morning\n");
	free(said);
	cr_expect_eq(program_run(find, NULL), 1, "it is there only once");
	system_expect_empty(&d);
	system_end(&d);
}

Test(examples, pipeline)
{
	const char *const drop[] = {"examples/pipeline", "drop", NULL},
	                  *const work[] = {"examples/pipeline", "work", NULL},
	                  *const make[] = {"examples/pipeline", "make", test_trace_path("gs-png"), "1", NULL};
	struct test_daemon d;
	char said[3][256] = {"", "", ""};
	int in[3], out[3];

	system_start(&d, NULL);
	pid_t pid[3] = {program_start(drop, &in[0], &out[0]), program_start(work, &in[1], &out[1]),
	        program_start(make, &in[2], &out[2])};

	for (int i = 0; i < 3; i++) {
		cr_expect_gt(read(out[i], said[i], sizeof(said[i]) - 1), 0);
		cr_expect_eq(child_join(pid[i]), 0);
		cr_expect_not_null(strstr(said[i], " 0 wrong"), "%s", said[i]);
	}
	cr_expect_str_eq(said[0] + strcspn(said[0], ":"), said[2] + strcspn(said[2], ":"), "what was made was dropped");
	system_expect_empty(&d);
	system_end(&d);
}

Test(examples, containers)
{
	static const char *const some[] = {"examples/containers", "one", "two", "two", NULL},
	                         *const more[] = {"examples/containers", "two",
	                                 "a word that is longer than a short string", NULL},
	                         *const print[] = {"examples/containers", NULL};
	struct test_daemon d;
	char *said = NULL;

	system_start(&d, NULL);
	cr_expect_eq(program_run(some, NULL), 0);
	cr_expect_eq(program_run(more, NULL), 0);
	cr_expect_eq(program_run(print, &said), 0);
	cr_expect_str_eq(said, "1 a word that is longer than a short string\n1 one\n3 two\n");
	free(said);
	cr_expect_eq(program_run(print, &said), 0);
	cr_expect_str_eq(said, "", "it is there only once");
	free(said);
	system_expect_empty(&d);
	system_end(&d);
}

/* The text of a file of the source tree; the caller frees it. */
static char *text_of(const char *name)
{
	const char *path = test_build_path(name);
	FILE *f = path ? fopen(path, "r") : NULL;
	char *text = NULL;
	size_t room = 0;

	cr_assert_not_null(f, "%s", name);
	cr_assert_gt(getdelim(&text, &room, 0, f), 0);
	fclose(f);
	return text;
}

Test(examples, readme_has_the_program_that_is_tested)
{
	char *readme = text_of("README.md"), *hello = text_of("client/examples/hello.c");

	cr_expect_not_null(strstr(readme, hello), "README.md does not contain client/examples/hello.c");
	free(readme);
	free(hello);
}

Test(examples, demo)
{
	static const char *const demo[] = {"tests/system/demo.sh", "3", NULL};
	const char *daemon = test_build_path("shmallocd");
	char build[4096] = "", *said = NULL;

	alarm(system_limit());
	cr_assert_not_null(daemon);
	memccpy(build, daemon, 0, sizeof(build) - 1);
	*strrchr(build, '/') = 0;
	setenv("BUILD", build, 1);
	cr_expect_eq(program_run(demo, &said), 0, "%s", said ? said : "");
	cr_expect_not_null(said ? strstr(said, "the heap is clean and empty") : NULL, "%s", said ? said : "");
	free(said);
}
