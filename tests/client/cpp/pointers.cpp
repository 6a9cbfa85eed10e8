/* shma::offset_ptr, also in a heap that two processes have at different addresses; unique_ptr and shared_ptr. */
#include "tests/client/cpp/elsewhere.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_set>

using shma::offset_ptr;

template <class T> using offset_vector = std::vector<T, shma::offset_allocator<T>>;

/* ---- what the type is ---- */

struct base {
	int b = 1;
};

struct derived : base {
	int d = 2;
};

struct incomplete;

using traits = std::pointer_traits<offset_ptr<int>>;
using iterator_traits = std::iterator_traits<offset_ptr<const int>>;

static_assert(std::is_same_v<traits::element_type, int> && std::is_same_v<traits::difference_type, std::ptrdiff_t>);
static_assert(std::is_same_v<traits::rebind<char>, offset_ptr<char>>);
static_assert(
        std::is_same_v<iterator_traits::value_type, int> && std::is_same_v<iterator_traits::reference, const int &>);
static_assert(std::is_same_v<iterator_traits::iterator_category, std::random_access_iterator_tag>);
static_assert(std::is_convertible_v<offset_ptr<derived>, offset_ptr<base>>);
static_assert(std::is_convertible_v<offset_ptr<int>, offset_ptr<const int>>);
static_assert(std::is_convertible_v<offset_ptr<int>, offset_ptr<void>> &&
              std::is_convertible_v<int *, offset_ptr<const void>>);
static_assert(!std::is_convertible_v<offset_ptr<base>, offset_ptr<derived>>);
static_assert(std::is_constructible_v<offset_ptr<derived>, offset_ptr<base>>);
static_assert(std::is_constructible_v<offset_ptr<int>, offset_ptr<void>> &&
              !std::is_convertible_v<offset_ptr<void>, offset_ptr<int>>);
static_assert(!std::is_constructible_v<offset_ptr<int>, offset_ptr<const int>>);
static_assert(!std::is_constructible_v<offset_ptr<int>, offset_ptr<char>>);
static_assert(!std::is_convertible_v<offset_ptr<int>, bool> && !std::is_trivially_copyable_v<offset_ptr<int>>);
static_assert(sizeof(offset_ptr<incomplete>) == sizeof(void *));
#if __cplusplus >= 202002L
static_assert(std::contiguous_iterator<offset_ptr<int>> && std::contiguous_iterator<offset_ptr<const int>>);
static_assert(std::totally_ordered<offset_ptr<int>>);
#endif

static void null_and_self()
{
	offset_ptr<int> null, other = nullptr, copy = null;
	struct link {
		offset_ptr<link> next;
	} self;

	child_check(!null && null == nullptr && null == other && !copy && null.get() == nullptr);
	self.next = &self;
	child_check(self.next && self.next.get() == &self && self.next->next == self.next);
	link elsewhere = self; /* to the same place from another one */

	child_check(elsewhere.next.get() == &self);
	elsewhere.next = nullptr;
	child_check(!elsewhere.next && elsewhere.next != self.next);
	std::unordered_set<offset_ptr<link>> set{self.next, offset_ptr<link>(), &self};

	child_check(set.size() == 2 && set.count(&self) == 1);
}

static void casts()
{
	derived object;
	const derived constant;
	offset_ptr<derived> d = &object;
	offset_ptr<base> b = d;
	offset_ptr<void> v = b;
	offset_ptr<const base> c = b;
	offset_ptr<const derived> k = &constant;

	child_check(b->b == 1 && offset_ptr<derived>(b)->d == 2 && shma::static_pointer_cast<derived>(b) == d);
	child_check(offset_ptr<base>(v) == b && shma::static_pointer_cast<base>(v) == b && c == b && !(c < b));
	child_check(shma::const_pointer_cast<base>(c) == b && shma::const_pointer_cast<derived>(k).get() == &constant);
	child_check(shma::reinterpret_pointer_cast<int>(b).get() == &object.b);
	child_check(traits::pointer_to(object.b).get() == &object.b);
	child_check(offset_ptr<derived>::static_cast_from(b) == d && offset_ptr<base>::const_cast_from(c) == b);
}

static void an_iterator()
{
	std::vector<int> numbers(1000), sorted(1000);
	offset_ptr<int> first = numbers.data(), last = first + 1000;

	for (unsigned i = 0; i < 1000; i++)
		numbers[i] = static_cast<int>(i * 7919 % 1009);
	sorted = numbers;
	std::sort(sorted.begin(), sorted.end());
	std::sort(first, last);
	child_check(
	        numbers == sorted && last - first == 1000 && first < last && last >= first && first[7] == sorted[7]);
	offset_ptr<int> at = first;

	child_check(*at++ == sorted[0] && *at == sorted[1] && *++at == sorted[2] && *at-- == sorted[2] &&
	            *--at == sorted[0]);
	at += 10;
	at -= 3;
	child_check(*at == sorted[7] && *(2 + at) == sorted[9] && *(at - 7) == sorted[0]);
	child_check(std::lower_bound(first, last, sorted[500]) - first == 500);
	std::reverse_iterator<offset_ptr<int>> back(last);

	child_check(*back == sorted[999]);
}

/* ---- what an optimiser may not believe (this file is built with -O2) ---- */

static void seek(offset_ptr<base> &cursor, base *to)
{
	cursor = to;
}

static void (*volatile seek_unseen)(offset_ptr<base> &, base *) = seek;

/* That the cursor is on the stack says nothing of what it points to. */
__attribute__((noinline)) static int through_a_local(base *to)
{
	offset_ptr<base> cursor;

	seek_unseen(cursor, to);
	to->b = 1;
	cursor->b += 1;
	return to->b;
}

/* ---- a heap at two addresses ---- */

struct node {
	offset_ptr<node> next;
	int value;
};

struct shared {
	explicit shared(const shma::offset_allocator<int> &a) : numbers(a), rows(a)
	{
	}

	offset_vector<int> numbers;
	offset_vector<offset_vector<int>> rows;
	offset_ptr<node> head;
	int round = 0;

	void turn(shma_heap *heap)
	{
		check();
		numbers.insert(numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2), 1000, round);
		rows.emplace_back(static_cast<std::size_t>(round) * 10, round, numbers.get_allocator());
		if (rows.size() > 5)
			rows.erase(rows.begin());
		if (round % 4 == 3)
			numbers.shrink_to_fit();
		auto *made = static_cast<node *>(shma_heap_alloc(heap, sizeof(node), alignof(node), 0));

		child_check(made != nullptr);
		head = ::new (made) node{head, round};
		round++;
	}

	void check() const
	{
		child_check(numbers.size() == static_cast<std::size_t>(round) * 1000);
		child_check(std::accumulate(numbers.begin(), numbers.end(), 0) == 500 * round * (round - 1));
		child_check(rows.size() == static_cast<std::size_t>(std::min(round, 5)));
		for (const auto &row : rows)
			child_check(std::count(row.begin(), row.end(),
			                    row.empty() ? 0 : static_cast<int>(row.size() / 10)) ==
			            static_cast<std::ptrdiff_t>(row.size()));
		int expected = round;

		for (offset_ptr<const node> n = head; n; n = n->next)
			child_check(n->value == --expected);
		child_check(expected == 0);
	}

	~shared()
	{
		while (head) {
			node *gone = head.get();

			head = gone->next;
			shma_free(gone);
		}
	}
};

static int be_a_peer(const char *socket, const char *base)
{
	shma::heap heap = attach_elsewhere(socket, base);
	auto *s = shma::find<shared>(heap, "shared");

	child_check(fails(EADDRNOTAVAIL, [&] { shma::shared_resource(heap); }));
	return peer::serve([&](int) { s->turn(heap); });
}

static void at_two_addresses(own_daemon &d)
{
	shma::heap heap(nullptr, d.socket);
	auto *s = shma::construct<shared>(heap, "shared", heap);

	for (const std::string &build : peer::builds("pointers")) {
		peer one(build, d.socket, base_of(heap)), doomed(build, d.socket, base_of(heap));

		for (int i = 0; i < 3; i++) {
			s->turn(heap);
			doomed.turn(i);
			one.turn(i);
		}
		doomed.kill();
		s->turn(heap);
		one.turn(3);
	}
	s->check();
	child_check(shma::destroy<shared>(heap, "shared"));
}

/* ---- smart pointers ---- */

static int alive;

struct front {
	virtual ~front() = default;
	int f = 1;
};

struct animal {
	animal()
	{
		alive++;
	}

	animal(const animal &) = delete;
	animal &operator=(const animal &) = delete;

	virtual ~animal()
	{
		alive--;
	}

	virtual int legs() const
	{
		return 0;
	}
};

struct cat : front, animal {
	explicit cat(int n) : tail(n)
	{
		if (n < 0)
			throw std::range_error("no cat");
	}

	int legs() const override
	{
		return 4;
	}

	int tail;
};

/* Freed by a base that does not lie at the block's start. */
static_assert(std::is_convertible_v<shma::unique_ptr<cat>, shma::unique_ptr<animal>>);
static_assert(
        !std::is_convertible_v<shma::unique_ptr<derived>, shma::unique_ptr<base>>, "whose destructor is not virtual");
static_assert(std::is_convertible_v<shma::unique_ptr<base>, shma::unique_ptr<const base>>);
static_assert(sizeof(shma::unique_ptr<cat>) == sizeof(cat *));

static void smart_pointers()
{
	shma::unique_ptr<cat> one = shma::make_unique<cat>(3);
	shma::unique_ptr<animal> two = std::move(one);

	child_check(!one && two->legs() == 4 && alive == 1 && shma_heap_of(two.get()) == shma_default());
	two.reset();
	child_check(alive == 0 && throws<std::range_error>([] { (void)shma::make_unique<cat>(-1); }) && alive == 0);
	shma::unique_ptr<const base> constant = shma::make_unique<base>();

	child_check(constant->b == 1);
	std::shared_ptr<animal> three = shma::make_shared<cat>(5), four = three;
	std::weak_ptr<animal> weak = three;

	child_check(three.use_count() == 2 && four->legs() == 4 && shma_heap_of(three.get()) == shma_default());
	three.reset();
	four.reset();
	child_check(weak.expired() && alive == 0);
	three = shma::make_shared_in<cat>(shma_default(), 5);
	child_check(alive == 1);
}

/* Scoped: it is gone with the process, though nobody has dropped it. */
static int leave_one(void *)
{
	auto *left = new std::shared_ptr<cat>(shma::make_shared<cat>(5));
	auto scoped = shma::make_unique_in<cat>(nullptr, SHMA_SCOPED, 1);

	child_check((*left)->legs() == 4 && scoped->legs() == 4);
	(void)scoped.release();
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return be_a_peer(argv[1], argv[2]);
	own_daemon d;

	null_and_self();
	casts();
	an_iterator();
	base object;

	child_check(through_a_local(&object) == 2);
	at_two_addresses(d);
	d.expect_empty();
	child_check(setenv("SHMALLOC_SOCKET", d.socket, 1) == 0);
	child_check(child_run(leave_one, nullptr) == 0);
	d.expect_empty();
	smart_pointers();
	child_check(shma_detach(shma_default()) == 0);
	d.expect_empty();
	d.end();
	return 0;
}
