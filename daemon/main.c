/* shmallocd: serves heaps of shared memory. Exit status: 0 after a clean stop, 1 if it could not start, 2 for bad usage. */
#include <poll.h>
#include <stdio.h>

#include "daemon/config.h"
#include "daemon/notify.h"
#include "daemon/server.h"

#define BACK_OFF_MS 1000

/* A service manager starts us again at once; what stands in the way seldom goes as fast as that. */
static int fail(int status)
{
	if (notify_is_watched()) {
		notify_status("cannot start; the log says why");
		(void)poll(NULL, 0, BACK_OFF_MS);
	}
	return status;
}

static void print_faults(const struct config *config)
{
	for (uint32_t i = 0; i < config->faults && i < CONFIG_FAULTS_MAX; i++)
		fprintf(stderr, "shmallocd: %s\n", config->fault[i]);
	if (config->faults > CONFIG_FAULTS_MAX)
		fprintf(stderr, "shmallocd: there are %u more faults\n", config->faults - CONFIG_FAULTS_MAX);
}

int main(int argc, char **argv)
{
	static struct config config;
	static struct server server;

	switch (config_parse(&config, argc, argv)) {
	case CONFIG_SHOWN:
		return 0;
	case CONFIG_BAD:
		print_faults(&config);
		return fail(2);
	default:
		break;
	}
	log_set_level(config.log_level);
	if (server_start(&server, &config))
		return fail(1);
	server_run(&server);
	server_stop(&server);
	return 0;
}
