/* `shmallocctl top`: the loop around feed, model and screen.
 *
 * It waits in one poll for keys, for the daemon's answer, for signals (as a descriptor) and for the next look, whichever comes first.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/heapmap.h"
#include "client/ctl/top/feed.h"
#include "client/ctl/top/frame.h"
#include "client/ctl/top/keys.h"
#include "client/ctl/top/screen.h"
#include "proto/chan.h"
#include "proto/fd.h"

#define NS_PER_MS 1000000ll
#define FRAMES_MOST 1000000000ul
#define INTERVAL_MS 1000u

struct top {
	struct ctl *ctl;
	struct top_feed feed;
	struct top_model model;
	struct top_screen screen;
	int signals; /* descriptor */
	int64_t next_ns; /* when the next look begins */
	uint64_t frames; /* still to be printed; 0: there is a screen */
	int signal; /* that ends us, or 0 */
	int status;
};

/* ---- options ---- */

static int set_interval(struct ctl *ctl, uint32_t *ms)
{
	char *end;
	double seconds;

	*ms = INTERVAL_MS;
	if (!ctl->interval)
		return CTL_OK;
	seconds = strtod(ctl->interval, &end);
	if (end == ctl->interval || *end || !(seconds >= 0.1 && seconds <= 3600))
		return ctl_fail(ctl, CTL_USAGE, "--interval is 0.1 to 3600 seconds, not '%s'", ctl->interval);
	*ms = (uint32_t)(seconds * 1000 + 0.5);
	return CTL_OK;
}

static int set_frames(struct ctl *ctl, uint64_t *frames)
{
	char *end;

	*frames = 0;
	if (!ctl->frames)
		return CTL_OK;
	*frames = strtoul(ctl->frames, &end, 10);
	if (*ctl->frames < '0' || *ctl->frames > '9' || *end || !*frames || *frames > FRAMES_MOST)
		return ctl_fail(ctl, CTL_USAGE, "--frames is a number from 1, not '%s'", ctl->frames);
	return CTL_OK;
}

static int set_options(struct top *top)
{
	struct ctl *ctl = top->ctl;
	int status = set_interval(ctl, &top->screen.interval_ms);

	if (status == CTL_OK)
		status = set_frames(ctl, &top->frames);
	top->model.sort = ctl->sort ? top_sort_find(ctl->sort) : TOP_HELD;
	top->model.reverse = ctl->reverse;
	if (status == CTL_OK && top->model.sort == TOP_SORTS)
		return ctl_fail(ctl, CTL_USAGE, "--sort is held, rate, idle, name or pid, not '%s'", ctl->sort);
	return status;
}

/* ---- looks ---- */

static int no_memory(struct top *top)
{
	top_screen_close(&top->screen);
	return ctl_fail(top->ctl, CTL_FAILED, "there is no memory");
}

/* The feed is away, or is not any more. Text without a screen ends then: a script is to know. */
static void note_absence(struct top *top)
{
	bool away = top->feed.phase == TOP_AWAY;
	time_t now = time(NULL);
	struct tm tm;

	if (away && top->frames)
		top->status = ctl_fail(
		        top->ctl, CTL_UNREACHABLE, "the daemon at %s is away: %s", top->ctl->socket, top->feed.why);
	if (away && !top->screen.away && localtime_r(&now, &tm))
		strftime(top->screen.away_since, sizeof(top->screen.away_since), "%H:%M:%S", &tm);
	if (away)
		top->screen.away = top->feed.why;
	else if (top->feed.phase == TOP_IDLING)
		top->screen.away = NULL;
}

/* The first look has no rates, and is not printed. */
static void print_frame(struct top *top, bool first)
{
	struct ctl_paper paper = ctl_paper_of(top->ctl->out);

	if (first)
		return;
	top_print(&top->model, top->ctl->heap, paper.columns, top->ctl->out);
	if (fflush(top->ctl->out) != 0) /* run_command says so */
		top->frames = 1;
	if (--top->frames)
		fputc('\n', top->ctl->out);
	else
		top->screen.leave = true;
}

static void take_answer(struct top *top)
{
	int64_t now = shmi_chan_now_ns();
	bool first = !top->model.looked;

	if (top_feed_read(&top->feed, now)) {
		if (!top_model_look(&top->model, &top->feed.stats, &top->feed.rows, now))
			top->status = no_memory(top);
		else if (top->frames)
			print_frame(top, first);
	}
	note_absence(top);
}

static void take_time(struct top *top)
{
	int64_t now = shmi_chan_now_ns();

	top_feed_expire(&top->feed, now);
	if (now >= top->next_ns && !top->screen.paused) {
		top_feed_begin(&top->feed, now);
		top->next_ns += (int64_t)top->screen.interval_ms * NS_PER_MS;
		if (top->next_ns <= now)
			top->next_ns = now + (int64_t)top->screen.interval_ms * NS_PER_MS;
	}
	note_absence(top);
}

/* ---- the loop ---- */

/* The signals that end the program, and the one that says that the terminal has another size, come as bytes of a descriptor. */
static int catch_signals(sigset_t *before)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, before);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void take_signals(struct top *top)
{
	struct signalfd_siginfo info;

	while (read(top->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGWINCH && !top->frames)
			top_screen_resize();
		else if (info.ssi_signo != SIGWINCH)
			top->signal = (int)info.ssi_signo;
	}
}

static int wait_ms(const struct top *top)
{
	int64_t until = top->screen.paused ? INT64_MAX : top->next_ns, now = shmi_chan_now_ns();

	if (top_feed_busy(&top->feed) && top->feed.deadline_ns < until)
		until = top->feed.deadline_ns;
	if (until == INT64_MAX)
		return -1;
	return until <= now ? 0 : (int)((until - now + NS_PER_MS - 1) / NS_PER_MS);
}

static void take_keys(struct top *top, short events)
{
	uint32_t interval = top->screen.interval_ms;

	if (!top_screen_keys(&top->screen, &top->model))
		top->status = no_memory(top);
	if (top->screen.interval_ms != interval) /* the new one begins now */
		top->next_ns = shmi_chan_now_ns() + (int64_t)top->screen.interval_ms * NS_PER_MS;
	if (events & (POLLHUP | POLLERR | POLLNVAL)) /* the terminal is gone */
		top->screen.leave = true;
}

static void loop(struct top *top)
{
	top->next_ns = shmi_chan_now_ns();
	while (!top->screen.leave && !top->signal && top->status == CTL_OK) {
		take_time(top);
		if (!top->frames)
			top_screen_draw(&top->screen, &top->model);
		if (top->status != CTL_OK)
			break;
		struct pollfd fds[] = {{.fd = top->signals, .events = POLLIN},
		        {.fd = top_feed_busy(&top->feed) ? top->feed.sock : -1, .events = POLLIN},
		        {.fd = top->frames ? -1 : STDIN_FILENO, .events = POLLIN}};

		if (poll(fds, 3, wait_ms(top)) < 0 && errno != EINTR) {
			top->status = ctl_fail(top->ctl, CTL_FAILED, "cannot wait: %s", strerror(errno));
			break;
		}
		if (fds[0].revents)
			take_signals(top);
		if (fds[1].revents)
			take_answer(top);
		if (fds[2].revents || (!fds[0].revents && !fds[1].revents && !top->frames))
			take_keys(top, fds[2].revents);
	}
}

static int run_loop(struct top *top)
{
	sigset_t before;
	const char *wrong = NULL;

	top->signals = catch_signals(&before);
	if (top->signals < 0 || !top_feed_init(&top->feed, top->ctl))
		top->status = no_memory(top);
	else if (!top->frames)
		wrong = top_screen_open(&top->screen, top->ctl->out, stdin);
	if (wrong)
		top->status = ctl_fail(top->ctl, CTL_USAGE, "%s", wrong);
	else if (top->status == CTL_OK)
		loop(top);
	top_screen_close(&top->screen);
	top_feed_deinit(&top->feed);
	top_model_deinit(&top->model);
	shmi_fd_close(&top->signals);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (top->signal) /* now that the terminal is as it was: end as it ends others */
		raise(top->signal);
	return top->status;
}

static int run(struct ctl *ctl)
{
	struct top top = {.ctl = ctl,
	        .model = {.selected = TOP_NOBODY},
	        .screen = {.heap = ctl->heap},
	        .signals = -1,
	        .feed = {.sock = -1}};
	const struct wire_msg *reply;
	int status = set_options(&top);

	/* Who begins without a daemon, or with the name of a heap that is not there, is told so at once. */
	if (status == CTL_OK)
		status = ctl_query(ctl, WIRE_Q_STATS, 0, WIRE_STATS, &reply);
	ctl_hang_up(ctl);
	return status == CTL_OK ? run_loop(&top) : status;
}

const struct ctl_command ctl_top = {.name = "top",
        .summary = "clients by what they hold, ask for and leave idle, live",
        .help = "A screen that is drawn anew every second: '?' shows its keys. GRANTED/s are the bytes of spans that a "
                "client\n"
                "was given per second, IDLE what it has cached and what is free inside its spans. If the daemon goes "
                "away, the\n"
                "last rows stay until it is back. With --once or --frames the same is printed as text: the first look "
                "comes after\n"
                "one interval, so that there are rates.",
        .options = CTL_OPT_TOP | CTL_OPT_SORT,
        .sorts = "held|rate|idle|name|pid",
        .formats = "text",
        .run = run};
