/* A process of a run: its tables, its players, its clock and its resident memory. */
#include "tests/bench/replay/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT (1u << 20) /* events between two looks at the terminal */

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* ---- resident memory ---- */

static uint64_t resident_at_begin;

/* A field of /proc/self/status in bytes, read without touching malloc. */
static uint64_t status_field(const char *name)
{
	char text[8192];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[got < 0 ? 0 : got] = 0;
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

void resident_begin(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t put = write(fd, "5", 1); /* VmHWM begins anew */

		(void)put;
		close(fd);
	}
	resident_at_begin = status_field("VmRSS:");
}

uint64_t resident_growth(void)
{
	uint64_t peak = status_field("VmHWM:");

	return peak > resident_at_begin ? peak - resident_at_begin : 0;
}

/* ---- a player ---- */

static void pause_here(uint64_t at)
{
	char byte;

	printf("paused at event %llu\n", (unsigned long long)at);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
		;
}

/* Calls play for [from, to) piece by piece. The first player shows how far it is and makes the pause. */
static void walk(struct player *p, play_fn *play, uint64_t from, uint64_t to, uint64_t pause_at)
{
	bool show = p->index == 0 && isatty(STDERR_FILENO), shown = false;
	uint64_t first = from;

	for (uint64_t end; from < to; from = end) {
		if (p->index == 0 && from == pause_at)
			pause_here(p->options->pause_at);
		end = to - from > SEGMENT ? from + SEGMENT : to;
		if (p->index == 0 && from < pause_at && pause_at < end)
			end = pause_at;
		play(p, from, end);
		if (show && to - first > 2 * SEGMENT) {
			fprintf(stderr, "\r%s: %3llu %%", p->trace->name,
			        (unsigned long long)((end - first) * 100 / (to - first)));
			shown = true;
		}
	}
	if (shown)
		fputs("\r\033[K", stderr);
}

static void play_file(const struct run *run, struct player *p)
{
	pthread_barrier_wait(&run->stage->start);
	p->out->begin_ns = now_ns();
	walk(p, run->engine->play, 0, p->trace->events, run->options->pause_at);
	p->out->end_ns = now_ns();
	p->out->freed_at_end = run->engine->free_rest(p);
}

static void play_thread(const struct run *run, struct player *p)
{
	const struct trace *trace = p->trace;
	uint64_t from = trace->first[p->index], to = trace->first[p->index + 1], pause_at = from;

	while (pause_at < to && trace->order[pause_at] < run->options->pause_at)
		pause_at++;
	pthread_barrier_wait(&run->stage->start);
	p->out->begin_ns = now_ns();
	walk(p, run->engine->play_list, from, to, pause_at);
	p->out->end_ns = now_ns();
}

/* The ring is there, and both sides have it, when the barrier opens for the second time. The consumer stops the clock. */
static void play_side(const struct run *run, struct player *p)
{
	uint64_t key = run->stage->key;
	bool producer = p->index == 0;

	if (producer && !(p->ring = run->engine->ring_make(key)))
		_exit(1);
	pthread_barrier_wait(&run->stage->start);
	if (!producer && !(p->ring = run->engine->ring_find(key)))
		_exit(1);
	pthread_barrier_wait(&run->stage->start);
	p->out->begin_ns = now_ns();
	if (producer) {
		walk(p, run->engine->produce, 0, p->trace->events, run->options->pause_at);
		run->engine->produce_end(p);
		p->out->end_ns = p->out->begin_ns;
	} else {
		run->engine->consume(p);
	}
	pthread_barrier_wait(&run->stage->start);
	if (producer)
		run->engine->ring_drop(p->ring, key);
}

struct seat {
	const struct run *run;
	struct player player;
	pthread_t thread;
};

static void *take_seat(void *arg)
{
	struct seat *seat = arg;

	switch (seat->run->options->mode) {
	case MODE_SINGLE:
	case MODE_PROCS:
		play_file(seat->run, &seat->player);
		break;
	case MODE_HANDOVER:
		play_side(seat->run, &seat->player);
		break;
	case MODE_THREADS:
		play_thread(seat->run, &seat->player);
		break;
	}
	return NULL;
}

/* ---- a process ---- */

/* Players share the tables, but for the sides of a hand-over: what one gave away is not the other's business. */
static void set_tables(const struct run *run, struct player *p, const struct player *shared)
{
	size_t ids = run->trace->ids;

	if (shared && run->options->mode != MODE_HANDOVER) {
		p->block = shared->block;
		p->size = shared->size;
		p->generation = shared->generation;
		p->done = shared->done;
		return;
	}
	p->block = pages_new(ids * sizeof(*p->block));
	p->size = pages_new(ids * sizeof(*p->size));
	p->generation = pages_new(ids * sizeof(*p->generation));
	p->done = pages_new(ids * sizeof(*p->done));
}

void process_main(const struct run *run, unsigned process)
{
	unsigned each = run->players_each;
	struct seat *seats = pages_new(each * sizeof(*seats));

	for (unsigned i = 0; i < each; i++) {
		unsigned index = process * each + i;

		seats[i].run = run;
		seats[i].player = (struct player){.trace = run->trace,
		        .options = run->options,
		        .out = &run->stage->out[index],
		        .care = run->care,
		        .index = index,
		        .salt = run->options->mode == MODE_PROCS ? index : 0};
		set_tables(run, &seats[i].player, i ? &seats[0].player : NULL);
	}
	if (!run->engine->open(run->options, process))
		_exit(1);
	for (unsigned i = 1; i < each; i++)
		if (pthread_create(&seats[i].thread, NULL, take_seat, &seats[i]) != 0) {
			fputs("replay: cannot make a thread\n", stderr);
			_exit(1);
		}
	take_seat(&seats[0]);
	for (unsigned i = 1; i < each; i++)
		pthread_join(seats[i].thread, NULL);
	if (run->options->mode == MODE_THREADS)
		seats[0].player.out->freed_at_end = run->engine->free_rest(&seats[0].player);
	run->engine->close(seats[0].player.out);
}
