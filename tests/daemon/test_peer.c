/* Who is there, and whether it still is. */
#include "daemon/peer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

Test(peer, of_a_socket)
{
	int pair[2];
	struct peer peer;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(peer_of_socket(pair[0], &peer), 0);
	cr_assert_eq(peer.pid, getpid());
	cr_assert_eq(peer.uid, getuid());
	cr_assert_geq(peer.pidfd, 0);
	cr_assert(fcntl(peer.pidfd, F_GETFD) & FD_CLOEXEC);
	cr_assert_neq(peer.inode, 0);
	peer_close(&peer);
	cr_assert_eq(peer.pidfd, -1);
	peer_close(&peer); /* harmless */
}

Test(peer, not_a_socket)
{
	struct peer peer;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	cr_assert_lt(peer_of_socket(fd, &peer), 0);
	cr_assert_eq(peer.pidfd, -1);
	close(fd);
}

Test(peer, found_again_while_it_lives)
{
	int pair[2], pidfd;
	pid_t child;
	struct peer peer;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(peer_of_socket(pair[0], &peer), 0);
	cr_assert_eq(peer_reopen(peer.pid, peer.inode, &pidfd), 0);
	close(pidfd);
	cr_assert_eq(peer_reopen(peer.pid, peer.inode + 1, &pidfd), PEER_E_GONE, "another process with that pid");
	cr_assert_eq(pidfd, -1);
	child = sleeper();
	cr_assert_eq(peer_reopen(child, peer.inode, &pidfd), PEER_E_GONE);
	end(child);
	cr_assert_eq(peer_reopen(child, 1, &pidfd), PEER_E_GONE, "no such process");
	cr_assert_eq(peer_reopen(0, 1, &pidfd), PEER_E_GONE);
	cr_assert_eq(peer_reopen(-1, 1, &pidfd), PEER_E_GONE);
	peer_close(&peer);
}

/* Dead and not yet waited for: the pid is there, the process is not. */
Test(peer, a_zombie_is_dead)
{
	pid_t child = sleeper();
	int first = (int)syscall(SYS_pidfd_open, child, 0), pidfd;
	struct stat st;
	siginfo_t info;

	cr_assert_eq(fstat(first, &st), 0);
	cr_assert_eq(peer_reopen(child, st.st_ino, &pidfd), 0);
	close(pidfd);
	kill(child, SIGKILL);
	cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	cr_assert_eq(peer_reopen(child, st.st_ino, &pidfd), PEER_E_GONE);
	waitpid(child, NULL, 0);
	close(first);
}

/* Those that it had when it connected. */
Test(peer, groups)
{
	static const gid_t ours[] = {3, 5000, 4294967293u};
	static gid_t many[PEER_GROUPS_MAX + 1];
	static struct peer_groups groups;
	int pair[2];

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(setgroups(3, ours), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(setgroups(0, NULL), 0);
	peer_groups_of_socket(pair[0], &groups);
	cr_assert_eq(groups.n, 3);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(groups.id[i], ours[i]);
	for (uint32_t n = PEER_GROUPS_MAX; n <= PEER_GROUPS_MAX + 1; n++) {
		for (uint32_t i = 0; i < n; i++)
			many[i] = 10000 + i;
		cr_assert_eq(setgroups(n, many), 0);
		cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		peer_groups_of_socket(pair[0], &groups);
		cr_expect_eq(groups.n, n == PEER_GROUPS_MAX ? n : 0, "%u", groups.n);
	}
	peer_groups_of_socket(-1, &groups);
	cr_expect_eq(groups.n, 0);
}
