/* One-shot timers on the loop. */
#ifndef DAEMON_TIMER_H
#define DAEMON_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct event;
struct event_base;

struct timer {
	struct event *event;
	void (*fire)(void *ctx);
	void *ctx;
};

/* Returns 0 or -ENOMEM. */
int timer_init(struct timer *timer, struct event_base *base, void (*fire)(void *ctx), void *ctx);
void timer_deinit(struct timer *timer);

/* Fires once in `ms`, counted from now; 0: in the next turn of the loop. */
void timer_start(struct timer *timer, int ms);
void timer_stop(struct timer *timer);

/* CLOCK_MONOTONIC. */
uint64_t timer_now_ms(void);
uint64_t timer_now_us(void);

#endif
