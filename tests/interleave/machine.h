/* The inside of the explorer: coroutines and store buffers (machine.c), snapshots and the table of states (states.c). */
#ifndef TESTS_INTERLEAVE_MACHINE_H
#define TESTS_INTERLEAVE_MACHINE_H

#include "tests/interleave/explore.h"

/* ---- machine.c ---- */

extern const struct explore *machine_explore; /* what is being explored */
extern bool machine_active, machine_in_actor; /* exploring; on an actor's stack */
extern unsigned char machine_stack[ACTORS][STACK_BYTES];

void machine_must(bool ok, const char *what); /* of the test itself */
void machine_start(uint32_t actor);
void machine_resume(uint32_t actor); /* until it pauses */
void machine_to_explorer(void); /* pauses the calling actor */

/* The oldest store of an actor's buffer, or all, reach memory. */
void machine_drain(struct actor *a);
void machine_drain_all(struct actor *a);
bool machine_can_drain(uint32_t actor);

/* A read-modify-write of another actor has the word to itself. */
bool machine_reserved(uint64_t at, uint32_t but);

/* ---- states.c ---- */

struct states_seen {
	uint64_t key;
	double schedules; /* that go on from it; below 0: we came through here just now */
};

extern struct states_seen *states_table;
extern uint64_t states_room, states_used;

void states_begin(void);
size_t states_save(unsigned char *to); /* returns the length */
void states_restore(const unsigned char *from);
void states_forget(uint32_t owner); /* its regions are as they were at the start */
void states_look(void); /* fails if watched memory changed */
uint64_t states_key(void);
uint64_t states_find(uint64_t key); /* its place in the table */
void states_grow(void);

#endif
