/* Traces of real programs on a real daemon, every byte checked, in all modes of tests/bench/replay. */
#include "tests/system/system.h"

#include <stdio.h>
#include <string.h>

/* Replays one trace; skips, saying so, one that is not there. */
static void replay(const char *name, const char *mode, const char *processes)
{
	struct test_daemon d;
	const char *path = test_trace_path(name);

	if (!path) {
		fprintf(stderr, "skipped: %s: no such trace here\n",
		        name); /* a warning of Criterion would fail the run */
		return;
	}
	system_start(&d, NULL);
	const char *const argv[] = {
	        "bench/replay", "-c", "--mode", mode, "-n", processes, "--socket", d.socket, path, NULL};
	char *said = NULL;

	cr_expect_eq(program_run(argv, &said), 0, "%s, mode %s:\n%s", name, mode, said ? said : "");
	free(said);
	system_expect_empty(&d);
	system_end(&d);
}

/* In a soak all of them. */
static void replay_all(const char *const *names, const char *mode, const char *processes)
{
	for (names = system_soaks() ? test_traces_all : names; *names; names++)
		replay(*names, mode, processes);
}

Test(replay, one_process)
{
	replay_all(test_traces_all, "single", "1");
}

Test(replay, two_processes_at_once)
{
	replay_all(test_traces_all, "procs", "2");
}

Test(replay, four_processes_at_once)
{
	replay_all(test_traces_own, "procs", "4");
}

Test(replay, handed_over)
{
	replay_all(test_traces_all, "handover", "2");
}

/* Where the base address is taken, offsets are passed on. */
Test(replay, handed_over_between_different_addresses)
{
	struct test_daemon d;

	system_start(&d, NULL);
	const char *const argv[] = {"bench/replay", "-c", "--mode", "handover", "--elsewhere", "--json", "--socket",
	        d.socket, test_trace_path("jq-json"), NULL};
	char *said = NULL;

	cr_expect_eq(program_run(argv, &said), 0);
	cr_expect_not_null(strstr(said, "\"at_base\": false"), "%s", said);
	free(said);
	system_expect_empty(&d);
	system_end(&d);
}

Test(replay, with_the_traces_threads)
{
	static const char *const names[] = {"ffmpeg-x264", "redis-mixed", "mariadb-oltp", "git-pack", NULL};

	replay_all(names, "threads", "1");
}

Test(replay, eight_processes_at_once)
{
	static const char *const names[] = {"gs-png", NULL};

	replay_all(names, "procs", "8");
}

/* The heap is clean in the middle too, with a process that waits and another that runs. */
Test(replay, check_finds_nothing_during_a_run)
{
	static const char *const modes[] = {"single", "procs", "handover", "threads"};
	struct test_daemon d;

	system_start(&d, NULL);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		const char *const argv[] = {"bench/replay", "-c", "--mode", modes[i], "--pause-at", "300000",
		        "--socket", d.socket, test_trace_path("ffmpeg-x264"), NULL};
		char line[512] = "";
		int in, out;
		pid_t pid = program_start(argv, &in, &out);
		FILE *said = fdopen(out, "r");

		while (!strstr(line, "paused at event 300000"))
			cr_assert_not_null(
			        fgets(line, sizeof(line), said), "mode %s did not come to its pause", modes[i]);
		cr_expect_gt(test_ctl_stat(&d, "live_bytes"), 0);
		for (int look = 0; look < 3; look++)
			cr_expect_eq(test_ctl_check(&d), 0, "mode %s", modes[i]);
		cr_assert_eq(write(in, "\n", 1), 1);
		while (fgets(line, sizeof(line), said))
			;
		fclose(said);
		close(in);
		cr_expect_eq(child_join(pid), 0, "mode %s", modes[i]);
	}
	system_expect_empty(&d);
	system_end(&d);
}

/* Small objects are served from the threads' caches: less than one message in 1,000 events. */
Test(replay, a_message_serves_many_events)
{
	struct test_daemon d;

	system_start(&d, NULL);
	const char *const argv[] = {
	        "bench/replay", "--json", "-r", "1", "--socket", d.socket, test_trace_path("jq-json"), NULL};
	char *said = NULL;

	cr_assert_eq(program_run(argv, &said), 0);
	json_t *result = json_loads(said, 0, NULL);
	json_int_t events = json_integer_value(json_object_get(result, "events"));
	json_int_t messages = json_integer_value(json_object_get(result, "messages"));

	cr_expect_gt(messages, 0);
	cr_expect_lt(messages * 1000, events, "%lld messages for %lld events", messages, events);
	cr_expect_leq(json_real_value(json_object_get(result, "memory_ratio")), 1.35);
	json_decref(result);
	free(said);
	system_end(&d);
}
