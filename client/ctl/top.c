#include "client/ctl/ctl.h"
static int run(struct ctl *ctl) { return ctl_fail(ctl, CTL_FAILED, "not yet"); }
const struct ctl_command ctl_top = {.name = "top", .summary = "clients, live", .options = CTL_OPT_TOP, .formats = "text", .run = run};
