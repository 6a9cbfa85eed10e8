/* An input, read from its front; at its end all is zero. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct input {
	const unsigned char *at;
	size_t left;
};

static inline uint32_t input_byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static inline uint32_t input_word(struct input *in)
{
	uint32_t v = input_byte(in);

	return v | input_byte(in) << 8;
}

static inline uint64_t input_long(struct input *in)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 64; i += 8)
		v |= (uint64_t)input_byte(in) << i;
	return v;
}

/* Up to `most` bytes. */
static inline const unsigned char *input_bytes(struct input *in, size_t most, size_t *len)
{
	const unsigned char *at = in->at;

	*len = most < in->left ? most : in->left;
	in->at += *len;
	in->left -= *len;
	return at;
}

static inline void input_insist(const char *wrong)
{
	if (!wrong)
		return;
	fprintf(stderr, "%s\n", wrong);
	abort();
}

#endif
