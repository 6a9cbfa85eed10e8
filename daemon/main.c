/* shmallocd: serves a heap of shared memory. Exit status: 0 after a clean stop, 1 if it could not start, 2 for bad usage. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/config.h"
#include "daemon/server.h"

int main(int argc, char **argv)
{
	static struct config config;
	static struct server server;

	switch (config_parse(&config, argc, argv)) {
	case CONFIG_SHOWN:
		return 0;
	case CONFIG_BAD:
		fprintf(stderr, "shmallocd: %s\n", config.why);
		return 2;
	default:
		break;
	}
	log_set_level(config.log_level);
	if (server_start(&server, &config))
		return 1;
	server_run(&server);
	server_stop(&server);
	return 0;
}
