#include "daemon/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/settings.h"
#include "tests/lib/daemon.h"

static char dir[64], file[96];

/* Without the environment that the tests run in, and without the file of the machine. */
static void begin(void)
{
	extern char **environ;

	for (char **variable = environ; *variable;)
		if (strncmp(*variable, "SHMALLOCD_", 10) == 0) {
			char name[64];

			snprintf(name, sizeof(name), "%.*s", (int)strcspn(*variable, "="), *variable);
			unsetenv(name);
		} else {
			variable++;
		}
	unsetenv("RUNTIME_DIRECTORY");
	snprintf(dir, sizeof(dir), "/tmp/shmalloc-config.XXXXXX");
	cr_assert(mkdtemp(dir) != NULL);
	snprintf(file, sizeof(file), "%s/conf", dir);
	setenv("SHMALLOCD_CONFIG", "/dev/null", 1);
}

static void end(void)
{
	unlink(file);
	rmdir(dir);
}

TestSuite(config, .init = begin, .fini = end);

static void write_file(const char *text)
{
	FILE *out = fopen(file, "we");

	cr_assert(out && fputs(text, out) >= 0 && fclose(out) == 0);
	setenv("SHMALLOCD_CONFIG", file, 1);
}

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

/* Clients pass over a directory that is not this user's alone (tests/client/test_sockpath.c), and so does the daemon. */
Test(config, socket_in_the_runtime_directory)
{
	static struct config config;
	char mine[] = "/tmp/config-XXXXXX", below[64], other[64], longer[128];

	if (!geteuid()) /* whose daemon listens below /run */
		cr_assert_eq(seteuid(65534), 0);
	cr_assert_not_null(mkdtemp(mine));
	snprintf(below, sizeof(below), "%s/shmalloc/shmalloc.sock", mine);
	snprintf(other, sizeof(other), "/tmp/shmalloc-%u/shmalloc.sock", (unsigned)geteuid());
	unsetenv("RUNTIME_DIRECTORY");
	setenv("XDG_RUNTIME_DIR", mine, 1);
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_expect_str_eq(config.socket, below);
	cr_expect_eq(config.dir_mode, 0700);
	chmod(mine, 0770);
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_expect_str_eq(config.socket, other);
	setenv("XDG_RUNTIME_DIR", "/", 1); /* another's */
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_expect_str_eq(config.socket, other);

	snprintf(longer, sizeof(longer), "%s/%080d", mine, 0);
	mkdir(longer, 0700);
	setenv("XDG_RUNTIME_DIR", longer, 1);
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_expect_str_eq(config.socket, other);
	rmdir(longer);
	rmdir(mine);
	cr_expect_eq(seteuid(getuid()), 0);
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

Test(config, where_http_is)
{
	static const char *const good[] = {
	        "127.0.0.1:9779", "127.9.9.9:0", "[::1]:65535", "/run/shmalloc/http.sock", "off"};
	static struct config config;
	const char *remote[] = {"shmallocd", "--http-remote", "--http", "0.0.0.0:80"};

	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	cr_assert_str_eq(config.http, "");
	cr_assert_eq(config.http_mode, 0660);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		cr_assert_eq(parse(&config, "--http", good[i]), CONFIG_RUN, "%s", config.fault[0]);
		cr_assert_str_eq(config.http, i == 4 ? "" : good[i]);
		cr_assert_not(config.http_remote);
	}
	cr_assert_eq(config_parse(&config, 4, (char **)(uintptr_t)remote), CONFIG_RUN);
	cr_assert(config.http_remote);
	cr_assert_str_eq(config.http, "0.0.0.0:80");
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
	        {"--http", "localhost:80", "--http: 'localhost:80' is not 127.0.0.1:PORT"},
	        {"--http", "127.0.0.1", "is not 127.0.0.1:PORT"},
	        {"--http", "127.0.0.1:65536", "is not 127.0.0.1:PORT"},
	        {"--http", "127.0.0.1:", "is not 127.0.0.1:PORT"},
	        {"--http", "127.0.0.1:8o", "is not 127.0.0.1:PORT"},
	        {"--http", "::1:80", "is not 127.0.0.1:PORT"},
	        {"--http", "[::1]", "is not 127.0.0.1:PORT"},
	        {"--http", "[127.0.0.1]:80", "is not 127.0.0.1:PORT"},
	        {"--http", "http.sock", "is not 127.0.0.1:PORT"},
	        {"--http", "", "is not 127.0.0.1:PORT"},
	        {"--http", "0.0.0.0:80", "--http: other machines could reach 0.0.0.0:80"},
	        {"--http", "[::]:80", "other machines could reach"},
	        {"--http", "10.1.2.3:80", "other machines could reach"},
	        {"--http-mode", "rw", "'rw' is not a file mode"},
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

Test(config, durations)
{
	static const struct {
		const char *text;
		bool good;
		uint64_t ms;
	} times[] = {{"0", true, 0}, {"250", true, 250}, {"250ms", true, 250}, {"5s", true, 5000},
	        {"2min", true, 120000}, {"1h", true, 3600000}, {"18446744073709551615", true, UINT64_MAX},
	        {"18446744073709551615s", false, 0}, {"", false, 0}, {"s", false, 0}, {"5 s", false, 0},
	        {"5m", false, 0}, {"1d", false, 0}, {"-1s", false, 0}, {"1.5s", false, 0}, {"5sec", false, 0}};

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		uint64_t ms = 0;

		cr_expect_eq(config_parse_duration(times[i].text, &ms), times[i].good, "'%s'", times[i].text);
		cr_expect_eq(ms, times[i].ms, "'%s'", times[i].text);
	}
}

/* ---- the layers ---- */

/* Each setting, a value for each layer and how it is printed; NULL: as it is given. */
static const struct {
	const char *name;
	bool of_heap;
	const char *built_in, *value[3]; /* file, environment, command line */
	const char *printed[3];
} layers[] = {
        {"socket", false, NULL, {"/a/b c", "/d", "/e"}, {NULL}},
        {"socket-mode", false, "0660", {"600", "0644", "666"}, {"0600", "0644", "0666"}},
        {"instance", false, NULL, {"i1", "i2", "i3"}, {NULL}},
        {"log-level", false, "info", {"error", "warn", "debug"}, {NULL}},
        {"http", false, "off", {"127.0.0.1:1", "[::1]:2", "/h"}, {NULL}},
        {"http-mode", false, "0660", {"600", "0644", "666"}, {"0600", "0644", "0666"}},
        {"size", true, "4GiB", {"1024MiB", "1025MiB", "2TiB"}, {"1GiB", "1025MiB", "2TiB"}},
        {"backing", true, "shm", {"memfd", "shm", "memfd"}, {NULL}},
        {"allowed-users", true, "", {"root, 7", "0 0 8", ""}, {"0 7", "0 8", ""}},
        {"allowed-groups", true, "", {"root", "4294967294", "1,2  3"}, {"0", "4294967294", "1 2 3"}},
        {"client-limit", true, "0", {"1GiB", "1025KiB", "33TiB"}, {"1GiB", "1025KiB", "2TiB"}},
        {"client-soft-limit", true, "0", {"1", "4096", "1MiB"}, {"1", "4KiB", "1MiB"}},
        {"client-guarantee", true, "0", {"1KiB", "2KiB", "3KiB"}, {NULL}},
        {"user-limit", true, "0", {"5GiB", "6GiB", "7GiB"}, {NULL}},
        {"user-soft-limit", true, "0", {"1GiB", "2GiB", "0"}, {NULL}},
        {"user-guarantee", true, "0", {"1MiB", "2MiB", "0MiB"}, {"1MiB", "2MiB", "0"}},
        {"soft-limit", true, "0", {"3MiB", "2MiB", "1MiB"}, {NULL}},
        {"scavenge-delay", true, "5s", {"1000ms", "90s", "24h"}, {"1s", "90s", "24h"}},
        {"scavenge-rate", true, "100MiB", {"2MiB", "1GiB", "2048MiB"}, {"2MiB", "1GiB", "2GiB"}},
        {"huge-pages", true, "never", {"always", "within_size", "advise"}, {NULL}},
};

#define LAYERS (sizeof(layers) / sizeof(layers[0]))

static const char *value_of(struct config *config, size_t i)
{
	static struct setting_text text;
	const struct setting *setting = setting_of(layers[i].name, strlen(layers[i].name));

	cr_assert(setting != NULL, "%s", layers[i].name);
	text = setting_print(setting, config, &config->heap[0]);
	return text.text;
}

static void expect_layer(struct config *config, size_t i, int layer)
{
	const char *want = layer < 0 ? layers[i].built_in : layers[i].printed[layer];
	const struct setting *setting = setting_of(layers[i].name, strlen(layers[i].name));

	if (layer >= 0 && !want)
		want = layers[i].value[layer];
	if (want)
		cr_expect_str_eq(
		        value_of(config, i), want, "%s in layer %d: %s", layers[i].name, layer, value_of(config, i));
	cr_expect_eq(setting_origin(setting, config, &config->heap[0])->layer, layer + 1, "%s", layers[i].name);
}

Test(config, every_setting_from_every_layer)
{
	static struct config config;

	for (size_t i = 0; i < LAYERS; i++) {
		char text[256], option[64];
		const char *argv[] = {"shmallocd", option, layers[i].value[2]};
		struct setting_text variable = setting_variable(layers[i].name);

		setenv("SHMALLOCD_CONFIG", "/dev/null", 1);
		cr_assert_eq(config_parse(&config, 1, (char **)(uintptr_t)argv), CONFIG_RUN);
		expect_layer(&config, i, -1);
		snprintf(text, sizeof(text), "\n[%s]\n%s = %s\n", layers[i].of_heap ? "heap default" : "daemon",
		        layers[i].name, layers[i].value[0]);
		write_file(text);
		cr_assert_eq(config_parse(&config, 1, (char **)(uintptr_t)argv), CONFIG_RUN, "%s", config.fault[0]);
		expect_layer(&config, i, 0);
		setenv(variable.text, layers[i].value[1], 1);
		cr_assert_eq(config_parse(&config, 1, (char **)(uintptr_t)argv), CONFIG_RUN, "%s", config.fault[0]);
		expect_layer(&config, i, 1);
		snprintf(option, sizeof(option), "--%s", layers[i].name);
		cr_assert_eq(config_parse(&config, 3, (char **)(uintptr_t)argv), CONFIG_RUN, "%s", config.fault[0]);
		expect_layer(&config, i, 2);
		cr_assert_eq(config.heaps, 1);
		unsetenv(variable.text);
	}
	/* None is missing above; --reset is the command line's alone. */
	cr_assert_eq(n_settings, LAYERS + 2);
}

Test(config, which_heaps_there_are)
{
	static struct config config;
	const char *argv[] = {"shmallocd", "--user-limit", "7MiB", "--heap", "b", "--user-limit", "8MiB", "--heap", "c",
	        "--reset", "--heap", "b", "--size", "2MiB"};

	write_file("[heap a]\nsize = 3MiB\n[heap b]\n");
	setenv("SHMALLOCD_HEAP", "d", 1);
	setenv("SHMALLOCD_CLIENT_LIMIT", "6MiB", 1);
	cr_assert_eq(config_parse(&config, sizeof(argv) / sizeof(argv[0]), (char **)(uintptr_t)argv), CONFIG_RUN, "%s",
	        config.fault[0]);
	static const struct {
		const char *name;
		uint64_t size, user_limit;
		bool reset;
	} want[] = {{"a", 3 << 20, 7 << 20, false}, {"b", 2 << 20, 8 << 20, false},
	        {"d", CONFIG_SIZE_DEFAULT, 7 << 20, false}, {"c", CONFIG_SIZE_DEFAULT, 7 << 20, true}};

	cr_assert_eq(config.heaps, 4);
	for (int i = 0; i < 4; i++) {
		cr_expect_str_eq(config.heap[i].name, want[i].name);
		cr_expect_eq(config.heap[i].size, want[i].size, "%s", want[i].name);
		cr_expect_eq(config.heap[i].user.hard, want[i].user_limit, "%s", want[i].name);
		cr_expect_eq(config.heap[i].client.hard, 6 << 20, "%s", want[i].name);
		cr_expect_eq(config.heap[i].reset, want[i].reset, "%s", want[i].name);
	}
	cr_expect_eq(config_heap_of(&config, "d"), &config.heap[2]);
	cr_expect_null(config_heap_of(&config, "default"));
}

Test(config, limits_in_pages)
{
	static struct config config;

	write_file(
	        "[heap h]\nclient-limit = 16KiB\nclient-soft-limit = 8193\nclient-guarantee = 8KiB\nuser-limit = 1MiB\n"
	        "user-soft-limit = 512KiB\nuser-guarantee = 0\nsoft-limit = 2GiB\n");
	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN, "%s", config.fault[0]);
	struct limits limits = config_limits(&config.heap[0]);

	cr_expect_eq(limits.client.hard, 2);
	cr_expect_eq(limits.client.soft, 2);
	cr_expect_eq(limits.client.guaranteed, 1);
	cr_expect_eq(limits.user.hard, 128);
	cr_expect_eq(limits.user.soft, 64);
	cr_expect_eq(limits.user.guaranteed, 0);
	cr_expect_eq(limits.heap_soft, 262144);
}

/* ---- faults ---- */

Test(config, faults_of_the_file)
{
	static const struct {
		const char *text, *fault; /* after the name of the file */
	} cases[] = {
	        {"[deamon]\n", ":1: there is no section [deamon]; allowed are [daemon] and [heap NAME]"},
	        {"[daemon]\n\n[daemon]\n", ":3: section [daemon] has begun in line 1 already; it is allowed once"},
	        {"[heap a]\n[heap b]\n[heap a]\n",
	                ":3: section [heap a] has begun in line 1 already; each heap is allowed once"},
	        {"[heap a/b]\n", ":1: heap: 'a/b' is not a name: letters, digits, '-' and '_', at most 48 of them"},
	        {"[heap]\n", ":1: there is no section [heap]; allowed are [daemon] and [heap NAME]"},
	        {"[daemon\n", ":1: a section is [daemon] or [heap NAME], alone on its line"},
	        {"[daemon] socket = /x\n", ":1: a section is [daemon] or [heap NAME], alone on its line"},
	        {"size = 1GiB\n", ":1: size: this stands before any section; [daemon] or [heap NAME] must come first"},
	        {"# c\n[heap a]\nwhat\n", ":3: this is neither a [section] nor NAME = VALUE"},
	        {"[daemon]\nsize = 1GiB\n", ":2: size: this belongs into section [heap NAME]"},
	        {"[heap a]\nsocket = /x\n", ":2: socket: this belongs into section [daemon]"},
	        {"[daemon]\nsoket = /x\n", ":2: soket: there is no such setting; allowed here are socket, socket-mode, "
	                                   "instance, log-level"},
	        {"[heap a]\nreset = yes\n",
	                ":2: reset: there is no such setting in the file; allowed here are size, backing"},
	        {"[heap a]\nSize = 1GiB\n", ":2: Size: there is no such setting; allowed here are size"},
	        {"[heap a]\nsize = 1GiB\n\nsize = 1GiB\n", ":4: size: this is set in line 2 already; once is allowed"},
	        {"[heap a]\nsize = lots\n", ":2: size: 'lots' is not a size such as 512MiB or 4GiB"},
	        {"[heap a]\nsize =\n", ":2: size: '' is not a size"},
	        {"[heap a]\nsize = 1KiB\n", ":2: size: 1KiB is not between 1MiB and 2TiB"},
	        {"[heap a]\nbacking = file\n", ":2: backing: 'file' is not one of shm, memfd"},
	        {"[heap a]\nallowed-users = root nobody-of-that-name\n",
	                ":2: allowed-users: there is no user 'nobody-of-that-name' here; names or numbers, with "
	                "spaces"},
	        {"[heap a]\nallowed-users = 4294967295\n", ":2: allowed-users: there is no user '4294967295' here"},
	        {"[heap a]\nallowed-users = -1\n", ":2: allowed-users: there is no user '-1' here"},
	        {"[heap a]\nallowed-groups = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
	                ":2: allowed-groups: at most 16 groups"},
	        {"[heap a]\nscavenge-delay = 25h\n",
	                ":2: scavenge-delay: '25h' is not a time such as 250ms, 5s or 2min, up to 24h"},
	        {"[heap a]\nscavenge-rate = 1MiB\n", ":2: scavenge-rate: 1MiB is not between 2MiB and 2TiB"},
	        {"[heap a]\nhuge-pages = yes\n",
	                ":2: huge-pages: 'yes' is not one of never, advise, always, within_size"},
	        {"[daemon]\nlog-level = loud\n", ":2: log-level: 'loud' is not one of error, warn, info, debug"},
	        {"[daemon]\nsocket-mode = 0888\n", ":2: socket-mode: '0888' is not a file mode such as 0660"},
	        {"[daemon]\ninstance = a.b\n", ":2: instance: 'a.b' is not a name"},
	        {"[daemon]\nsocket =\n", ":2: socket: a path has 1 to 107 bytes"},
	        {"[heap a]\nclient-limit = 1GiB\nclient-soft-limit = 2GiB\n",
	                ":3: client-soft-limit: heap 'a' has a client-soft-limit of 2GiB; at most its client-limit, "
	                "1GiB, is allowed"},
	        {"[heap a]\nuser-soft-limit = 2GiB\nuser-limit = 1GiB\n",
	                ":3: user-limit: heap 'a' has a user-soft-limit of 2GiB; at most its user-limit, 1GiB, is "
	                "allowed"},
	        {"[heap a]\nclient-guarantee = 2GiB\nclient-limit = 1GiB\n",
	                ":3: client-limit: heap 'a' has a client-guarantee of 2GiB"},
	        {"[heap a]\nuser-guarantee = 2GiB\nuser-limit = 1GiB\n",
	                ":3: user-limit: heap 'a' has a user-guarantee of 2GiB"},
	        {"[heap a]\nclient-guarantee = 2GiB\nuser-limit = 1GiB\n",
	                ":3: user-limit: heap 'a' has a client-guarantee of 2GiB"},
	        {"[heap a]\n\nclient-guarantee = 5GiB\n",
	                ":3: client-guarantee: heap 'a' has a client-guarantee of 5GiB; at most its size, 4GiB"},
	        {"[heap a]\nuser-guarantee = 5GiB\n",
	                ":2: user-guarantee: heap 'a' has a user-guarantee of 5GiB; at most its size"},
	        {"[heap a]\nsoft-limit = 2GiB\nsize = 1GiB\n",
	                ":3: size: heap 'a' has a soft-limit of 2GiB; at most its size, 1GiB"},
	};
	static struct config config;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_file(cases[i].text);
		cr_expect_eq(parse(&config, NULL, NULL), CONFIG_BAD, "%s", cases[i].text);
		cr_expect_eq(config.faults, 1, "%s: %u", cases[i].text, config.faults);
		size_t len = strlen(file);

		cr_expect(strncmp(config.fault[0], file, len) == 0 &&
		                  strncmp(config.fault[0] + len, cases[i].fault, strlen(cases[i].fault)) == 0,
		        "%s: %s", cases[i].text, config.fault[0]);
	}
}

Test(config, what_else_a_file_may_be)
{
	static struct config config;
	char text[1024];
	FILE *out;

	/* a byte order mark, comments, spaces, and the names that are as long as they may be */
	memset(text, 'n', sizeof(text));
	text[OBJECTS_NAME_MAX] = 0;
	out = fopen(file, "we");
	fprintf(out,
	        "\xef\xbb\xbf# first\r\n ; more\n  [daemon]  ; here\n\t log-level=warn ; quiet\r\n[heap %s]\n  size : "
	        "5MiB\n[heap x] # y\n",
	        text);
	fclose(out);
	setenv("SHMALLOCD_CONFIG", file, 1);
	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN, "%s", config.fault[0]);
	cr_expect_eq(config.log_level, LEVEL_WARN);
	cr_expect_eq(config.heaps, 2);
	cr_expect_str_eq(config.heap[0].name, text);
	cr_expect_eq(config.heap[0].size, 5 << 20);
	/* the longest line, and one that is too long */
	for (int more = 0; more < 2; more++) {
		out = fopen(file, "we");
		fprintf(out, "[heap a]\nsize = 1GiB%*s\nsoft-limit = 1MiB", 196 - 11 + more, "");
		fclose(out);
		cr_expect_eq(parse(&config, NULL, NULL), more ? CONFIG_BAD : CONFIG_RUN, "%s", config.fault[0]);
		cr_expect_eq(config.heap[0].soft_limit, 1 << 20);
	}
	cr_expect_not_null(strstr(config.fault[0], ":2: a line has at most 196 bytes"), "%s", config.fault[0]);
	/* bytes that are no text */
	out = fopen(file, "we");
	fwrite("[heap a]\nsize\0= 1\n", 1, 18, out);
	fclose(out);
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_BAD);
	cr_expect_not_null(strstr(config.fault[0], ":2: a zero byte is not allowed"), "%s", config.fault[0]);
}

Test(config, all_faults_are_listed)
{
	static struct config config;
	const char *argv[] = {"shmallocd", "--log-level", "quiet"};

	write_file("[heap a]\nx = 1\nsize = 2\ny = 3\nz = 4\n[heap b]\n1 = 1\n2 = 2\n3 = 3\n4 = 4\n");
	cr_expect_eq(config_parse(&config, 3, (char **)(uintptr_t)argv), CONFIG_BAD);
	cr_expect_eq(config.faults, 9, "%u", config.faults);
	cr_expect_not_null(strstr(config.fault[7], ":10: 4: there is no such"), "%s", config.fault[7]);
	cr_expect_eq(strncmp(config.fault[8], "--log-level: 'quiet'", 20), 0, "%s", config.fault[8]);
	write_file("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n");
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_BAD);
	cr_expect_eq(config.faults, 12);
	cr_expect_not_null(strstr(config.fault[9], ":10: this is neither"), "%s", config.fault[9]);
}

Test(config, faults_of_the_environment)
{
	static const struct {
		const char *name, *value, *fault;
	} cases[] = {{"SHMALLOCD_SIZE", "x", "SHMALLOCD_SIZE: 'x' is not a size such as"},
	        {"SHMALLOCD_SIZ", "1GiB", "SHMALLOCD_SIZ: there is no such setting"},
	        {"SHMALLOCD_HEAPS", "a", "SHMALLOCD_HEAPS: there is no such setting"},
	        {"SHMALLOCD_HEA", "a", "SHMALLOCD_HEA: there is no such setting"},
	        {"SHMALLOCD_RESET", "1", "SHMALLOCD_RESET: there is no such setting"},
	        {"SHMALLOCD_HEAP", "a b", "SHMALLOCD_HEAP: 'a b' is not a name"},
	        {"SHMALLOCD_CONFIG", "/nonexistent/f", "/nonexistent/f: it cannot be read: No such file or directory"},
	        {"SHMALLOCD_CONFIG", "/tmp", "/tmp: it cannot be read: Is a directory"},
	        {"SHMALLOCD_CONFIG", "", "config: a path has 1 to 255 bytes"}};
	static struct config config;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		setenv(cases[i].name, cases[i].value, 1);
		cr_expect_eq(parse(&config, NULL, NULL), CONFIG_BAD, "%s", cases[i].name);
		cr_expect_eq(config.faults, 1);
		cr_expect_eq(
		        strncmp(config.fault[0], cases[i].fault, strlen(cases[i].fault)), 0, "%s", config.fault[0]);
		unsetenv(cases[i].name);
		setenv("SHMALLOCD_CONFIG", "/dev/null", 1);
	}
	setenv("SHMALLOCD_OPTIONS", "--size 3", 1); /* the unit's */
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN);
	/* the command line's file goes before the environment's; the usual one need not be there */
	setenv("SHMALLOCD_CONFIG", "/nonexistent/f", 1);
	cr_expect_eq(parse(&config, "--config", "/dev/null"), CONFIG_RUN);
	unsetenv("SHMALLOCD_CONFIG");
	setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
	if (access("/etc/shmalloc/shmallocd.conf", F_OK))
		cr_expect_eq(parse(&config, NULL, NULL), CONFIG_RUN, "%s", config.fault[0]);
	cr_expect_eq(parse(&config, "--config", "/nonexistent/f"), CONFIG_BAD);
}

Test(config, too_many_heaps)
{
	static struct config config;
	FILE *out = fopen(file, "we");

	for (unsigned i = 0; i <= CONFIG_HEAPS_MAX; i++)
		fprintf(out, "[heap h%u]\n", i);
	fclose(out);
	setenv("SHMALLOCD_CONFIG", file, 1);
	cr_expect_eq(parse(&config, NULL, NULL), CONFIG_BAD);
	cr_expect_eq(config.faults, 1);
	cr_expect_not_null(strstr(config.fault[0], ":17: heap: at most 16 heaps are allowed"), "%s", config.fault[0]);
}

/* Read again after the file has changed: with the same command line, and into a config of its own. */
Test(config, again)
{
	static struct config config, fresh;
	const char *argv[] = {"shmallocd", "--heap", "a", "--size", "3MiB"};

	write_file("[heap a]\nsize = 1MiB\nuser-limit = 1MiB\n");
	cr_assert_eq(config_parse(&config, 5, (char **)(uintptr_t)argv), CONFIG_RUN);
	write_file("[heap a]\nsize = 2MiB\nuser-limit = 2MiB\n[heap b]\n");
	cr_assert_eq(config_again(&fresh, &config), CONFIG_RUN);
	cr_expect_eq(config.heap[0].user.hard, 1 << 20);
	cr_expect_eq(fresh.heap[0].user.hard, 2 << 20);
	cr_expect_eq(fresh.heap[0].size, 3 << 20);
	cr_expect_eq(fresh.heaps, 2);
	write_file("[heap a]\nsize = 2\n");
	cr_expect_eq(config_again(&fresh, &config), CONFIG_BAD);
	cr_expect_not_null(strstr(fresh.fault[0], ":2: size: 2 is not between"), "%s", fresh.fault[0]);
}

/* ---- what is printed ---- */

/* Runs the daemon of this build; its exit status, and what it said on both streams. */
static int run(const char *arguments, char *said, size_t room)
{
	char command[512];

	snprintf(command, sizeof(command), "%s %s 2>&1", test_build_path("shmallocd"), arguments);
	FILE *out = popen(command, "re");
	size_t n = out ? fread(said, 1, room - 1, out) : 0;

	said[n] = 0;
	return out ? WEXITSTATUS(pclose(out)) : -1;
}

Test(config, check_says_good_or_what_is_wrong)
{
	static char said[8192], want[512];

	write_file("[heap a]\n");
	cr_expect_eq(run("--check-config", said, sizeof(said)), 0);
	snprintf(want, sizeof(want), "%s: good\n", file);
	cr_expect_str_eq(said, want);
	write_file("[heap a]\nx=1\ny=2\n");
	cr_expect_eq(run("--check-config", said, sizeof(said)), 2);
	snprintf(want, sizeof(want), "shmallocd: %s:2: x: there is no such", file);
	cr_expect_eq(strncmp(said, want, strlen(want)), 0, "%s", said);
	snprintf(want, sizeof(want), "\nshmallocd: %s:3: y: there is no such", file);
	cr_expect_not_null(strstr(said, want), "%s", said);
	write_file("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n");
	cr_expect_eq(run("--check-config", said, sizeof(said)), 2);
	cr_expect_not_null(strstr(said, "shmallocd: there are 2 more faults\n"), "%s", said);
}

/* What is printed, read as a file, is printed the same, but for where it comes from. */
Test(config, what_is_printed_can_be_read)
{
	static char first[16384], second[16384];
	char arguments[256];

	write_file("[daemon]\nsocket = /run/some where/s\n[heap a]\nallowed-users = 4294967280 4294967281 4294967282 "
	           "4294967283 "
	           "4294967284 4294967285 4294967286\nallowed-groups = root\nscavenge-delay = 90min\n[heap b]\n");
	setenv("SHMALLOCD_SCAVENGE_RATE", "1536MiB", 1);
	cr_assert_eq(run("--print-config --client-limit 3000 --heap c --huge-pages advise", first, sizeof(first)), 0);
	snprintf(arguments, sizeof(arguments), "# %s:2\nsocket = /run/some where/s\n", file);
	cr_expect_not_null(strstr(first, arguments), "%s", first);
	cr_expect_not_null(
	        strstr(first, "# environment: SHMALLOCD_SCAVENGE_RATE\nscavenge-rate = 1536MiB\n"), "%s", first);
	cr_expect_not_null(strstr(first, "# command line\nclient-limit = 3000\n"), "%s", first);
	cr_expect_not_null(strstr(first, "# command line\n[heap c]\n"), "%s", first);
	cr_expect_not_null(strstr(first, "# built-in\nsize = 4GiB\n"), "%s", first);
	cr_expect_not_null(strstr(first, "scavenge-delay = 90min\n"), "%s", first);
	unsetenv("SHMALLOCD_SCAVENGE_RATE");
	write_file(first);
	cr_assert_eq(run("--print-config", second, sizeof(second)), 0, "%s", second);
	char *a = first, *b = second, *next_a, *next_b;

	for (int lines = 0; (a = strtok_r(a, "\n", &next_a)) != NULL; a = NULL, b = NULL, lines++) {
		b = strtok_r(b, "\n", &next_b);
		cr_assert_not_null(b, "line %d: %s", lines, a);
		if (*a != '#' || *b != '#')
			cr_expect_str_eq(a, b);
	}
	cr_expect_null(strtok_r(NULL, "\n", &next_b));
}

/* All sixteen ids of a list, as long as they can be, fit into a line. */
Test(config, the_longest_list_can_be_read)
{
	static struct config config;
	static char first[16384];
	char list[256] = "";

	for (unsigned i = 0; i < ACCESS_MAX; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%u,", 4294967270u + i);
	setenv("SHMALLOCD_ALLOWED_GROUPS", list, 1);
	cr_assert_eq(run("--print-config", first, sizeof(first)), 0);
	unsetenv("SHMALLOCD_ALLOWED_GROUPS");
	write_file(first);
	cr_assert_eq(parse(&config, NULL, NULL), CONFIG_RUN, "%s", config.fault[0]);
	cr_expect_eq(config.heap[0].access.groups.n, ACCESS_MAX);
	cr_expect_eq(config.heap[0].access.groups.id[15], 4294967285u);
}
