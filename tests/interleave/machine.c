#include "tests/interleave/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Alignas(64) unsigned char machine_stack[ACTORS][STACK_BYTES];
struct actor explore_actor[ACTORS];
const struct explore *machine_explore;
bool machine_active, machine_in_actor;

static uint32_t self;
static void *explorer_sp, *actor_sp;

void machine_must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "tests/interleave: %s\n", what);
	abort();
}

/* ---- coroutines ---- */

#ifdef __x86_64__
void machine_switch(void **from, void *to);
__asm__(".text\n.globl machine_switch\n.hidden machine_switch\n.type machine_switch, @function\nmachine_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size machine_switch, .-machine_switch\n");
#else
void machine_switch(void **from, void *to)
{
	(void)from, (void)to;
	machine_must(false, "this processor's registers are not known here");
}
#endif

void machine_to_explorer(void)
{
	machine_in_actor = false;
	machine_switch(&actor_sp, explorer_sp);
	machine_in_actor = true;
}

static void actor_main(void)
{
	machine_explore->body(self);
	explore_actor[self].pending = AT_END;
	for (;;)
		machine_to_explorer();
}

void machine_start(uint32_t i)
{
	uint64_t *top = (uint64_t *)(void *)(machine_stack[i] + STACK_BYTES);

	memset(top - 16, 0, 16 * sizeof(*top));
	top[-2] = (uint64_t)(uintptr_t)actor_main; /* after it the stack is aligned as after a call */
	explore_actor[i].sp = STACK_BYTES - 8 * sizeof(*top);
	explore_actor[i].pending = AT_START;
	explore_actor[i].buffered = 0;
}

void machine_resume(uint32_t i)
{
	self = i;
	machine_in_actor = true;
	machine_switch(&explorer_sp, machine_stack[i] + explore_actor[i].sp);
	explore_actor[i].sp = (uint32_t)((unsigned char *)actor_sp - machine_stack[i]);
	machine_must(explore_actor[i].sp > STACK_BYTES / 4, "an actor's stack is too short");
	if (explore_actor[i].pending == AT_END)
		explore_actor[i].sp = 0;
}

/* ---- words and store buffers ---- */

static void poke(volatile void *at, unsigned size, uint64_t value)
{
	if (size == 2)
		*(volatile uint16_t *)at = (uint16_t)value;
	else if (size == 4)
		*(volatile uint32_t *)at = (uint32_t)value;
	else
		*(volatile uint64_t *)at = value;
}

void machine_drain(struct actor *a)
{
	poke((volatile void *)(uintptr_t)a->buffer[0].at, a->buffer[0].size, a->buffer[0].value);
	memmove(&a->buffer[0], &a->buffer[1], (BUFFER - 1) * sizeof(a->buffer[0]));
	memset(&a->buffer[BUFFER - 1], 0, sizeof(a->buffer[0]));
	a->buffered--;
}

void machine_drain_all(struct actor *a)
{
	while (a->buffered)
		machine_drain(a);
}

bool machine_reserved(uint64_t at, uint32_t but)
{
	for (uint32_t i = 0; i < machine_explore->actors; i++)
		for (uint32_t b = 0; i != but && b < explore_actor[i].buffered; b++)
			if (explore_actor[i].buffer[b].reserved && explore_actor[i].buffer[b].at == at)
				return true;
	return false;
}

bool machine_can_drain(uint32_t i)
{
	for (uint32_t b = 0; b < explore_actor[i].buffered; b++)
		if (machine_reserved(explore_actor[i].buffer[b].at, i))
			return false;
	return true;
}

static uint64_t see(const struct actor *a, const volatile void *at, unsigned size)
{
	for (uint32_t b = a->buffered; b-- > 0;)
		if (a->buffer[b].at == (uint64_t)(uintptr_t)at)
			return a->buffer[b].value;
	return explore_peek(at, size);
}

static void later(struct actor *a, volatile void *at, unsigned size, uint64_t value, bool reserve)
{
	if (a->buffered == BUFFER)
		machine_drain(a);
	a->buffer[a->buffered++] = (struct waiting){(uint64_t)(uintptr_t)at, value, (uint8_t)size, reserve};
}

/* ---- what the hooked code calls ---- */

static void pause_at(enum pending what, const volatile void *at, uint64_t value)
{
	struct actor *a = &explore_actor[self];

	a->pending = (uint8_t)what;
	a->at = (uint64_t)(uintptr_t)at;
	a->value = value;
	machine_to_explorer();
}

static bool may_die(void)
{
	return machine_explore->killable(explore_actor[self].client);
}

static void after(const volatile void *at)
{
	if (may_die())
		pause_at(AT_AFTER, at, 0);
}

uint64_t hook_load(const volatile void *at, unsigned size)
{
	if (!machine_active)
		return explore_peek(at, size);
	if (machine_explore->touch((uint64_t)(uintptr_t)at, true) == TOUCH_SHARED)
		pause_at(AT_LOAD, at, 0);
	return see(&explore_actor[self], at, size);
}

void hook_store(volatile void *at, unsigned size, uint64_t value)
{
	enum touch touch = machine_active ? machine_explore->touch((uint64_t)(uintptr_t)at, false) : TOUCH_PRIVATE;

	if (touch == TOUCH_PRIVATE) {
		poke(at, size, value);
		return;
	}
	if (touch == TOUCH_RECORD) {
		if (may_die())
			pause_at(AT_RECORD, at, value);
		poke(at, size, value);
	} else if (machine_explore->model == EXPLORE_SC) {
		pause_at(AT_STORE, at, value);
		poke(at, size, value);
	} else {
		later(&explore_actor[self], at, size, value, false);
	}
	after(at);
}

enum rmw { RMW_OR, RMW_AND, RMW_ADD, RMW_SWAP };

static uint64_t changed(enum rmw op, uint64_t old, uint64_t value, uint64_t expected)
{
	switch (op) {
	case RMW_OR:
		return old | value;
	case RMW_AND:
		return old & value;
	case RMW_ADD:
		return old + value;
	default:
		return old == expected ? value : old;
	}
}

static uint64_t modify(volatile void *at, unsigned size, uint64_t value, enum rmw op, uint64_t expected)
{
	enum touch touch = machine_active ? machine_explore->touch((uint64_t)(uintptr_t)at, false) : TOUCH_PRIVATE;
	struct actor *a = &explore_actor[self];

	if (touch != TOUCH_PRIVATE && (touch == TOUCH_SHARED || may_die()))
		pause_at(touch == TOUCH_SHARED ? AT_RMW : AT_RECORD, at, value);
	if (touch == TOUCH_SHARED && machine_explore->model == EXPLORE_TSO)
		machine_drain_all(a);
	uint64_t old = touch == TOUCH_SHARED ? see(a, at, size) : explore_peek(at, size);

	if (touch == TOUCH_SHARED && machine_explore->model == EXPLORE_WEAK)
		later(a, at, size, changed(op, old, value, expected), true);
	else
		poke(at, size, changed(op, old, value, expected));
	if (touch != TOUCH_PRIVATE)
		after(at);
	return old;
}

uint64_t hook_or(volatile void *at, unsigned size, uint64_t value)
{
	return modify(at, size, value, RMW_OR, 0);
}

uint64_t hook_and(volatile void *at, unsigned size, uint64_t value)
{
	return modify(at, size, value, RMW_AND, 0);
}

uint64_t hook_add(volatile void *at, unsigned size, uint64_t value)
{
	return modify(at, size, value, RMW_ADD, 0);
}

bool hook_swap(volatile void *at, unsigned size, uint64_t *expected, uint64_t value)
{
	uint64_t want = *expected, old = modify(at, size, value, RMW_SWAP, want);

	*expected = old;
	return old == want;
}

void hook_fence(void)
{
	if (!machine_active || !explore_actor[self].buffered)
		return;
	pause_at(AT_FENCE, NULL, 0);
	machine_drain_all(&explore_actor[self]);
}

uint32_t explore_self(void)
{
	return self;
}

bool explore_active(void)
{
	return machine_active;
}

uint32_t explore_wait(uint64_t what)
{
	hook_fence();
	pause_at(AT_WAIT, NULL, what);
	return explore_actor[self].choice;
}

void explore_point(uint64_t what)
{
	if (machine_active && may_die())
		pause_at(AT_RECORD, NULL, what);
}
