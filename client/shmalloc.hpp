/* libshmalloc for C++17 and later: allocators, a std::pmr resource, pointers and named objects, over shmalloc.h.
 *
 *	shma::heap heap;                                                 // attaches, by environment; std::system_error
 *	using words = std::vector<int, shma::allocator<int>>;
 *	auto *v = shma::find_or_construct<words>(heap, "words", heap);   // in every process: the same one
 *	v->push_back(1);
 *
 * What can lie in a heap and be changed by several processes:
 *
 *	allocator<T>         standard containers, with raw pointers: every process must have the heap at its base (shma_stats.at_base),
 *	                     as all have unless that place was taken. What it stores is an address of its heap, good in all of them
 *	offset_allocator<T>  std::vector and Boost's containers, with offset_ptr: the heap may be mapped anywhere. (libstdc++ has no other
 *	                     container that takes such pointers)
 *	shared_resource()    std::pmr containers. They point to an object with virtual functions, whose addresses differ from process to
 *	                     process; so each process has one of its own, at the same address (shma_own_page). Each must have called
 *	                     shared_resource(heap) before it allocates, frees or compares resources there; without, it is a SIGSEGV. A process
 *	                     that only reads needs no such call. The virtual functions are those of the library or program that
 *	                     called first: it must stay loaded while the process is attached
 *
 * Rules for all of these. The container itself lies in the heap, made by construct or in a block. Its elements hold nothing that is
 * one process's: no virtual functions, no pointers or references to other memory, no std::function, no std::shared_ptr, no plain
 * std::string. Who shares a container is built with the same C++ library, and options that change its layout (as
 * _GLIBCXX_DEBUG does) are the same; compiler and -std may differ as far as that library's containers stay the same. Locking is the
 * program's, and so is what it does about a process that died in the middle of a change: memory is never harmed by that, but the
 * container may be half changed. A container that was default-constructed allocates from the default heap of whoever uses it.
 *
 * In one process alone:
 *
 *	memory_resource      a std::pmr resource over a heap, made anywhere but in a heap
 *	unique_ptr<T>        an object of the heap. It is shared memory still: another process may use the object, without its virtual functions
 *	make_shared<T>       its count has virtual functions, so no other process may copy or drop the pointer: the memory is scoped
 *
 * A forked child is another process: its copies of these pointers and containers would free what the parent still uses. It must leave by
 * _exit or exec, or release() what it inherited.
 *
 * Errors: std::bad_alloc where there is no memory (errno says why: it may be EAGAIN), std::system_error for attaching and roots, and with
 * EINVAL for a shma::heap that was moved from or detached.
 */
#ifndef SHMALLOC_HPP
#define SHMALLOC_HPP

#include <shmalloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <unistd.h>

namespace shma
{

/* An attached heap: attached when it is made, detached when it goes. It may end the default heap, which counts as attached by itself only
 * if its first use came before: what comes from the default heap, static objects too, must be gone before its last detach. */
class heap
{
      public:
	heap() : heap(shma_options{})
	{
	}

	explicit heap(const char *name, const char *socket = nullptr) : heap(options(name, socket))
	{
	}

	/* `size` need not be set. */
	explicit heap(shma_options options)
	{
		options.size = sizeof(options);
		heap_ = shma_attach(&options);
		if (!heap_)
			throw std::system_error(errno, std::generic_category(), "shma_attach");
	}

	heap(heap &&other) noexcept : heap_(std::exchange(other.heap_, nullptr))
	{
	}

	heap &operator=(heap &&other) noexcept
	{
		heap(std::move(other)).swap(*this);
		return *this;
	}

	~heap()
	{
		if (heap_)
			(void)shma_detach(heap_);
	}

	void swap(heap &other) noexcept
	{
		std::swap(heap_, other.heap_);
	}

	/* As the destructor, but says what went wrong: the memory is unmapped all the same. */
	void detach()
	{
		if (heap_ && shma_detach(std::exchange(heap_, nullptr)) != 0)
			throw std::system_error(errno, std::generic_category(), "shma_detach");
	}

	shma_heap *get() const noexcept
	{
		return heap_;
	}

	operator shma_heap *() const noexcept
	{
		return heap_;
	}

      private:
	static shma_options options(const char *name, const char *socket) noexcept
	{
		shma_options options{};

		options.heap = name;
		options.socket = socket;
		return options;
	}

	shma_heap *heap_ = nullptr;
};

namespace detail
{

[[noreturn]] inline void fail(const char *what, int error = errno)
{
	throw std::system_error(error, std::generic_category(), what);
}

/* `heap` may be null: the default heap. */
inline void *allocate(shma_heap *heap, std::size_t bytes, std::size_t alignment, unsigned flags)
{
	void *block;

	if (!heap && !flags && alignment <= 16)
		block = shma_malloc(bytes);
	else if (!heap && !(heap = shma_default()))
		block = nullptr;
	else
		block = shma_heap_alloc(heap, bytes, alignment, flags);
	if (!block)
		throw std::bad_alloc();
	return block;
}

template <class T> T *allocate_array(shma_heap *heap, std::size_t count, unsigned flags)
{
	if (count > std::numeric_limits<std::size_t>::max() / 2 / sizeof(T)) {
		errno = ENOMEM;
		throw std::bad_array_new_length();
	}
	return static_cast<T *>(allocate(heap, count * sizeof(T), alignof(T), flags));
}

/* Never null: what was moved from or detached must not become the default heap. */
inline shma_heap *attached(const heap &heap)
{
	if (!heap.get())
		fail("a shma::heap that was moved from or detached", EINVAL);
	return heap.get();
}

/* An address by which every process finds the heap; null for null, which is its default heap. */
inline void *home_of(shma_heap *heap)
{
	shma_stats stats{};

	stats.size = sizeof(stats);
	if (heap && shma_stats_get(heap, &stats) != 0)
		fail("shma_stats_get");
	return heap ? reinterpret_cast<void *>(stats.base) : nullptr;
}

/* The heap that has this address here; an address of none is no memory. */
inline shma_heap *heap_at(const void *home)
{
	shma_heap *heap = home ? shma_heap_of(home) : nullptr;

	if (home && !heap) {
		errno = EINVAL;
		throw std::bad_alloc();
	}
	return heap;
}

/* An object in a block of its own. */
template <class T, class... Args> T *create(shma_heap *heap, unsigned flags, Args &&...args)
{
	void *block = allocate(heap, sizeof(T), alignof(T), flags);

	try {
		return ::new (block) T(std::forward<Args>(args)...);
	} catch (...) {
		shma_free(block);
		throw;
	}
}

template <class T> void dispose(T *object) noexcept
{
	const void *block;

	if constexpr (std::is_polymorphic_v<T>)
		block = dynamic_cast<const void *>(object); /* where the whole object begins */
	else
		block = object;
	object->~T();
	shma_free(const_cast<void *>(block));
}

} /* namespace detail */

/* ---- allocators ---- */

/* With raw pointers, from one heap, found by an address that the allocator stores; made of nothing: from the default heap. Flags are
 * SHMA_SCOPED and SHMA_NOSCAN. Containers keep their allocator when they are assigned or swapped, as with std::pmr. */
template <class T, unsigned Flags = 0> class allocator
{
      public:
	using value_type = T;
	using propagate_on_container_move_assignment = std::false_type;
	using is_always_equal = std::false_type;
	template <class U> struct rebind {
		using other = allocator<U, Flags>;
	};

	allocator() noexcept = default;
	allocator(const allocator &) noexcept = default;
	allocator &operator=(const allocator &) noexcept = default;

	/* Not trivial: of a string whose allocator has a trivial one, Boost (1.74) believes that it need not be destroyed once it is
	 * moved from, though its move assignment swaps; in a vector of strings it would leak. */
	~allocator()
	{
	}

	allocator(shma_heap *heap) : home_(detail::home_of(heap))
	{
	}

	allocator(const heap &heap) : allocator(detail::attached(heap))
	{
	}

	template <class U> allocator(const allocator<U, Flags> &other) noexcept : home_(other.home())
	{
	}

	T *allocate(std::size_t count)
	{
		return detail::allocate_array<T>(detail::heap_at(home_), count, Flags);
	}

	void deallocate(T *first, std::size_t) noexcept
	{
		shma_free(first);
	}

	void *home() const noexcept
	{
		return home_;
	}

      private:
	void *home_ = nullptr;
};

template <class T, class U, unsigned Flags>
bool operator==(const allocator<T, Flags> &a, const allocator<U, Flags> &b) noexcept
{
	return a.home() == b.home();
}

template <class T, class U, unsigned Flags>
bool operator!=(const allocator<T, Flags> &a, const allocator<U, Flags> &b) noexcept
{
	return !(a == b);
}

/* A pointer that stores how far its target is from itself. Where both lie in one heap it is good in every process, wherever that has the
 * heap; anywhere else it is a pointer of this process. It is copied by its functions, never by memcpy. */
template <class T> class offset_ptr
{
	struct nothing {
	};

      public:
	using element_type = T;
	using value_type = std::remove_cv_t<T>;
	using difference_type = std::ptrdiff_t;
	using pointer = offset_ptr;
	using reference = std::add_lvalue_reference_t<T>;
	using iterator_category = std::random_access_iterator_tag;
#if __cplusplus >= 202002L
	using iterator_concept = std::contiguous_iterator_tag;
#endif
	template <class U> using rebind = offset_ptr<U>;

	offset_ptr() noexcept = default;

	offset_ptr(std::nullptr_t) noexcept
	{
	}

	offset_ptr(T *to) noexcept : far_(distance(to))
	{
	}

	offset_ptr(const offset_ptr &other) noexcept : offset_ptr(other.get())
	{
	}

	template <class U, std::enable_if_t<std::is_convertible_v<U *, T *>, int> = 0>
	offset_ptr(const offset_ptr<U> &other) noexcept : offset_ptr(static_cast<T *>(other.get()))
	{
	}

	/* What static_cast can do beyond: to a derived class, or from void. */
	template <class U, std::enable_if_t<!std::is_convertible_v<U *, T *>, int> = 0,
	        class = decltype(static_cast<T *>(std::declval<U *>()))>
	explicit offset_ptr(const offset_ptr<U> &other) noexcept : offset_ptr(static_cast<T *>(other.get()))
	{
	}

	offset_ptr &operator=(const offset_ptr &other) noexcept
	{
		far_ = distance(other.get());
		return *this;
	}

	offset_ptr &operator=(T *to) noexcept
	{
		far_ = distance(to);
		return *this;
	}

	/* The compiler must not see that the sum began with `this`: for GCC a pointer made from a local variable's address points into that
	 * variable, whatever was added, and what it leads to would be taken for untouched by all other pointers. */
	T *get() const noexcept
	{
		std::uintptr_t at = reinterpret_cast<std::uintptr_t>(this) + far_;

		__asm__("" : "+r"(at));
		return far_ == none ? nullptr : reinterpret_cast<T *>(at);
	}

	T *operator->() const noexcept
	{
		return get();
	}

	reference operator*() const noexcept
	{
		return *get();
	}

	reference operator[](difference_type i) const noexcept
	{
		return get()[i];
	}

	explicit operator bool() const noexcept
	{
		return far_ != none;
	}

	/* For std::pointer_traits, and for Boost's. */
	static offset_ptr pointer_to(std::conditional_t<std::is_void_v<T>, nothing, T> &object) noexcept
	{
		return offset_ptr(std::addressof(object));
	}

	template <class U> static offset_ptr static_cast_from(const offset_ptr<U> &other) noexcept
	{
		return offset_ptr(static_cast<T *>(other.get()));
	}

	template <class U> static offset_ptr const_cast_from(const offset_ptr<U> &other) noexcept
	{
		return offset_ptr(const_cast<T *>(other.get()));
	}

	offset_ptr &operator+=(difference_type n) noexcept
	{
		return *this = get() + n;
	}

	offset_ptr &operator-=(difference_type n) noexcept
	{
		return *this = get() - n;
	}

	offset_ptr &operator++() noexcept
	{
		return *this += 1;
	}

	offset_ptr &operator--() noexcept
	{
		return *this -= 1;
	}

	offset_ptr operator++(int) noexcept
	{
		offset_ptr old = *this;

		++*this;
		return old;
	}

	offset_ptr operator--(int) noexcept
	{
		offset_ptr old = *this;

		--*this;
		return old;
	}

	friend offset_ptr operator+(const offset_ptr &a, difference_type n) noexcept
	{
		return offset_ptr(a.get() + n);
	}

	friend offset_ptr operator+(difference_type n, const offset_ptr &a) noexcept
	{
		return offset_ptr(a.get() + n);
	}

	friend offset_ptr operator-(const offset_ptr &a, difference_type n) noexcept
	{
		return offset_ptr(a.get() - n);
	}

	friend difference_type operator-(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return a.get() - b.get();
	}

	friend bool operator==(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return a.get() == b.get();
	}

	friend bool operator!=(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return a.get() != b.get();
	}

	friend bool operator<(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return std::less<T *>()(a.get(), b.get());
	}

	friend bool operator>(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return b < a;
	}

	friend bool operator<=(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return !(b < a);
	}

	friend bool operator>=(const offset_ptr &a, const offset_ptr &b) noexcept
	{
		return !(a < b);
	}

      private:
	/* Null is 1: a list's head may well point to itself, but nothing points into the middle of its own pointer. */
	static constexpr std::uintptr_t none = 1;

	/* In integers: to the compiler the two are different objects, between which it may take a difference for impossible. */
	std::uintptr_t distance(T *to) const noexcept
	{
		return to ? reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(this) : none;
	}

	std::uintptr_t far_ = none;
};

template <class T, class U> offset_ptr<T> static_pointer_cast(const offset_ptr<U> &p) noexcept
{
	return offset_ptr<T>(static_cast<T *>(p.get()));
}

template <class T, class U> offset_ptr<T> const_pointer_cast(const offset_ptr<U> &p) noexcept
{
	return offset_ptr<T>(const_cast<T *>(p.get()));
}

template <class T, class U> offset_ptr<T> reinterpret_pointer_cast(const offset_ptr<U> &p) noexcept
{
	return offset_ptr<T>(reinterpret_cast<T *>(p.get()));
}

/* The same as allocator, with pointers that are good wherever the heap is mapped. */
template <class T, unsigned Flags = 0> class offset_allocator
{
      public:
	using value_type = T;
	using pointer = offset_ptr<T>;
	using const_pointer = offset_ptr<const T>;
	using void_pointer = offset_ptr<void>;
	using const_void_pointer = offset_ptr<const void>;
	using difference_type = std::ptrdiff_t;
	using size_type = std::size_t;
	using propagate_on_container_move_assignment = std::false_type;
	using is_always_equal = std::false_type;
	template <class U> struct rebind {
		using other = offset_allocator<U, Flags>;
	};

	offset_allocator() noexcept = default;
	offset_allocator(const offset_allocator &) noexcept = default;
	offset_allocator &operator=(const offset_allocator &) noexcept = default;

	~offset_allocator() /* as above */
	{
	}

	offset_allocator(shma_heap *heap) : home_(detail::home_of(heap))
	{
	}

	offset_allocator(const heap &heap) : offset_allocator(detail::attached(heap))
	{
	}

	template <class U> offset_allocator(const offset_allocator<U, Flags> &other) noexcept : home_(other.home())
	{
	}

	pointer allocate(size_type count)
	{
		return pointer(detail::allocate_array<T>(detail::heap_at(home_.get()), count, Flags));
	}

	void deallocate(const pointer &first, size_type) noexcept
	{
		shma_free(first.get());
	}

	void *home() const noexcept
	{
		return home_.get();
	}

      private:
	void_pointer home_;
};

template <class T, class U, unsigned Flags>
bool operator==(const offset_allocator<T, Flags> &a, const offset_allocator<U, Flags> &b) noexcept
{
	return a.home() == b.home();
}

template <class T, class U, unsigned Flags>
bool operator!=(const offset_allocator<T, Flags> &a, const offset_allocator<U, Flags> &b) noexcept
{
	return !(a == b);
}

/* ---- std::pmr ---- */

namespace detail
{

struct resource_place;

} /* namespace detail */

/* From one heap; null: the default heap. Equal to another one of the same heap and lifetime, whose blocks a container may then take over:
 * scoped and shared ones are told apart lest what a container shares goes with a process. Those of shared_resource are equal only among
 * themselves: what lies in the blocks may point to its resource as well, and a process's own one is nothing to others. */
class memory_resource final : public std::pmr::memory_resource
{
      public:
	explicit memory_resource(shma_heap *heap = nullptr, unsigned flags = 0)
	    : heap_(heap ? heap : shma_default()), flags_(flags)
	{
		if (!heap_)
			detail::fail("shma_default");
	}

	explicit memory_resource(const shma::heap &heap, unsigned flags = 0)
	    : memory_resource(detail::attached(heap), flags)
	{
	}

	shma_heap *heap() const noexcept
	{
		return heap_;
	}

	unsigned flags() const noexcept
	{
		return flags_;
	}

      private:
	friend struct detail::resource_place;

	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		return detail::allocate(heap_, bytes, alignment, flags_);
	}

	void do_deallocate(void *block, std::size_t, std::size_t) override
	{
		shma_free(block);
	}

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		if (table_of(&other) != table_of(this))
			return false;
		const auto &same = static_cast<const memory_resource &>(other);

		return same.heap_ == heap_ && same.in_own_page_ == in_own_page_ &&
		       !((same.flags_ ^ flags_) & unsigned{SHMA_SCOPED});
	}

	/* Which tells the type, without RTTI: the class is final. Two libraries that hide their symbols have each a table; then their
	 * resources are not equal, and a container copies. */
	static const void *table_of(const std::pmr::memory_resource *resource) noexcept
	{
		const void *table;

		std::memcpy(&table, static_cast<const void *>(resource), sizeof(table));
		return table;
	}

	shma_heap *heap_;
	unsigned flags_;
	bool in_own_page_ = false;
};

namespace detail
{

/* What lies in the page of each process's own, one after the other: resources without flags and with SHMA_NOSCAN. Containers in the heap
 * point to them, so where they are is the same in every version. */
struct resource_place {
	static constexpr std::uint32_t done = ~std::uint32_t{0};

	std::atomic<std::uint32_t> state; /* 0, the pid of who makes it, or `done` */
	alignas(16) unsigned char bytes[112];

	memory_resource *resource() noexcept
	{
		return std::launder(reinterpret_cast<memory_resource *>(bytes));
	}

	void make(shma_heap *heap, unsigned flags)
	{
		(::new (static_cast<void *>(bytes)) memory_resource(heap, flags))->in_own_page_ = true;
	}
};

static_assert(sizeof(resource_place) == 128 && sizeof(memory_resource) <= sizeof(resource_place::bytes));
static_assert(offsetof(resource_place, bytes) == 16 && std::atomic<std::uint32_t>::is_always_lock_free);

/* One thread makes it. A child that was forked just then finds its parent's pid, and makes it anew. */
inline memory_resource *settle(resource_place *place, shma_heap *heap, unsigned flags)
{
	const auto self = static_cast<std::uint32_t>(getpid());
	std::uint32_t state = place->state.load(std::memory_order_acquire);

	while (state != resource_place::done) {
		if (state != self && place->state.compare_exchange_weak(state, self, std::memory_order_acquire)) {
			place->make(heap, flags);
			place->state.store(resource_place::done, std::memory_order_release);
			break;
		}
		if (state == self)
			std::this_thread::yield();
		state = place->state.load(std::memory_order_acquire);
	}
	return place->resource();
}

} /* namespace detail */

/* The resource for std::pmr containers that lie in the heap and are changed by several processes: at the same address in all. `flags`: 0 or
 * SHMA_NOSCAN. Good as long as the process is attached. Throws std::system_error, with EADDRNOTAVAIL where the heap is not at its base. */
inline std::pmr::memory_resource *shared_resource(shma_heap *heap, unsigned flags = 0)
{
	shma_stats stats{};

	stats.size = sizeof(stats);
	if (flags & ~unsigned{SHMA_NOSCAN})
		detail::fail("shma::shared_resource", EINVAL);
	if (shma_stats_get(heap, &stats) != 0)
		detail::fail("shma::shared_resource");
	if (!stats.at_base)
		detail::fail("shma::shared_resource", EADDRNOTAVAIL);
	void *page = shma_own_page(heap);

	if (!page)
		detail::fail("shma_own_page");
	return detail::settle(static_cast<detail::resource_place *>(page) + (flags ? 1 : 0), heap, flags);
}

/* ---- smart pointers ---- */

/* For an object that has a block to itself. To a base class only where its destructor is virtual. */
template <class T> struct deleter {
	static_assert(!std::is_array_v<T>, "how many there are is not known: a container knows");

	deleter() noexcept = default;

	template <class U, std::enable_if_t<std::is_convertible_v<U *, T *> &&
	                                            (std::is_same_v<std::remove_cv_t<U>, std::remove_cv_t<T>> ||
	                                                    std::has_virtual_destructor_v<T>),
	                           int> = 0>
	deleter(const deleter<U> &) noexcept
	{
	}

	void operator()(T *object) const noexcept
	{
		detail::dispose(object);
	}
};

template <class T> using unique_ptr = std::unique_ptr<T, deleter<T>>;

/* From the default heap: gone before its last detach, as at class heap. */
template <class T, class... Args> unique_ptr<T> make_unique(Args &&...args)
{
	return unique_ptr<T>(detail::create<T>(nullptr, 0, std::forward<Args>(args)...));
}

/* From `heap` (null: the default heap), with SHMA_ flags. */
template <class T, class... Args> unique_ptr<T> make_unique_in(shma_heap *heap, unsigned flags, Args &&...args)
{
	return unique_ptr<T>(detail::create<T>(heap, flags, std::forward<Args>(args)...));
}

template <class T, class... Args> unique_ptr<T> make_unique_in(const heap &heap, unsigned flags, Args &&...args)
{
	return make_unique_in<T>(detail::attached(heap), flags, std::forward<Args>(args)...);
}

/* For the threads of one process; scoped, so that nothing stays behind. From the default heap: gone before its last detach, a static
 * pointer too. */
template <class T, class... Args> std::shared_ptr<T> make_shared(Args &&...args)
{
	return std::allocate_shared<T>(allocator<T, SHMA_SCOPED>(), std::forward<Args>(args)...);
}

template <class T, class... Args> std::shared_ptr<T> make_shared_in(shma_heap *heap, Args &&...args)
{
	return std::allocate_shared<T>(allocator<T, SHMA_SCOPED>(heap), std::forward<Args>(args)...);
}

template <class T, class... Args> std::shared_ptr<T> make_shared_in(const heap &heap, Args &&...args)
{
	return make_shared_in<T>(detail::attached(heap), std::forward<Args>(args)...);
}

/* ---- named objects ---- */

/* A root names an object of another type or size, or a block that construct has not made. */
class wrong_type : public std::logic_error
{
      public:
	explicit wrong_type(const char *name)
	    : std::logic_error("shmalloc: root '" + std::string(name) + "' names an object of another type")
	{
	}
};

namespace detail
{

/* What the root points to. */
template <class T> struct named {
	std::uint64_t type, size;
	T object;

	template <class... Args>
	explicit named(std::in_place_t, Args &&...args)
	    : type(type_hash()), size(sizeof(T)), object(std::forward<Args>(args)...)
	{
	}

	/* FNV-1a of the type's name, on which compilers for this ABI agree, but for an alias template
	 * that is an argument. 0 without RTTI: then the size alone is compared. */
	static std::uint64_t type_hash() noexcept
	{
		std::uint64_t hash = 0;

#ifdef __cpp_rtti
		hash = 0xcbf29ce484222325u;
		for (const char *c = typeid(T).name(); *c; c++)
			hash = (hash ^ static_cast<unsigned char>(*c)) * 0x100000001b3u;
#endif
		return hash;
	}

	static named *of(void *block, const char *name)
	{
		auto *found = static_cast<named *>(block);
		std::uint64_t hash = type_hash();

		if (shma_usable_size(block) < sizeof(named) || found->size != sizeof(T) ||
		        (found->type != hash && found->type && hash))
			throw wrong_type(name);
		return found;
	}

	/* Null if there is none. */
	static named *find(shma_heap *heap, const char *name)
	{
		void *block = shma_root_get(heap, name);

		if (!block && errno != ENOENT)
			fail("shma_root_get");
		return block ? of(block, name) : nullptr;
	}
};

/* The root was not set, by `error`. Where that is not certain the object stays: it may be found by its name a moment later. */
template <class T> [[noreturn]] void root_failed(unique_ptr<named<T>> &made, int error)
{
	if (error != EEXIST && error != EINVAL && error != ENOSPC)
		(void)made.release();
	made.reset();
	fail("shma_root_add", error);
}

} /* namespace detail */

/* The object of that name; null if there is none. */
template <class T> T *find(shma_heap *heap, const char *name)
{
	auto *found = detail::named<T>::find(heap, name);

	return found ? &found->object : nullptr;
}

/* Makes an object and names it: others find it when it is complete. std::system_error with EEXIST if the name is taken; with EAGAIN the
 * daemon did not answer, and the object may have its name or stay behind without one. */
template <class T, class... Args> T *construct(shma_heap *heap, const char *name, Args &&...args)
{
	unique_ptr<detail::named<T>> made(
	        detail::create<detail::named<T>>(heap, 0, std::in_place, std::forward<Args>(args)...));

	if (shma_root_add(heap, name, made.get()) != 0)
		detail::root_failed<T>(made, errno);
	return &made.release()->object;
}

/* Of processes that do this at once all get the same object; those of the others are destroyed unseen. */
template <class T, class... Args> T *find_or_construct(shma_heap *heap, const char *name, Args &&...args)
{
	if (T *found = find<T>(heap, name))
		return found;
	unique_ptr<detail::named<T>> made(
	        detail::create<detail::named<T>>(heap, 0, std::in_place, std::forward<Args>(args)...));

	while (shma_root_add(heap, name, made.get()) != 0) {
		if (errno != EEXIST)
			detail::root_failed<T>(made, errno);
		if (T *found = find<T>(heap, name))
			return found;
	}
	return &made.release()->object;
}

/* Takes the name away and destroys the object: false if there is none. That nobody else uses it, destroys it or gives the name to another
 * object meanwhile is for the program to see to. std::system_error with EAGAIN if the daemon did not answer: the object stays, and its name
 * may vanish a moment later. */
template <class T> bool destroy(shma_heap *heap, const char *name)
{
	auto *found = detail::named<T>::find(heap, name);

	if (!found)
		return false;
	if (shma_root_del(heap, name) != 0)
		detail::fail("shma_root_del");
	detail::dispose(found);
	return true;
}

} /* namespace shma */

template <class T> struct std::hash<shma::offset_ptr<T>> {
	std::size_t operator()(const shma::offset_ptr<T> &p) const noexcept
	{
		return std::hash<T *>()(p.get());
	}
};

#endif
