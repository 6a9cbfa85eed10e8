/* The header without RTTI: what the tests beside this one have of it, in brief. */
#include "tests/client/cpp/turns.hpp"

struct front {
	virtual ~front() = default;
	int f = 1;
};

struct back {
	virtual ~back() = default;
	int b = 2;
};

struct both : front, back {
};

/* Not ours, and larger than ours, so that what we would compare is there. */
struct other_resource : std::pmr::memory_resource {
	void *do_allocate(std::size_t, std::size_t) override
	{
		throw std::bad_alloc();
	}

	void do_deallocate(void *, std::size_t, std::size_t) override
	{
	}

	bool do_is_equal(const std::pmr::memory_resource &) const noexcept override
	{
		return false;
	}

	void *space[8] = {};
};

static void resources(shma_heap *heap)
{
	shma::memory_resource one(heap), same(heap, SHMA_NOSCAN), scoped(heap, SHMA_SCOPED);
	std::pmr::memory_resource *shared = shma::shared_resource(heap);
	other_resource other;

	child_check(one == same && !(one == scoped) && !(one == *shared) && !(one == other));
	child_check(*shared == *shma::shared_resource(heap, SHMA_NOSCAN) && !(*shared == same));
	std::pmr::vector<int> v({1, 2, 3}, shared);

	child_check(shma_heap_of(v.data()) == heap);
}

/* The size alone tells the types apart. */
static void names(shma_heap *heap)
{
	int *n = shma::construct<int>(heap, "n", 7);

	child_check(shma::find<int>(heap, "n") == n && *shma::find<unsigned>(heap, "n") == 7);
	child_check(throws<shma::wrong_type>([&] { shma::find<char>(heap, "n"); }));
	child_check(shma::destroy<int>(heap, "n"));
}

int main()
{
	own_daemon d;

	{
		shma::heap heap(nullptr, d.socket);

		resources(heap);
		names(heap);
		shma::unique_ptr<back> by_its_middle = shma::make_unique_in<both>(heap, 0);

		child_check(by_its_middle->b == 2 && shma_heap_of(by_its_middle.get()) == heap);
	}
	d.expect_empty();
	d.end();
	return 0;
}
