/* Boost's containers with shma::offset_allocator, changed in turn by processes that have the heap at different addresses. */
#include "tests/client/cpp/elsewhere.hpp"

#if __has_include(<boost/container/map.hpp>)
#include <boost/container/flat_map.hpp>
#include <boost/container/list.hpp>
#include <boost/container/map.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>

namespace bc = boost::container;

template <class T> using A = shma::offset_allocator<T>;
using string = bc::basic_string<char, std::char_traits<char>, A<char>>;

struct shared {
	explicit shared(const A<char> &a) : text(a), words(a), lines(a), names(a), flat(a)
	{
	}

	string word(int n) const
	{
		return string(static_cast<std::size_t>(n % 60), static_cast<char>('a' + n % 26), text.get_allocator());
	}

	void turn()
	{
		check();
		text += word(round);
		words.push_back(word(round));
		lines.insert(round % 2 ? lines.begin() : lines.end(), word(round));
		names.emplace(round, word(round));
		flat.emplace(round * 7919 % 1009, round);
		if (round % 5 == 4) {
			words.erase(words.begin());
			names.erase(round - 4);
			lines.pop_front();
			words.shrink_to_fit();
		}
		round++;
	}

	void check() const
	{
		std::size_t len = 0, gone = static_cast<std::size_t>(round / 5);
		int at = 0;

		for (int i = 0; i < round; i++)
			len += static_cast<std::size_t>(i % 60);
		child_check(text.size() == len && lines.size() + gone == static_cast<std::size_t>(round));
		child_check(words.size() + gone == static_cast<std::size_t>(round) && names.size() == words.size());
		for (std::size_t i = 0; i < words.size(); i++)
			child_check(words[i] == word(static_cast<int>(i + gone)));
		for (const auto &[n, w] : names) {
			at += at % 5 == 0 && at + 4 < round;
			child_check(n == at++ && w == word(n));
		}
		for (int i = 0; i < round; i++)
			child_check(flat.at(i * 7919 % 1009) == i);
	}

	string text;
	bc::vector<string, A<string>> words;
	bc::list<string, A<string>> lines;
	bc::map<int, string, std::less<int>, A<std::pair<const int, string>>> names;
	bc::flat_map<int, int, std::less<int>, A<std::pair<int, int>>> flat;
	int round = 0;
};

static int be_a_peer(const char *socket, const char *base)
{
	shma::heap heap = attach_elsewhere(socket, base);
	auto *s = shma::find<shared>(heap, "boost");

	return peer::serve([&](int) { s->turn(); });
}

static void drive(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	auto *s = shma::construct<shared>(heap, "boost", heap);

	for (const std::string &build : peer::builds("boost")) {
		peer one(build, d.socket, base_of(heap)), doomed(build, d.socket, base_of(heap));

		for (int i = 0; i < 30; i++) {
			s->turn();
			doomed.turn(i);
			one.turn(i);
		}
		doomed.kill();
		s->turn();
		one.turn(30);
	}
	s->check();
	child_check(shma::destroy<shared>(heap, "boost"));
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return be_a_peer(argv[1], argv[2]);
	own_daemon d;

	drive(d);
	d.expect_empty();
	d.end();
	return 0;
}
#else
int main()
{
	(void)puts("skipped: no Boost.Container (libboost-dev)");
	return 77;
}
#endif
