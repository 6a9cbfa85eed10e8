#include "daemon/histogram.h"

void histogram_add(struct histogram *histogram, uint64_t us)
{
	uint32_t b = us > 1 ? 64 - (uint32_t)__builtin_clzll(us - 1) : 0;

	histogram->bucket[b < WIRE_BUCKETS ? b : WIRE_BUCKETS - 1]++;
	histogram->sum_us += us;
}
