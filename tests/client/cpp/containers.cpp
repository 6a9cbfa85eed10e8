/* Standard containers in a heap that processes change in turn, with shma::allocator and with std::pmr; resources; names; exceptions. */
#include "tests/client/cpp/turns.hpp"

#include <algorithm>
#include <list>
#include <map>
#include <string_view>
#include <unordered_map>

/* ---- containers of every kind, and what is done to them in each round ---- */

struct ours {
	template <class T> using allocator = shma::allocator<T>;
};

struct pmr {
	template <class T> using allocator = std::pmr::polymorphic_allocator<T>;
};

struct plain {
	template <class T> using allocator = std::allocator<T>;
};

template <class Kind> struct world {
	template <class T> using A = typename Kind::template allocator<T>;
	using string = std::basic_string<char, std::char_traits<char>, A<char>>;

	struct hash {
		std::size_t operator()(const string &s) const noexcept
		{
			return std::hash<std::string_view>()(s);
		}
	};

	explicit world(const A<char> &a) : numbers(a), text(a), words(a), names(a), counts(a)
	{
	}

	string word(int n) const
	{
		return string(static_cast<std::size_t>(n % 50), static_cast<char>('a' + n % 26), text.get_allocator());
	}

	void change(int round)
	{
		for (int i = 0; i < 200; i++) {
			int n = (round * 7919 + i * 104729) % 1000;

			numbers.push_back(n);
			names.insert_or_assign(n, word(n));
			names.erase(n / 2);
			counts[word(n + 1)] += i;
			if (i % 3 == 0)
				counts.erase(word(n));
			words.push_back(word(n));
			if (words.size() > 300)
				words.pop_front();
		}
		text += word(round);
		std::sort(numbers.begin(), numbers.end());
		numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
		if (round % 3 == 0) {
			numbers.shrink_to_fit();
			counts.rehash(0);
		}
		words.sort();
	}

	std::string content() const
	{
		std::string all(text);

		for (int n : numbers)
			all += std::to_string(n) + ",";
		for (const string &w : words)
			all += std::string_view(w);
		for (const auto &[n, w] : names)
			all += std::to_string(n) + "=" + std::string(w) + ";";
		std::map<std::string, int> sorted;

		for (const auto &[w, n] : counts)
			sorted[std::string(w)] = n;
		for (const auto &[w, n] : sorted)
			all += w + ":" + std::to_string(n) + ";";
		return all;
	}

	/* What all of it is before this round. */
	static std::string expected(int round)
	{
		world<plain> model{std::allocator<char>()};

		for (int i = 0; i < round; i++)
			model.change(i);
		return model.content();
	}

	std::vector<int, A<int>> numbers;
	string text;
	std::list<string, A<string>> words;
	std::map<int, string, std::less<int>, A<std::pair<const int, string>>> names;
	std::unordered_map<string, int, hash, std::equal_to<string>, A<std::pair<const string, int>>> counts;
};

using world_ours = world<ours>;
using world_pmr = world<pmr>;

template <class World> void round_of(World *w, int round)
{
	child_check(w && w->content() == World::expected(round));
	w->change(round);
}

/* ---- peers ---- */

enum { CHURN = -2 };

/* Until it is killed: its own blocks come and go, and go with it. */
static void churn(shma_heap *heap)
{
	std::list<std::vector<int, shma::allocator<int, SHMA_SCOPED>>> mine;

	for (unsigned i = 0;; i++) {
		mine.emplace_back(1 + i * 7919u % 3000, static_cast<int>(i), heap);
		if (mine.size() > 100)
			mine.pop_front();
		if (i == 10000)
			peer::answer(CHURN);
	}
}

static int be_a_peer(const char *socket, std::string_view told)
{
	shma::heap heap(nullptr, socket);
	auto *a = shma::find<world_ours>(heap, "ours");
	auto *b = shma::find<world_pmr>(heap, "pmr");

	if (told == "writer")
		child_check(shma::shared_resource(heap) == b->text.get_allocator().resource());
	return peer::serve([&](int round) {
		if (round == CHURN)
			churn(heap);
		if (told == "writer") {
			round_of(a, round);
			round_of(b, round);
		} else {
			child_check(a->content() == world_ours::expected(round));
			child_check(b->content() == world_pmr::expected(round));
		}
	});
}

/* ---- the driver ---- */

struct both {
	shma_heap *heap;
	world_ours *a;
	world_pmr *b;
	int round;

	void turn()
	{
		round_of(a, round);
		round_of(b, round++);
	}
};

static void in_turn(both &w, const own_daemon &d, const std::string &build)
{
	peer writer(build, d.socket, "writer"), reader(build, d.socket, "reader"), doomed(build, d.socket, "writer");

	for (int i = 0; i < 2; i++) {
		w.turn();
		writer.turn(w.round++);
		doomed.turn(w.round++);
		reader.turn(w.round);
	}
	doomed.turn(CHURN);
	doomed.kill();
	w.turn();
	writer.turn(w.round++);
}

static int change_in_a_child(void *arg)
{
	static_cast<both *>(arg)->turn();
	return 0;
}

/* The default heap is none: what is said of another heap must be meant for all that is in it. */
static void containers(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	both w = {heap, shma::construct<world_ours>(heap, "ours", shma::allocator<char>(heap)),
	        shma::construct<world_pmr>(heap, "pmr", shma::shared_resource(heap)), 0};

	for (const std::string &build : peer::builds("containers"))
		in_turn(w, d, build);
	child_check(child_run(change_in_a_child, &w) == 0);
	w.round++;
	d.kill_and_start();
	w.turn();
	child_check(shma::destroy<world_ours>(heap, "ours") && shma::destroy<world_pmr>(heap, "pmr"));
	child_check(!shma::destroy<world_ours>(heap, "ours"));
}

/* ---- resources ---- */

static void resources(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	shma::memory_resource r(heap), same(heap, SHMA_NOSCAN), scoped(heap, SHMA_SCOPED);
	std::pmr::memory_resource *shared = shma::shared_resource(heap);

	child_check(r == same && !(r == scoped) && !(r == *shared) && !(*shared == r));
	child_check(!(r == *std::pmr::new_delete_resource()) && !(*shared == *std::pmr::new_delete_resource()));
	child_check(shma::shared_resource(heap) == shared && shma::shared_resource(heap, SHMA_NOSCAN) != shared);
	child_check(*shma::shared_resource(heap, SHMA_NOSCAN) == *shared);
	child_check(fails(EINVAL, [&] { shma::shared_resource(heap, SHMA_SCOPED); }));
	child_check(fails(EINVAL, [] { shma::shared_resource(nullptr); }));
	for (std::size_t alignment = 1; alignment <= 1 << 20; alignment *= 2) {
		void *block = r.allocate(24, alignment);

		child_check(reinterpret_cast<std::uintptr_t>(block) % alignment == 0);
		child_check(shma_heap_of(block) == heap && shma_usable_size(block) >= 24);
		same.deallocate(block, 24, alignment);
	}
	child_check(throws<std::bad_alloc>([&] { r.deallocate(r.allocate(std::size_t{1} << 30), 0); }));
	child_check(throws<std::bad_alloc>([&] { r.deallocate(r.allocate(1, std::size_t{1} << 28), 0); }));
}

/* ---- processes that begin when they are told ---- */

struct gate {
	const char *socket;
	int pipe[2];
};

template <int begin(void *)> int when_the_gate_opens(void *arg)
{
	auto *g = static_cast<gate *>(arg);
	char c;

	(void)close(g->pipe[1]);
	child_check(read(g->pipe[0], &c, 1) == 0);
	return begin(const_cast<char *>(g->socket));
}

/* ---- from one process's own resource into all processes' ---- */

using rows = std::pmr::vector<std::pmr::vector<int>>;

static int change_the_rows(void *arg)
{
	shma::heap heap(nullptr, static_cast<const char *>(arg));
	std::pmr::memory_resource *shared = shma::shared_resource(heap);
	auto *table = shma::find<rows>(heap, "rows");

	child_check(table && table->size() == 20);
	for (auto &row : *table) {
		child_check(row.get_allocator().resource() == shared);
		row.insert(row.end(), 1000, 1);
	}
	return 0;
}

/* A container that took over the buffer would have elements that point to the resource on this stack. */
static void move_into_the_shared(own_daemon &d)
{
	gate g = {d.socket, {-1, -1}};

	child_check(pipe(g.pipe) == 0);
	pid_t other = child_start(when_the_gate_opens<change_the_rows>, &g); /* has no resource of ours */

	(void)close(g.pipe[0]);
	shma::heap heap(nullptr, d.socket);
	auto *table = shma::construct<rows>(heap, "rows", shma::shared_resource(heap));

	{
		shma::memory_resource mine(heap);
		rows local(20, std::pmr::vector<int>(100, 1, &mine), &mine);

		*table = std::move(local);
	}
	(void)close(g.pipe[1]);
	child_check(child_join(other) == 0);
	for (const auto &row : *table)
		child_check(row.size() == 1100 && row.get_allocator().resource() == shma::shared_resource(heap));
	child_check(shma::destroy<rows>(heap, "rows"));
}

static void serves(shma_heap *heap)
{
	std::pmr::memory_resource *shared = shma::shared_resource(heap);
	void *block = shared->allocate(100);

	child_check(shma_heap_of(block) == heap);
	shared->deallocate(block, 100);
}

/* A child of a fork that detaches and attaches anew makes the resource anew; one that does not has its parent's. */
static int attach_anew(void *arg)
{
	auto *socket = static_cast<const char *>(arg);
	shma::heap heap(nullptr, socket);
	std::pmr::vector<int> v({1, 2, 3}, shma::shared_resource(heap));
	void *at = v.get_allocator().resource();

	child_check(shma_heap_of(v.data()) == heap);
	v = std::pmr::vector<int>();
	heap.detach();
	heap = shma::heap(nullptr, socket);
	child_check(shma::shared_resource(heap) == at);
	serves(heap);
	heap.detach();
	heap = shma::heap(nullptr, socket);

	/* as in a child that was forked while its parent made the resource */
	auto *place = static_cast<shma::detail::resource_place *>(shma_own_page(heap));

	place->state = static_cast<std::uint32_t>(getppid());
	child_check(shma::shared_resource(heap) == at && place->state == shma::detail::resource_place::done);
	serves(heap);
	return 0;
}

/* ---- full ---- */

struct large {
	char bytes[1 << 30];
};

static void full(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	std::list<std::vector<char, shma::allocator<char>>, shma::allocator<std::vector<char, shma::allocator<char>>>>
	        all(heap);
	std::vector<int, shma::allocator<int>> grows(heap);

	errno = 0;
	child_check(
	        throws<std::bad_array_new_length>([&] { (void)shma::allocator<int>(heap).allocate(SIZE_MAX / 4); }));
	child_check(errno == ENOMEM);
	child_check(throws<std::bad_alloc>([&] {
		for (;;)
			all.emplace_back(std::size_t{1} << 20, 'x', heap);
	}));
	child_check(errno == ENOMEM && all.size() > 40);
	child_check(throws<std::bad_alloc>([&] {
		for (int i = 0;; i++)
			grows.push_back(i);
	}));
	for (std::size_t i = 0; i < grows.size(); i++)
		child_check(grows[i] == static_cast<int>(i));
	for (const auto &v : all)
		child_check(v.front() == 'x' && v.back() == 'x');
	all.clear();
	grows.push_back(0);
	child_check(throws<std::bad_alloc>([&] { (void)shma::make_unique_in<large>(heap, 0); }));
	child_check(throws<std::bad_alloc>([&] { (void)shma::find_or_construct<large>(heap, "large"); }));
}

/* ---- heaps that are not there ---- */

static void no_heap(own_daemon &d)
{
	shma::heap gone(nullptr, d.socket), heap = std::move(gone);
	shma::allocator<int> a(heap);

	child_check(fails(EINVAL, [&] { shma::allocator<int> none(gone); }));
	child_check(fails(EINVAL, [&] { shma::offset_allocator<int> none(gone); }));
	child_check(fails(EINVAL, [&] { shma::memory_resource none(gone); }));
	child_check(fails(EINVAL, [&] { (void)shma::make_unique_in<int>(gone, 0, 1); }));
	child_check(fails(EINVAL, [&] { (void)shma::make_shared_in<int>(gone, 1); }));
	heap.detach();
	child_check(fails(EINVAL, [&] { shma::allocator<int> none(heap); }));
	errno = 0;
	child_check(throws<std::bad_alloc>([&] { (void)a.allocate(1); }) && errno == EINVAL);
}

/* ---- names ---- */

struct counter {
	explicit counter(int n) : made_by(getpid())
	{
		if (n < 0)
			throw std::range_error("a constructor that throws");
	}

	~counter()
	{
		gone = true;
	}

	std::atomic<int> found{0};
	pid_t made_by;
	bool gone = false;
};

static int one_of_many(void *arg)
{
	shma::heap heap(nullptr, static_cast<const char *>(arg));
	auto *one = shma::find_or_construct<counter>(heap, "counter", 1);

	child_check(!one->gone);
	one->found++;
	return 0;
}

static void at_once(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);

	for (int i = 0; i < 20; i++) {
		gate g = {d.socket, {-1, -1}};
		pid_t pid[4];

		child_check(pipe(g.pipe) == 0);
		for (pid_t &p : pid)
			p = child_start(when_the_gate_opens<one_of_many>, &g);
		(void)close(g.pipe[0]);
		(void)close(g.pipe[1]);
		for (pid_t p : pid)
			child_check(child_join(p) == 0);
		auto *one = shma::find<counter>(heap, "counter");

		child_check(one && one->found == 4 && std::find(pid, pid + 4, one->made_by) != pid + 4);
		child_check(shma::destroy<counter>(heap, "counter"));
	}
}

static void names(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	int *n = shma::construct<int>(heap, "n", 7);

	child_check(*n == 7 && shma::find<int>(heap, "n") == n && !shma::find<int>(heap, "m"));
	child_check(shma::find_or_construct<int>(heap, "n", 8) == n && *n == 7);
	child_check(fails(EEXIST, [&] { shma::construct<int>(heap, "n", 9); }));
	child_check(throws<shma::wrong_type>([&] { shma::find<unsigned>(heap, "n"); }));
	child_check(throws<shma::wrong_type>([&] { shma::destroy<char>(heap, "n"); }));
	child_check(throws<shma::wrong_type>([&] { shma::find_or_construct<world_ours>(heap, "n", heap); }));
	child_check(throws<std::range_error>([&] { shma::construct<counter>(heap, "c", -1); }));
	child_check(!shma::find<counter>(heap, "c"));
	child_check(fails(EINVAL, [&] { shma::find<int>(heap, ""); }));
	child_check(fails(EINVAL, [&] { shma::construct<int>(heap, std::string(96, 'n').c_str(), 1); }));
	child_check(fails(EINVAL, [] { shma::find_or_construct<int>(nullptr, "n"); }));
	void *bare = shma_heap_alloc(heap, 100, 0, SHMA_ZERO);

	child_check(shma_root_set(heap, "bare", bare) == 0);
	child_check(throws<shma::wrong_type>([&] { shma::find<int>(heap, "bare"); }));
	child_check(shma_root_del(heap, "bare") == 0 && shma::destroy<int>(heap, "n"));
	shma_free(bare);
}

/* Without a daemon the name cannot be had, and it is not known whether it will be: the object is there when it is. */
static void without_a_daemon(own_daemon &d)
{
	shma_options options{};

	options.socket = d.socket;
	options.timeout_ms = 1000;
	shma::heap heap(options);

	(void)shma::construct<int>(heap, "here", 1);
	child_check(shma::destroy<int>(heap, "here")); /* leaves a block in the cache */
	test_daemon_kill(&d);
	child_check(fails(EAGAIN, [&] { shma::construct<int>(heap, "late", 5); }));
	child_check(!shma::find<int>(heap, "late"));
	d.start_again();
	while (shma_trim(heap) != 0) /* the next request that is answered brings the answer to that one before */
		child_check(errno == EAGAIN);
	int *late = shma::find<int>(heap, "late");

	child_check(late && *late == 5 && shma::destroy<int>(heap, "late"));
}

static void no_daemon_at_all(const own_daemon &d)
{
	std::string nowhere = std::string(d.dir) + "/nowhere";
	shma_options options{};

	options.socket = nowhere.c_str();
	options.timeout_ms = 1;
	child_check(fails(ENOENT, [&] { shma::heap h(options); }));
	options.socket = d.socket;
	options.heap = "none";
	options.timeout_ms = 0;
	child_check(fails(ENXIO, [&] { shma::heap h(options); }));
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return be_a_peer(argv[1], argv[2]);
	own_daemon d;

	child_check(setenv("SHMALLOC_SOCKET", "/nowhere", 1) == 0);
	child_check(unsetenv("SHMALLOC_HEAP") == 0);
	containers(d);
	d.expect_empty();
	resources(d);
	child_check(child_run(attach_anew, d.socket) == 0);
	move_into_the_shared(d);
	d.expect_empty();
	full(d);
	no_heap(d);
	names(d);
	at_once(d);
	d.expect_empty();
	without_a_daemon(d);
	no_daemon_at_all(d);
	d.expect_empty();
	d.end();
	return 0;
}
