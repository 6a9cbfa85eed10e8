#include "shm/dump.h"

#include "client/ctl/saved.h"
#include "client/ctl/show.h"

static void print_line(void *ctx, const char *text)
{
	struct ctl *ctl = ctx;
	char clean[1024];

	report_clean(text, clean, sizeof(clean));
	fprintf(ctl->out, "%s\n", clean);
}

static int run(struct ctl *ctl)
{
	struct ctl_saved saved;

	if (!ctl->image || ctl->json)
		return ctl_fail(
		        ctl, CTL_USAGE, "dump prints saved copies, as text: shmallocctl dump --image META [CTL]");
	int status = ctl_saved_open(ctl, &saved);

	if (status != CTL_OK)
		return status;
	shmi_dump(&saved.img, print_line, ctl);
	ctl_saved_close(&saved);
	return CTL_OK;
}

const struct ctl_command ctl_dump = {.name = "dump",
        .args = "--image META [CTL]",
        .summary = "print saved copies of a heap's objects, for debugging",
        .options = CTL_OPT_IMAGE,
        .max_args = 2,
        .run = run};
