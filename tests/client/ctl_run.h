/* Runs shmallocctl in the test's process and keeps what it prints. */
#ifndef TESTS_CLIENT_CTL_RUN_H
#define TESTS_CLIENT_CTL_RUN_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "tests/lib/fakedaemon.h"

struct ctl_output {
	int status;
	char *out, *err;
};

/* Arguments end with NULL. */
static inline struct ctl_output ctl_run(const char *first, ...)
{
	char *argv[32] = {"shmallocctl"};
	struct ctl_output o = {0};
	size_t out_len, err_len;
	FILE *out = open_memstream(&o.out, &out_len), *err = open_memstream(&o.err, &err_len);
	int argc = 1;
	va_list args;

	va_start(args, first);
	for (const char *a = first; a && argc < 31; a = va_arg(args, const char *))
		argv[argc++] = strdup(a);
	va_end(args);
	cr_assert(out && err);
	o.status = ctl_main(argc, argv, out, err);
	fclose(out);
	fclose(err);
	while (argc > 1)
		free(argv[--argc]);
	return o;
}

static inline void ctl_drop(struct ctl_output *o)
{
	free(o->out);
	free(o->err);
	*o = (struct ctl_output){0};
}

#define expect_has(text, part) cr_assert_not_null(strstr(text, part), "no '%s' in:\n%s", part, text)
#define expect_lacks(text, part) cr_assert_null(strstr(text, part), "'%s' in:\n%s", part, text)

#endif
