/* A holder that takes every slot the moment it is put.
 *
 * While the daemon puts back what the dead had of others' spans, their holders run, and may take a slot and give it out between
 * one instruction of the reclaim and the next; if the reclaim then puts it once more, a live block is free. Between greedy_start
 * and greedy_stop the bitmaps are write-protected: each store to one faults, is let through alone (trap flag), and what it has
 * put into another client's span is taken at once and is a live block for the oracle.
 */
#ifndef TESTS_STRESS_STEPPING_GREEDY_H
#define TESTS_STRESS_STEPPING_GREEDY_H

#include "tests/stress/stepping/oracle.h"

void greedy_start(struct oracle *o);

/* Returns how many slots were taken. *twice: the offset of one that was put although it was taken already, or 0. */
uint32_t greedy_stop(uint64_t *twice);

#endif
