#include "daemon/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum config_result parse(struct config *config, const char *a, const char *b)
{
	const char *argv[] = {"shmallocd", a, b, NULL};

	return config_parse(config, !a ? 1 : !b ? 2 : 3, (char **)(uintptr_t)argv);
}

Test(config, sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} sizes[] = {
	        {"1", 1},
	        {"4096", 4096},
	        {"64KiB", 64 << 10},
	        {"3MiB", 3 << 20},
	        {"4GiB", 4ull << 30},
	        {"2TiB", 2ull << 40},
	        {"18446744073709551615", UINT64_MAX},
	        {"16777215TiB", 16777215ull << 40},
	        {"16777216TiB", 0}, /* 2^64 */
	        {"18446744073709551616", 0},
	        {"99999999999999999999999GiB", 0},
	        {"", 0},
	        {"GiB", 0},
	        {"-1", 0},
	        {"+1", 0},
	        {" 1", 0},
	        {"1 GiB", 0},
	        {"1gib", 0},
	        {"1GB", 0},
	        {"1G", 0},
	        {"0x10", 0},
	        {"1.5GiB", 0},
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t bytes = 0;
		bool good = config_parse_size(sizes[i].text, &bytes);

		cr_assert_eq(good, sizes[i].bytes != 0, "'%s'", sizes[i].text);
		if (good)
			cr_assert_eq(bytes, sizes[i].bytes, "'%s'", sizes[i].text);
	}
}

Test(config, defaults)
{
	static struct config config;
	char instance[64];

	unsetenv("RUNTIME_DIRECTORY");
	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	snprintf(instance, sizeof(instance), "u%u", (unsigned)geteuid());
	cr_assert_str_eq(config.instance, geteuid() ? instance : "system");
	cr_assert_str_eq(config.heap[0].name, "default");
	cr_assert_eq(config.heap[0].size, CONFIG_SIZE_DEFAULT);
	cr_assert_eq(config.heap[0].client.hard, 0);
	cr_assert_eq(config.socket_mode, 0660);
	cr_assert_not(config.heap[0].reset);
	if (!geteuid())
		cr_assert_str_eq(config.socket, "/run/shmalloc/shmalloc.sock");
	cr_assert(config.dir_mode);
}

Test(config, socket_of_the_service_manager)
{
	static struct config config;

	setenv("RUNTIME_DIRECTORY", "/run/here:/run/there", 1);
	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_assert_str_eq(config.socket, "/run/here/shmalloc.sock");
	cr_assert_eq(config.dir_mode, 0, "the service manager has made it");
}

Test(config, options)
{
	static struct config config;
	const char *argv[] = {"shmallocd", "--socket", "/x/y", "--instance=i-1", "--heap", "h_2", "--size", "64MiB",
	        "--client-limit", "8MiB", "--user-limit", "16MiB", "--scavenge-delay", "250", "--log-level", "debug",
	        "--reset", "--socket-mode", "600"};

	cr_assert_eq(config_parse(&config, sizeof(argv) / sizeof(argv[0]), (char **)(uintptr_t)argv), CONFIG_RUN);
	cr_assert_str_eq(config.socket, "/x/y");
	cr_assert_eq(config.dir_mode, 0);
	cr_assert_str_eq(config.instance, "i-1");
	cr_assert_str_eq(config.heap[0].name, "h_2");
	cr_assert_eq(config.heap[0].size, 64u << 20);
	cr_assert_eq(config.heap[0].client.hard, 8u << 20);
	cr_assert_eq(config.heap[0].user.hard, 16u << 20);
	cr_assert_eq(config.heap[0].scavenge_delay_ms, 250);
	cr_assert_eq(config.log_level, LEVEL_DEBUG);
	cr_assert(config.heap[0].reset);
	cr_assert_eq(config.socket_mode, 0600);
}

Test(config, bad_input_gives_a_sentence)
{
	static const struct {
		const char *a, *b, *said;
	} cases[] = {
	        {"--size", "lots", "--size: 'lots' is not a size"},
	        {"--size", "4GB", "--size: '4GB' is not a size"},
	        {"--size", "1KiB", "not between"},
	        {"--size", "3TiB", "not between"},
	        {"--size", "99999999999999999999", "not a size"},
	        {"--size", NULL, "--size needs a value"},
	        {"--instance", "a/b", "--instance: 'a/b' is not a name"},
	        {"--instance", "..", "is not a name"},
	        {"--instance", "", "is not a name"},
	        {"--heap", "0123456789012345678901234567890123456789012345678", "is not a name"},
	        {"--log-level", "loud", "'loud' is not one of"},
	        {"--scavenge-delay", "1d", "not a time"},
	        {"--scavenge-delay", "-1", "not a time"},
	        {"--scavenge-delay", "99999999999", "not a time"},
	        {"--client-limit", "x", "--client-limit: 'x'"},
	        {"--user-limit", "", "--user-limit: ''"},
	        {"--socket", "", "--socket: a path has"},
	        {"--socket-mode", "999", "'999' is not a file mode"},
	        {"--nonsense", NULL, "there is no option --nonsense"},
	        {"-x", NULL, "there is no option -x"},
	        {"-xy", NULL, "there is no option -x;"},
	        {"--version=1", NULL, "there is no option --version=1"},
	        {"word", NULL, "'word' is not an option"},
	};
	static struct config config;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(&config, cases[i].a, cases[i].b), CONFIG_BAD, "%s %s", cases[i].a, cases[i].b);
		cr_assert(
		        strstr(config.fault[0], cases[i].said), "%s %s: '%s'", cases[i].a, cases[i].b, config.fault[0]);
	}
}

/* A limit beyond what a heap can have is none; the count of its pages must not wrap to a small one. */
Test(config, limits_beyond_any_heap)
{
	static struct config config;

	cr_assert_eq(parse(&config, "--client-limit", "33TiB"), CONFIG_RUN);
	cr_assert_eq(config.heap[0].client.hard, CONFIG_SIZE_MAX);
	cr_assert_eq(parse(&config, "--user-limit", "32TiB"), CONFIG_RUN);
	cr_assert_eq(config.heap[0].user.hard, CONFIG_SIZE_MAX);
}

Test(config, too_long_a_socket)
{
	static struct config config;
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	cr_assert_eq(parse(&config, "--socket", path), CONFIG_BAD);
}
