/* A histogram of times: bucket b counts those of up to 2^b microseconds that are in no earlier one, the last bucket all longer
 * ones. An addition is a shift and two additions. */
#ifndef DAEMON_HISTOGRAM_H
#define DAEMON_HISTOGRAM_H

#include "proto/wire.h"

struct histogram {
	uint64_t bucket[WIRE_BUCKETS];
	uint64_t sum_us;
};

void histogram_add(struct histogram *histogram, uint64_t us);

#endif
