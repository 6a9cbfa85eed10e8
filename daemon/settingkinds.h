/* The kinds of values that settings have: numbers with units, words, names, paths and addresses, access rights, switches, and lists of
 * users and groups. Each parses a text, says what is wrong with it, and prints a value back. */
#ifndef DAEMON_SETTINGKINDS_H
#define DAEMON_SETTINGKINDS_H

#include "daemon/settings.h"

extern const struct setting_kind setting_kind_size, setting_kind_bound, setting_kind_duration, setting_kind_choice,
        setting_kind_name, setting_kind_socket, setting_kind_mode, setting_kind_flag, setting_kind_switch,
        setting_kind_http, setting_kind_users, setting_kind_groups;

#endif
