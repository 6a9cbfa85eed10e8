/* The examples do what they say, nothing stays behind. */
#include "tests/system/system.h"

#include <stdio.h>
#include <string.h>

Test(examples, hello, .timeout = 60)
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

Test(examples, pipeline, .timeout = 120)
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
