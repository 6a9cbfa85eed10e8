#include "daemon/timer.h"

#include <errno.h>
#include <time.h>

#include <event2/event.h>

static void on_event(evutil_socket_t fd, short what, void *ctx)
{
	struct timer *timer = ctx;

	(void)fd;
	(void)what;
	timer->fire(timer->ctx);
}

int timer_init(struct timer *timer, struct event_base *base, void (*fire)(void *ctx), void *ctx)
{
	*timer = (struct timer){.fire = fire, .ctx = ctx, .event = event_new(base, -1, 0, on_event, timer)};
	return timer->event ? 0 : -ENOMEM;
}

void timer_deinit(struct timer *timer)
{
	if (timer->event)
		event_free(timer->event);
	timer->event = NULL;
}

void timer_start(struct timer *timer, int ms)
{
	const struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	event_add(timer->event, &delay);
}

void timer_stop(struct timer *timer)
{
	event_del(timer->event);
}

uint64_t timer_now_us(void)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t timer_now_ms(void)
{
	return timer_now_us() / 1000;
}
