#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define RUNS 3

uint32_t sizes[SIZES];

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void say(const char *name, double value, const char *unit)
{
	printf("%s %.3f %s\n", name, value, unit);
	fflush(stdout);
}

void give_up(const char *why)
{
	fprintf(stderr, "micro: %s\n", why);
	exit(1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof(*values), by_value);
	return values[n / 2];
}

static double timed(loop_fn *loop, void *arg, long n)
{
	int64_t begin = now_ns();

	loop(arg, n);
	return (double)(now_ns() - begin);
}

double ns_per_op(loop_fn *loop, void *arg, int run_ms)
{
	double result[RUNS];
	long n = 16;

	/* the slowest peers take 100 us for one operation, the fastest 3 ns; finding out makes warm */
	while (timed(loop, arg, n) < run_ms * 1e6)
		n *= 2;
	for (int i = 0; i < RUNS; i++)
		result[i] = timed(loop, arg, n) / (double)n;
	return median(result, RUNS);
}

__attribute__((noinline)) void instructions_mark(void)
{
	__asm__ volatile("");
}

void count_instructions(const char *name, loop_fn *loop, void *arg)
{
	loop(arg, 1000);
	instructions_mark();
	loop(arg, 1000);
	instructions_mark();
	loop(arg, 2000);
	instructions_mark();
	printf("%s\n", name);
}

/* By power of two, in ten-thousandths. */
static const struct {
	uint32_t from, share;
} mix[] = {{8, 1400}, {16, 2600}, {32, 2600}, {64, 1600}, {128, 900}, {256, 500}, {512, 250}, {1024, 100}, {2048, 30},
        {4096, 15}, {8192, 5}};

#define MIXES (sizeof(mix) / sizeof(mix[0]))

void sizes_init(void)
{
	uint64_t random = 20;

	for (uint32_t i = 0; i < SIZES; i++) {
		uint32_t draw = (uint32_t)(next_random(&random) >> 32) % 10000, m = 0;

		for (; m < MIXES - 1 && draw >= mix[m].share; m++)
			draw -= mix[m].share;
		sizes[i] = mix[m].from + (uint32_t)(next_random(&random) >> 32) % mix[m].from;
	}
}

void *pages_new(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		give_up("no memory for the benchmark itself");
	memset(pages, 0, bytes);
	return pages;
}
