/* SIGHUP: the configuration is read again, and what can change does.
 *
 * All layers are read as at the start. If there is a fault nothing changes, and the log has all of them. Else each setting that
 * has another value now is logged: as applied, or as one that takes effect at the next start. Heaps are told apart by name; one
 * that was added or removed is of the latter kind. The service manager is told when it begins and when it is done.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

struct server;

void reload_run(struct server *server);

#endif
