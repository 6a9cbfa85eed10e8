#include "client/ctl/show.h"
#include "client/ctl/who.h"

static int run(struct ctl *ctl)
{
	struct wire_msg request = {.kind = WIRE_TRIM, .u.trim = {.all = ctl->all, .one = ctl->n_args != 0}};
	const struct wire_msg *reply;
	char human[32];

	if (ctl->all && ctl->n_args)
		return ctl_fail(ctl, CTL_USAGE, "trim one client, or --all");
	int status = ctl->n_args ? ctl_who(ctl, ctl->args[0], &request.u.trim.client) : CTL_OK;

	if (status != CTL_OK)
		return status;
	if (snprintf(request.u.trim.heap, sizeof(request.u.trim.heap), "%s", ctl->heap) >= (int)WIRE_NAME)
		return ctl_fail(ctl, CTL_USAGE, "a heap's name has at most %u bytes", WIRE_NAME - 1);
	status = ctl_ask(ctl, &request, WIRE_TRIM_OK, &reply);
	if (status != CTL_OK)
		return status;
	uint64_t bytes = reply->u.trim_ok.bytes;

	if (ctl->json) {
		json_t *json = ctl_json_new(ctl);

		json_object_set_new(json, "returned_bytes", report_json_number(bytes));
		return ctl_json_print(ctl, json);
	}
	report_human(bytes, human, sizeof(human));
	fprintf(ctl->out, "%llu bytes (%s) returned to the system\n", (unsigned long long)bytes, human);
	return CTL_OK;
}

const struct ctl_command ctl_trim = {.name = "trim",
        .args = "[CLIENT]",
        .summary = "return the heap's idle memory to the system",
        .help = "For root and the daemon's user. With a CLIENT, an ID that 'shmallocctl clients' shows, or with "
                "--all,\n"
                "the wholly free spans of that client or of every one are taken as well, and it is told to give back\n"
                "what else it can spare: it does when it next needs the daemon. Nobody waits for that, so what comes\n"
                "back then is not in the number of bytes that is printed.",
        .options = CTL_OPT_ALL,
        .max_args = 1,
        .run = run};
