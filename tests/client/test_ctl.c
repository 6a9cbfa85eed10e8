/* shmallocctl's command line and its connection: what goes wrong is said in words, with the exit status that scripts rely on. */
#include <sys/stat.h>
#include <unistd.h>

#include "proto/chan.h"
#include "proto/codec.h"
#include "tests/client/ctl_run.h"

TestSuite(ctl, .timeout = 60);

static enum fake_answer give_stats(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)d;
	static const enum wire_kind kinds[] = {[WIRE_Q_STATS] = WIRE_STATS,
	        [WIRE_Q_CLIENTS] = WIRE_CLIENTS,
	        [WIRE_Q_CLASSES] = WIRE_CLASSES,
	        [WIRE_Q_USERS] = WIRE_USERS};

	cr_assert_eq(request->kind, WIRE_QUERY);
	reply->kind = kinds[request->u.query.kind];
	if (reply->kind != WIRE_STATS) {
		reply->u.clients.n_rows = 0; /* all replies with rows begin alike */
		reply->u.clients.next = 0;
		return FAKE_SEND;
	}
	snprintf(reply->u.stats.heap, sizeof(reply->u.stats.heap), "%s", request->u.query.heap);
	return FAKE_SEND;
}

/* ---- the command line ---- */

static void refuses(struct ctl_output o, const char *words)
{
	cr_assert_eq(o.status, CTL_USAGE, "status %d", o.status);
	cr_assert_str_eq(o.out, "");
	expect_has(o.err, words);
	ctl_drop(&o);
}

Test(ctl, bad_usage)
{
	char path[200];

	memset(path, 'p', sizeof(path));
	path[sizeof(path) - 1] = 0;
	refuses(ctl_run("frobnicate", NULL), "there is no command 'frobnicate'");
	refuses(ctl_run("stats", "--frob", NULL), "there is no option '--frob'");
	refuses(ctl_run("-x", NULL), "there is no option '-x'");
	refuses(ctl_run("stats", "--socket", NULL), "--socket needs a value");
	refuses(ctl_run("stats", "--format", "xml", NULL), "--format of stats is text|json|prometheus, not 'xml'");
	refuses(ctl_run("stats", "--timeout", "0", NULL), "--timeout is 1 to 3600 seconds, not '0'");
	refuses(ctl_run("stats", "--timeout", "9x", NULL), "not '9x'");
	refuses(ctl_run("stats", "--timeout", "-1", NULL), "not '-1'");
	refuses(ctl_run("stats", "--socket", path, NULL), "at most 107 bytes");
	refuses(ctl_run("stats", "more", NULL), "'more' is too much");
	refuses(ctl_run("clients", "--format", "prometheus", NULL), "--format of clients is text|json");
	refuses(ctl_run("roots", "--sort", "name", NULL), "roots has no option --sort");
	refuses(ctl_run("stats", "--all", NULL), "stats has no option --all");
	refuses(ctl_run("trim", "--bytes", NULL), "trim has no option --bytes");
	refuses(ctl_run("trim", "--all", "3", NULL), "trim one client, or --all");
	refuses(ctl_run("trim", "3", "4", NULL), "'4' is too much");
	refuses(ctl_run("trim", "1024", NULL), "a client is a number below 1024");
	refuses(ctl_run("trim", "-1", NULL), "there is no option '-1'");
	refuses(ctl_run("trim", "3x", NULL), "a client is a number");
	refuses(ctl_run("trim", "--kill", "3", NULL), "trim has no option --kill");
	refuses(ctl_run("evict", NULL), "evict which client?");
	refuses(ctl_run("evict", "", NULL), "a client is a number");
	refuses(ctl_run("evict", "99999999999999999999", NULL), "a client is a number");
	refuses(ctl_run("evict", "3", "4", NULL), "'4' is too much");
	refuses(ctl_run("check", "file", NULL), "did you mean --image");
	refuses(ctl_run("check", "--image", NULL), "is missing");
	refuses(ctl_run("check", "--image", "a", "b", "c", NULL), "'c' is too much");
	refuses(ctl_run("dump", NULL), "dump prints saved copies");
	refuses(ctl_run("dump", "--image", "--format", "json", "a", NULL), "dump prints saved copies");
	refuses(ctl_run("check", "--image", "/nonexistent/meta", NULL), "cannot read /nonexistent/meta");
}

Test(ctl, no_command_shows_the_help)
{
	struct ctl_output o = ctl_run(NULL);

	cr_assert_eq(o.status, CTL_USAGE);
	expect_has(o.err, "Usage: shmallocctl [OPTIONS] COMMAND");
	ctl_drop(&o);
}

Test(ctl, help_and_version)
{
	static const char *const names[] = {
	        "stats", "clients", "users", "classes", "spans", "roots", "heaps", "check", "trim", "evict", "dump"};
	struct ctl_output o = ctl_run("--help", NULL), one;

	cr_assert_eq(o.status, CTL_OK);
	cr_assert_str_eq(o.err, "");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char line[64];

		snprintf(line, sizeof(line), "\n  %-9s ", names[i]);
		expect_has(o.out, line);
		one = ctl_run(names[i], "--help", NULL);
		cr_assert_eq(one.status, CTL_OK);
		snprintf(line, sizeof(line), "Usage: shmallocctl [OPTIONS] %s", names[i]);
		expect_has(one.out, line);
		expect_has(one.out, "--socket PATH");
		ctl_drop(&one);
	}
	ctl_drop(&o);
	o = ctl_run("--version", NULL);
	cr_assert_eq(o.status, CTL_OK);
	cr_assert_str_eq(o.out, "shmallocctl " SHMALLOC_VERSION "\n");
	ctl_drop(&o);
}

/* Options stand before or behind the command, and the environment is asked where they are silent. */
Test(ctl, where_options_come_from)
{
	struct fake_daemon d;
	struct ctl_output o;
	char run[64], path[128];

	unsetenv("SHMALLOC_SOCKET");
	unsetenv("SHMALLOC_HEAP");
	fake_daemon_start(&d, give_stats, NULL);
	o = ctl_run("-s", d.socket, "stats", "-H", "mine", NULL);
	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_str_eq(d.last.u.query.heap, "mine");
	ctl_drop(&o);

	setenv("SHMALLOC_SOCKET", d.socket, 1);
	o = ctl_run("stats", NULL);
	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_str_eq(d.last.u.query.heap, "default");
	ctl_drop(&o);
	setenv("SHMALLOC_HEAP", "theirs", 1);
	o = ctl_run("stats", NULL);
	cr_assert_str_eq(d.last.u.query.heap, "theirs");
	ctl_drop(&o);
	fake_daemon_stop(&d);

	unsetenv("SHMALLOC_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	o = ctl_run("stats", NULL);
	cr_assert_eq(o.status, CTL_UNREACHABLE);
	expect_has(o.err, "/run/shmalloc/shmalloc.sock");
	ctl_drop(&o);

	snprintf(run, sizeof(run), "/tmp/ctlrun.XXXXXX");
	cr_assert_not_null(mkdtemp(run));
	snprintf(path, sizeof(path), "%s/shmalloc", run);
	cr_assert_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/shmalloc/shmalloc.sock", run);
	fclose(fopen(path, "w"));
	setenv("XDG_RUNTIME_DIR", run, 1);
	o = ctl_run("stats", NULL);
	cr_assert_eq(o.status, CTL_UNREACHABLE);
	expect_has(o.err, "/shmalloc/shmalloc.sock");
	expect_has(o.err, run);
	ctl_drop(&o);
	unlink(path);
	snprintf(path, sizeof(path), "%s/shmalloc", run);
	rmdir(path);
	rmdir(run);
}

/* ---- no daemon ---- */

Test(ctl, no_daemon)
{
	struct ctl_output o = ctl_run("--socket", "/nonexistent/sock", "stats", NULL);

	cr_assert_eq(o.status, CTL_UNREACHABLE);
	cr_assert_str_eq(o.out, "");
	expect_has(o.err,
	        "no daemon listens at /nonexistent/sock: start shmallocd, or say where it listens with --socket");
	ctl_drop(&o);
	o = ctl_run("--socket", "/tmp", "stats", NULL);
	cr_assert_eq(o.status, CTL_UNREACHABLE);
	expect_has(o.err, "no daemon listens at /tmp");
	ctl_drop(&o);
}

Test(ctl, not_let_in)
{
	struct fake_daemon d;
	struct ctl_output o;

	fake_daemon_start(&d, give_stats, NULL);
	if (geteuid() == 0) {
		cr_assert_eq(chmod(d.dir, 0700), 0);
		cr_assert_eq(seteuid(65534), 0);
	} else {
		cr_assert_eq(chmod(d.socket, 0), 0);
	}
	o = ctl_run("--socket", d.socket, "stats", NULL);
	cr_assert_eq(o.status, CTL_UNREACHABLE);
	expect_has(o.err, "you may not connect to");
	ctl_drop(&o);
	if (getuid() == 0)
		cr_assert_eq(seteuid(0), 0);
	fake_daemon_stop(&d);
}

/* ---- a daemon that fails ---- */

static enum fake_answer be_silent(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)d, (void)request, (void)reply;
	return FAKE_SILENCE;
}

static enum fake_answer hang_up(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)d, (void)request, (void)reply;
	return FAKE_HANG_UP;
}

static void fails(fake_script script, void *ctx, bool mute, int status, const char *words)
{
	struct fake_daemon d;
	struct ctl_output o;

	if (mute)
		fake_daemon_start_mute(&d, script, ctx);
	else
		fake_daemon_start(&d, script, ctx);
	o = ctl_run("--socket", d.socket, "--timeout", "1", "stats", NULL);
	cr_assert_eq(o.status, status, "status %d: %s", o.status, o.err);
	cr_assert_str_eq(o.out, "");
	expect_has(o.err, words);
	cr_assert_str_eq(strchr(o.err, '\n'), "\n", "more than one line: %s", o.err);
	ctl_drop(&o);
	fake_daemon_stop(&d);
}

Test(ctl, silent_daemon)
{
	fails(be_silent, NULL, false, CTL_UNREACHABLE, "did not answer within 1 seconds");
}

Test(ctl, silent_from_the_start)
{
	fails(be_silent, NULL, true, CTL_UNREACHABLE, "did not answer within 1 seconds");
}

Test(ctl, daemon_that_hangs_up)
{
	fails(hang_up, NULL, false, CTL_UNREACHABLE, "hung up");
	fails(hang_up, NULL, true, CTL_UNREACHABLE, "hung up");
}

static enum fake_answer refuse(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)request;
	reply->kind = WIRE_ERROR;
	reply->u.error = *(struct wire_error *)d->ctx;
	return FAKE_SEND;
}

Test(ctl, refusals)
{
	struct wire_error version = {WIRE_E_VERSION, "versions differ: theirs and ours"},
	                  heap = {WIRE_E_NO_HEAP, "there is no heap 'default' here"}, silent = {WIRE_E_ACCESS, ""},
	                  rude = {WIRE_E_INVALID, "\033[31mred\nline"};

	fails(refuse, &version, true, CTL_FAILED,
	        "versions differ: theirs and ours: use the shmallocctl that came with");
	fails(refuse, &heap, false, CTL_FAILED, "there is no heap 'default' here: say which with --heap");
	fails(refuse, &silent, false, CTL_FAILED, "the daemon refuses: ");
	fails(refuse, &rude, false, CTL_FAILED, "the daemon refuses: \\x1b[31mred\\x0aline");
}

static enum fake_answer send_rubbish(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)request, (void)reply;
	memset(d->raw, 0xee, sizeof(d->raw));
	d->raw_len = *(size_t *)d->ctx;
	return FAKE_RAW;
}

static enum fake_answer wrong_serial(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	enum fake_answer answer = give_stats(d, request, reply);

	reply->serial++;
	return answer;
}

static enum fake_answer wrong_kind(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)d, (void)request;
	reply->kind = WIRE_ROOTS;
	return FAKE_SEND;
}

Test(ctl, answers_that_make_no_sense)
{
	size_t some = 100, too_many = WIRE_MAX + 1;

	fails(send_rubbish, &some, false, CTL_FAILED, "makes no sense");
	fails(send_rubbish, &some, true, CTL_FAILED, "makes no sense");
	fails(send_rubbish, &too_many, false, CTL_FAILED, "longer than a message can be");
	fails(wrong_serial, NULL, false, CTL_FAILED, "makes no sense");
	fails(wrong_kind, NULL, false, CTL_FAILED, "to another question");
}

Test(ctl, heap_name_too_long)
{
	struct fake_daemon d;
	struct ctl_output o;
	char name[WIRE_NAME + 1];

	memset(name, 'h', sizeof(name));
	name[WIRE_NAME] = 0;
	fake_daemon_start(&d, give_stats, NULL);
	o = ctl_run("--socket", d.socket, "--heap", name, "stats", NULL);
	cr_assert_eq(o.status, CTL_USAGE);
	expect_has(o.err, "at most 95 bytes");
	ctl_drop(&o);
	fake_daemon_stop(&d);
}

/* A full disk is no success. */
Test(ctl, output_that_cannot_be_written)
{
	char *argv[] = {"shmallocctl", "--socket", NULL, "stats", NULL};
	FILE *full = fopen("/dev/full", "w");
	struct fake_daemon d;

	cr_assert_not_null(full);
	fake_daemon_start(&d, give_stats, NULL);
	argv[2] = d.socket;
	cr_assert_eq(ctl_main(4, argv, full, stderr), CTL_FAILED);
	fclose(full);
	fake_daemon_stop(&d);
}
