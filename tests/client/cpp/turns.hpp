/* What the C++ tests share: a daemon, and processes that change the same objects in turn.
 *
 * A test is a program. Without arguments it drives: it starts a daemon, and programs of the same source, its own build and those of other
 * compilers and standards, as peers; with arguments it is a peer. A peer reads numbers from its standard input and answers each.
 */
#ifndef TEST_CPP_TURNS_HPP
#define TEST_CPP_TURNS_HPP

#include <shmalloc.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include "tests/lib/child.h"
#include "tests/lib/ctl.h"
#include "tests/lib/daemon.h"
}

/* Whether `what()` throws std::system_error with this errno. */
template <class What> bool fails(int error, What what)
{
	try {
		what();
	} catch (const std::system_error &e) {
		return e.code() == std::error_code(error, std::generic_category());
	}
	return false;
}

template <class Exception, class What> bool throws(What what)
{
	try {
		what();
	} catch (const Exception &) {
		return true;
	}
	return false;
}

class peer
{
      public:
	/* `program` is one of builds(); what it is told is its own. */
	peer(const std::string &program, const std::string &socket, const std::string &told = "")
	{
		const char *argv[] = {program.c_str(), socket.c_str(), told.c_str(), nullptr};

		pid_ = program_start(argv, &in_, &out_);
		child_check(pid_ > 0);
	}

	peer(const peer &) = delete;
	peer &operator=(const peer &) = delete;

	/* Lets it have its turn. */
	void turn(int number)
	{
		int answer = -1;

		child_check(write(in_, &number, sizeof(number)) == sizeof(number));
		child_check(read(out_, &answer, sizeof(answer)) == sizeof(answer) && answer == number);
	}

	/* Lets it end: it has nothing more to read. */
	~peer()
	{
		if (pid_ > 0)
			(void)close(in_);
		child_check(pid_ < 0 || child_join(pid_) == 0);
	}

	void kill()
	{
		int status;

		child_check(::kill(pid_, SIGKILL) == 0 && waitpid(pid_, &status, 0) == pid_ && WIFSIGNALED(status));
		(void)close(in_);
		pid_ = -1;
	}

	/* In the peer: every turn, with its number; `act` returns when the turn is over. */
	template <class Act> static int serve(Act act)
	{
		int number;

		while (read(STDIN_FILENO, &number, sizeof(number)) == sizeof(number)) {
			act(number);
			answer(number);
		}
		return 0;
	}

	static void answer(int number)
	{
		child_check(write(STDOUT_FILENO, &number, sizeof(number)) == sizeof(number));
	}

	/* The builds of this test that are there. */
	static std::vector<std::string> builds(const char *test)
	{
		std::vector<std::string> found;

		for (const char *build : {"g++-17", "g++-20", "clang++-17", "clang++-20"}) {
			std::string name = std::string("cpp/") + test + "-" + build;

			if (test_build_path(name.c_str()))
				found.push_back(name);
		}
		child_check(!found.empty());
		return found;
	}

      private:
	pid_t pid_;
	int in_ = -1, out_ = -1;
};

/* A daemon of its own, with a heap of 64 MiB. */
struct own_daemon : test_daemon {
	own_daemon()
	{
		child_check(test_daemon_start(this, &options) == 0);
	}

	void kill_and_start()
	{
		test_daemon_kill(this);
		start_again();
	}

	void start_again()
	{
		child_check(test_daemon_start_again(this, &options) == 0);
	}

	/* Nobody is attached any more: nothing is left, and the heap is clean. */
	void expect_empty() const
	{
		int64_t last = -1;

		if (test_ctl_settle(this, "live_blocks", 0, 0, &last) != 0)
			(void)fprintf(stderr, "%lld blocks are left\n", static_cast<long long>(last));
		child_check(last == 0);
		child_check(test_ctl_check(this) == 0);
	}

	void end()
	{
		child_check(test_daemon_end(this) == 0);
	}

	static constexpr const char *args[] = {"--size", "64MiB", nullptr};
	static constexpr test_daemon_options options{nullptr, args, nullptr};
};

#endif
