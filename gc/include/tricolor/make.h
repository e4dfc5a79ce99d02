// gc::make and its relatives: managed objects.
//
//   Node* n = gc::make<Node>(1, 2);                         // a managed Node, constructed from the arguments
//   gc::array<int> a = gc::make_array<int>(n);              // value-initialised elements
//   String* s = gc::make_extra<String>(bytes, hash);        // a String followed by zeroed storage: gc::extra(s)
//
// Common to all: the memory of a type that can hold references is zero when its constructor starts; alignment is alignof(T)
// (up to 8192). When the constructor throws, the cell is given back and the exception passes through. When memory ends (the
// hard limit, or the kernel refuses), a full collection is run and the allocation tried again; then the host's callback is
// asked (gc::set_out_of_memory_callback), or std::bad_alloc thrown and nothing lost. A size that overflows is
// std::bad_array_new_length. Any thread may call them. Cost: a few nanoseconds when the thread has a free cell at hand; an
// allocation may also wait for a collection.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include <tricolor/array.h>
#include <tricolor/detail/size_class.h>
#include <tricolor/detail/thread_cache.h>
#include <tricolor/layout.h>

namespace tricolor {

namespace detail {

// What an allocation asks for. `type` is null for pointer-free memory.
struct cell_request {
  std::size_t bytes = 0;  // of the cell's content; the cell may be larger
  std::size_t align = 1;
  std::size_t size_class = 0;
  const type_info& (*type)() = nullptr;
  std::atomic<std::uint32_t>* kind_slot = nullptr;  // where the id of the kind is kept
  bool zero = false;                                // pointer-free memory must be zero, too
};

// The general allocation: whatever the inline path does not do. `listed`, when not null, is set to the cell before the
// thread can be stopped with the cell chosen. Throws std::bad_alloc.
char* allocate_slow(const cell_request& request, const char** listed);

// The calling thread's cache; makes the heap and attaches the thread if need be. Throws std::bad_alloc.
thread_cache& attach_for_allocation();

// Gives back a cell whose constructor has thrown.
void give_back_cell(char* cell) noexcept;

// One of these a type and, for arrays and trailing storage, size class: the id of its kind, 0 before its first use.
template <class Layout>
inline constinit std::atomic<std::uint32_t> kind_slot{0};
template <class Layout>
inline constinit std::array<std::atomic<std::uint32_t>, kClassCount> kind_slots{};

// The inline path: a cell of exactly `cell_bytes` from the thread's run of `kind`, or null.
inline char* take_cell(std::uint32_t kind, std::size_t cell_bytes) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return nullptr;
  cache->enter_unit();
  char* const cell = try_take(*cache, kind, cell_bytes);
  cache->leave_unit();
  return cell;
}

// The same for a cell whose construction the collector must know of: it is listed in the same unit.
inline char* take_listed_cell(std::uint32_t kind, std::size_t cell_bytes, const char** listed) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return nullptr;
  cache->enter_unit();
  char* const cell = try_take(*cache, kind, cell_bytes);
  *listed = cell;
  cache->leave_unit();
  return cell;
}

// Pointer-free objects below 16 bytes share a block of 16. They live as long as any of them, so none has a life of its own: whatever
// is to be told of the end of one object must not come here.
inline char* take_tiny(std::size_t bytes, std::size_t align) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return nullptr;
  cache->enter_unit();
  char* object = nullptr;
  const auto cur = reinterpret_cast<std::uintptr_t>(cache->tiny.cur);
  const std::uintptr_t at = (cur + align - 1) & ~(align - 1);
  if (cur != 0 && at + bytes <= reinterpret_cast<std::uintptr_t>(cache->tiny.end)) {
    object = reinterpret_cast<char*>(at);
    cache->tiny.cur = object + bytes;
  } else if (char* const block = try_take(*cache, size_class_for(16, 16), 16); block != nullptr) {
    object = block;
    cache->tiny = {block + bytes, block + 16};
  }
  cache->leave_unit();
  return object;
}

// Tells the collector of a cell under construction, for types with a trace function.
class construction_scope {
 public:
  construction_scope()
      : x_cache(current_cache != nullptr ? current_cache : &attach_for_allocation()) {
    x_construction.outer = x_cache->constructing;
    // The list is read while this thread is stopped, which may be at any instruction: the compiler must not delay or
    // reorder these stores.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    x_cache->constructing = &x_construction;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~construction_scope() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    x_cache->constructing = x_construction.outer;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  construction_scope(const construction_scope&) = delete;
  construction_scope& operator=(const construction_scope&) = delete;
  const char** cell() { return &x_construction.cell; }

 private:
  thread_cache* const x_cache;
  construction x_construction;
};

struct nothing {};
template <bool kTraced>
using construction_scope_if = std::conditional_t<kTraced, construction_scope, nothing>;

// Gives the cell back when its construction throws. Null: nothing to give back.
class give_back_on_throw {
 public:
  explicit give_back_on_throw(char* cell) : x_cell(cell) {}
  ~give_back_on_throw() {
    if (x_cell != nullptr) give_back_cell(x_cell);
  }
  give_back_on_throw(const give_back_on_throw&) = delete;
  give_back_on_throw& operator=(const give_back_on_throw&) = delete;
  void constructed() { x_cell = nullptr; }

 private:
  char* x_cell;
};

// A tiny object has no cell of its own: when its construction throws, its bytes go with their block.
template <class T, bool kOwnCell, class... Args>
T* construct(char* cell, Args&&... args) {
  if constexpr (std::is_nothrow_constructible_v<T, Args...>) {
    return ::new (static_cast<void*>(cell)) T(std::forward<Args>(args)...);
  } else if constexpr (std::is_constructible_v<T, Args...>) {
    give_back_on_throw guard(kOwnCell ? cell : nullptr);
    T* const object = ::new (static_cast<void*>(cell)) T(std::forward<Args>(args)...);
    guard.constructed();
    return object;
  } else {  // an aggregate without the means of C++20's parenthesised initialisation (clang 14)
    give_back_on_throw guard(kOwnCell ? cell : nullptr);
    T* const object = ::new (static_cast<void*>(cell)) T{std::forward<Args>(args)...};
    guard.constructed();
    return object;
  }
}

// The layout of a cell that holds a T alone, an array of T, or a T with trailing storage.
template <class T>
struct object_layout {
  static constexpr const type_info& (*type)() = object_type_info<T>;
};
template <class T>
struct array_layout {
  static constexpr const type_info& (*type)() = array_type_info<T>;
};
template <class T>
struct extra_layout {
  static constexpr const type_info& (*type)() = extra_type_info<T>;
};

// A cell of a size known at run time only.
template <class Layout, bool kPointerFree>
char* allocate_sized(std::size_t bytes, std::size_t align, bool zero, const char** listed) {
  cell_request request{.bytes = bytes,
                       .align = align,
                       .size_class = size_class_at_run_time(bytes, align),
                       .zero = zero};
  std::uint32_t kind = static_cast<std::uint32_t>(request.size_class);
  if constexpr (!kPointerFree) {
    request.type = Layout::type;
    request.kind_slot = &kind_slots<Layout>[request.size_class];
    // Relaxed: an id is only an index into this thread's own runs, empty until the thread has looked the kind up.
    kind = request.kind_slot->load(std::memory_order_relaxed);
  }
  if (request.size_class != kLargeClass) {
    const std::size_t cell_bytes = kSizeClasses[request.size_class].cell_bytes;
    char* const cell = listed == nullptr ? take_cell(kind, cell_bytes)
                                         : take_listed_cell(kind, cell_bytes, listed);
    if (cell != nullptr) [[likely]] {
      if (kPointerFree && zero) std::memset(cell, 0, bytes);
      return cell;
    }
  }
  return allocate_slow(request, listed);
}

// header + count * stride + one byte behind the last, or std::bad_array_new_length.
inline std::size_t bytes_of_array(std::size_t header, std::size_t count, std::size_t stride) {
  constexpr std::size_t kMost = std::numeric_limits<std::ptrdiff_t>::max();
  if (count > (kMost - header - 1) / stride) throw std::bad_array_new_length();
  return header + count * stride + 1;
}

// Memory of zeros is a value-initialised T.
template <class T>
inline constexpr bool kZeroIsValue =
    is_managed_word<T> || std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_pointer_v<T>;

enum class initial { value, none };

template <class T>
array<T> make_array(std::size_t count, initial elements) {
  check_layout<T>();
  constexpr ScanMode kMode = scan_mode<T>;
  constexpr std::size_t kHeader = kArrayHeaderBytes<T>;
  constexpr std::size_t kAlign =
      alignof(T) > alignof(std::size_t) ? alignof(T) : alignof(std::size_t);
  const std::size_t bytes = bytes_of_array(kHeader, count, sizeof(T));
  construction_scope_if<kMode == ScanMode::traced> scope;
  const char** listed = nullptr;
  if constexpr (kMode == ScanMode::traced) listed = scope.cell();
  char* const cell = allocate_sized<array_layout<T>, kMode == ScanMode::none>(
      bytes, kAlign, elements == initial::value && kZeroIsValue<T>, listed);
  T* const first = reinterpret_cast<T*>(cell + kHeader);
  ::new (static_cast<void*>(cell + kHeader - sizeof(std::size_t))) std::size_t(count);
  if (elements == initial::value && !kZeroIsValue<T>) {
    give_back_on_throw guard(cell);
    std::uninitialized_value_construct_n(first, count);
    guard.constructed();
  }
  return array<T>::from_data(first);
}

}  // namespace detail

// A managed T, constructed from the arguments.
template <class T, class... Args>
T* make(Args&&... args) {
  detail::check_layout<T>();
  using namespace detail;
  constexpr ScanMode kMode = scan_mode<T>;
  constexpr bool kPointerFree = kMode == ScanMode::none;
  // The 8-byte class is pointer-free only: references need their own 16.
  constexpr std::size_t kBytes = !kPointerFree && sizeof(T) < 16 ? 16 : sizeof(T);
  constexpr std::size_t kClass = size_class_for(kBytes, alignof(T));
  constexpr std::size_t kCellBytes = kSizeClasses[kClass].cell_bytes;
  static_assert(alignof(T) <= kMaxAlign,
                "a managed type can be aligned to a page of 8192 bytes at most");
  construction_scope_if<kMode == ScanMode::traced> scope;
  const char** listed = nullptr;
  if constexpr (kMode == ScanMode::traced) listed = scope.cell();

  char* cell = nullptr;
  constexpr bool kTiny = kPointerFree && sizeof(T) < 16 && sizeof(T) != 8;
  if constexpr (kTiny) {
    cell = take_tiny(sizeof(T), alignof(T));
    if (cell == nullptr) [[unlikely]] {
      static constexpr cell_request kRequest{
          .bytes = 16, .align = 16, .size_class = size_class_for(16, 16)};
      cell = allocate_slow(kRequest, nullptr);
    }
  } else if constexpr (kPointerFree) {
    if constexpr (kClass != kLargeClass) cell = take_cell(kClass, kCellBytes);
    if (cell == nullptr) [[unlikely]] {
      static constexpr cell_request kRequest{
          .bytes = kBytes, .align = alignof(T), .size_class = kClass};
      cell = allocate_slow(kRequest, nullptr);
    }
  } else {
    using Layout = object_layout<T>;
    // Relaxed: as in allocate_sized.
    const std::uint32_t kind = kind_slot<Layout>.load(std::memory_order_relaxed);
    if constexpr (kClass != kLargeClass) {
      if constexpr (kMode == ScanMode::traced) {
        cell = take_listed_cell(kind, kCellBytes, listed);
      } else {
        cell = take_cell(kind, kCellBytes);
      }
    }
    if (cell == nullptr) [[unlikely]] {
      static constexpr cell_request kRequest{.bytes = kBytes,
                                             .align = alignof(T),
                                             .size_class = kClass,
                                             .type = Layout::type,
                                             .kind_slot = &kind_slot<Layout>};
      cell = allocate_slow(kRequest, listed);
    }
  }
  return construct<T, !kTiny>(cell, std::forward<Args>(args)...);
}

// A managed array of `count` value-initialised elements. 0 is valid: an empty array that is not null.
template <class T>
array<T> make_array(std::size_t count) {
  return detail::make_array<T>(count, detail::initial::value);
}

// The same with indeterminate elements, for buffers that are filled at once.
template <class T>
array<T> make_array_for_overwrite(std::size_t count) {
  static_assert(detail::scan_mode<T> == detail::ScanMode::none,
                "gc::make_array_for_overwrite is for pointer-free elements: the collector may read "
                "the others before they are "
                "written. Use gc::make_array.");
  static_assert(std::is_trivially_default_constructible_v<T>,
                "gc::make_array_for_overwrite constructs nothing, and these elements need a "
                "constructor. Use gc::make_array.");
  return detail::make_array<T>(count, detail::initial::none);
}

// A managed T followed by `bytes` of zeroed storage (gc::extra), whose references T describes with gc::trailing<E>.
template <class T, class... Args>
T* make_extra(std::size_t bytes, Args&&... args) {
  detail::check_layout<T>();
  using namespace detail;
  using Layout = extra_layout<T>;
  constexpr ScanMode kMode = extra_scan_mode<T>;
  constexpr std::size_t kAlign =
      alignof(T) > alignof(std::size_t) ? alignof(T) : alignof(std::size_t);
  construction_scope_if<kMode == ScanMode::traced> scope;
  const char** listed = nullptr;
  if constexpr (kMode == ScanMode::traced) listed = scope.cell();
  char* const cell = allocate_sized<Layout, kMode == ScanMode::none>(
      bytes_of_array(kExtraOffset<T>, bytes, 1), kAlign, true, listed);
  ::new (static_cast<void*>(cell + kExtraOffset<T> - sizeof(std::size_t))) std::size_t(bytes);
  return construct<T, true>(cell, std::forward<Args>(args)...);
}

// The storage behind an object made by make_extra<T>.
template <class T>
std::span<std::byte> extra(T* object) noexcept {
  char* const cell = reinterpret_cast<char*>(const_cast<std::remove_cv_t<T>*>(object));
  const std::size_t bytes =
      *reinterpret_cast<const std::size_t*>(cell + detail::kExtraOffset<T> - sizeof(std::size_t));
  return {reinterpret_cast<std::byte*>(cell + detail::kExtraOffset<T>), bytes};
}

}  // namespace tricolor
