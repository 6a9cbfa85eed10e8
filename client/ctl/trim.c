#include "client/ctl/show.h"

static int run(struct ctl *ctl)
{
	struct wire_msg request = {.kind = WIRE_TRIM, .u.trim = {.all = ctl->all}};
	const struct wire_msg *reply;
	char human[32];

	/* A trim names no heap: make sure that the daemon has this one. */
	int status = ctl_query(ctl, WIRE_Q_STATS, 0, WIRE_STATS, &reply);

	if (status == CTL_OK)
		status = ctl_ask(ctl, &request, WIRE_TRIM_OK, &reply);
	if (status != CTL_OK)
		return status;
	uint64_t bytes = reply->u.trim_ok.bytes;

	if (ctl->json) {
		json_t *json = ctl_json_new(ctl);

		json_object_set_new(json, "returned_bytes", ctl_json_number(bytes));
		return ctl_json_print(ctl, json);
	}
	ctl_human(bytes, human, sizeof(human));
	fprintf(ctl->out, "%llu bytes (%s) returned to the system\n", (unsigned long long)bytes, human);
	return CTL_OK;
}

const struct ctl_command ctl_trim = {.name = "trim",
        .summary = "return the heap's idle memory to the system",
        .help = "For root and the daemon's user. With --all the clients are asked for what they can spare as well; "
                "they answer\n"
                "when they next need the daemon.",
        .options = CTL_OPT_ALL,
        .run = run};
