// Moves the only reference to objects between all the places a reference may stand in, while collections run all the time.
//
//   STRESS_SECONDS=60 moves [--threads=8] [--moves=N] [--least=N] [--seed=N] [--tokens=30000] [--without=KIND,...]
//                           [--plant=FAULT]
//
// A token is an object with an identity and a list of parts; nothing refers to it but the one place it is in. Threads take what
// a place has and leave there what they held: each such exchange is a move. What is taken and what is left is checked every
// time. A token's identity says in a table that the collector cannot see whether somebody has it, so two threads never have
// the same; at the end every place is emptied, and each identity must be there exactly once.
//
// How tokens get lost, in a collector that marks beside the program, and what is here for it:
//  - Marking takes time: cells stand in chains of thousands, which a marker meets one after the other, and threads walk along
//    them at two points each, so tokens move from where the marker has yet to come to where it has been.
//  - What was taken from the heap must stay on a stack until marking ends, with no store that could save it: held tokens are
//    kept for 2 moves, 4, 8, ... 65536, and threads have boxes in their frames which others write to.
//  - What was lost must show: freed cells are clobbered (unless TRICOLOR_DEBUG=clobberfree=0), tokens are made anew all the
//    time and take their cells, and a held token is checked long after.
//
// The frame of a thread inside gc::blocking_call ("shelf") is read by the collector later than the others: a thread that takes
// a token from there first stores it in a gc::ptr or gc::root. The boxes of running threads have no such rule: a thread shuts
// its own before it blocks.
//
// --without leaves out kinds of places (--without=help names them). --plant does it wrong on purpose, to show that the test
// finds such faults: "malloc" keeps a token in memory that the collector does not see; "store" and "construct" write past the
// barrier; "parked" takes from shelves without storing first. The last three lose tokens only if the library marks beside the
// program. Everything but the schedule follows from the seed. Exits with 1 when a token was lost, doubled or changed.
//
// So many moves at least (--least, of which a quarter while a cycle marked) belong to a run. Where there are not enough after
// STRESS_SECONDS, it goes on for up to twenty times as long and then exits with 2: too few say nothing.
#include <tricolor/gc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace {

// ---------------------------------------------------------------------------------- arguments

enum Kind : unsigned {
  kStack,     // down some frames and up again
  kBlocked,   // on this thread's stack, while it is inside gc::blocking_call
  kBox,       // the frame of another thread that runs
  kShelf,     // the frame of a thread that may be inside gc::blocking_call
  kField,     // a field
  kInside,    // a field that refers into the token
  kOptional,  // std::optional, emplaced and reset
  kMember,    // a member struct, destroyed and constructed
  kVector,    // elements pushed and popped
  kVariant,   // std::variant, which has the token, or a fresh object that has it
  kElement,   // an element of a large gc::array
  kGrowing,   // elements of gc::arrays that are replaced by larger and smaller ones
  kTraced,    // elements that only trace() reports
  kGlobal,    // globals and statics
  kThread,    // the thread's own thread_local
  kForeign,   // another thread's thread_local
  kRoot,      // a handle in malloc memory, assigned or moved
  kHandle,    // a handle that is moved from thread to thread
  kErrand,    // a thread that is started for it, and ends
  kBulk,      // elements that are shifted, filled and cleared many at once
  kRaw,       // malloc memory that is registered, without a barrier
  kRange,     // gc::ptr in such memory
  kPassing,   // the same, registered for this one move
  kPushed,    // a value stack of the thread's own, which moves to and fro
  kKinds
};
constexpr std::array<const char*, kKinds> kKindNames = {
    "stack",  "blocked", "box",     "shelf",   "field",  "inside", "optional", "member",
    "vector", "variant", "element", "growing", "traced", "global", "thread",   "foreign",
    "root",   "handle",  "errand",  "bulk",    "raw",    "range",  "passing",  "pushed"};

enum class Plant : std::uint8_t { nothing, malloc, store, construct, parked };

struct Arguments {
  std::uint64_t threads = 8;
  std::uint64_t moves = ~std::uint64_t{0};
  std::uint64_t least = 0;
  std::uint64_t seed = std::random_device{}();
  std::uint64_t tokens = 30'000;
  std::uint64_t seconds = 60;
  std::array<bool, kKinds> without = {};
  Plant plant = Plant::nothing;
};
Arguments arguments;

[[noreturn]] void complain(std::string_view argument) {
  std::fprintf(
      stderr,
      "moves: what is %.*s?\nusage: moves [--threads=2..32] [--moves=N] [--least=N] [--seed=N] "
      "[--tokens=N] [--without=KIND,...] [--plant=malloc|store|construct|parked]\nkinds:",
      static_cast<int>(argument.size()), argument.data());
  for (const char* const name : kKindNames) std::fprintf(stderr, " %s", name);
  std::fprintf(stderr, "\n");
  std::exit(2);
}

std::uint64_t number_from(const char* text, std::uint64_t otherwise) {
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

void leave_out(std::string_view names, std::string_view argument) {
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(std::min(name.size() + 1, names.size()));
    unsigned kind = 0;
    while (kind < kKinds && name != kKindNames[kind]) ++kind;
    if (kind == kKinds) complain(argument);
    arguments.without[kind] = true;
  }
}

void read_arguments(int argc, char** argv) {
  arguments.seconds = number_from(std::getenv("STRESS_SECONDS"), arguments.seconds);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    if (equals == argument.npos) complain(argument);
    const char* const value = argv[i] + equals + 1;
    if (name == "--threads") {
      arguments.threads = number_from(value, 0);
    } else if (name == "--moves") {
      arguments.moves = number_from(value, 0);
    } else if (name == "--least") {
      arguments.least = number_from(value, 0);
    } else if (name == "--seed") {
      arguments.seed = number_from(value, 0);
    } else if (name == "--tokens") {
      arguments.tokens = number_from(value, 0);
    } else if (name == "--without") {
      leave_out(value, argument);
    } else if (argument == "--plant=malloc") {
      arguments.plant = Plant::malloc;
    } else if (argument == "--plant=store") {
      arguments.plant = Plant::store;
    } else if (argument == "--plant=construct") {
      arguments.plant = Plant::construct;
    } else if (argument == "--plant=parked") {
      arguments.plant = Plant::parked;
    } else {
      complain(argument);
    }
  }
  auto without = arguments.without;
  without[kErrand] = true;  // never alone
  if (std::all_of(without.begin(), without.end(), std::identity()))
    complain("to leave out all kinds");
  if (arguments.threads < 2 || arguments.threads > 32) complain("this number of threads");
  if (arguments.tokens < 100 || arguments.tokens > 100'000'000) complain("this number of tokens");
}

// ------------------------------------------------------------------------------------- tokens

struct Part {
  gc::ptr<Part> next;
  std::uint64_t value = 0;
};

struct Token {
  std::uint64_t id = 0;
  gc::ptr<Part> parts;
  std::uint64_t birth = 0;  // how often this identity has been made anew
  std::uint64_t check = 0;
};

constexpr std::uint64_t kParts = 3;
constexpr std::uint64_t kClobbered = 0xdeadbeefdeadbeef;

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a = (a ^ b) * 0x9e3779b97f4a7c15;
  return a ^ a >> 29;
}

// What is known of each identity, where the collector does not look.
struct Known {
  std::atomic<std::uint64_t> birth{0};   // written by the thread that has it
  std::atomic<std::uint32_t> holder{0};  // 0: in a place; else the number of the thread that has it
};
std::vector<Known> known;

[[noreturn]] void fail(const char* what, const Token* token, const char* where) {
  std::fprintf(stderr, "LOST: %s, %s; token at %p; --seed=%llu --threads=%llu --tokens=%llu\n",
               what, where, static_cast<const void*>(token),
               static_cast<unsigned long long>(arguments.seed),
               static_cast<unsigned long long>(arguments.threads),
               static_cast<unsigned long long>(arguments.tokens));
  std::fflush(stderr);
  std::_Exit(1);
}

std::uint64_t check_of(std::uint64_t id, std::uint64_t birth) {
  return mix(mix(id, birth), arguments.seed);
}

// A word of the token or of a part is read before it is followed: what has been clobbered is reported, not followed.
void check(const Token* token, const char* where) {
  if (token == nullptr) return;
  const std::uint64_t id = token->id;
  if (id == kClobbered) fail("a freed token", token, where);
  if (id >= known.size()) fail("no token", token, where);
  const std::uint64_t birth = token->birth;
  if (token->check != check_of(id, birth)) fail("a token has changed", token, where);
  // Relaxed: written by whoever had the token, and so before we had it.
  if (known[id].birth.load(std::memory_order_relaxed) != birth)
    fail("an earlier token of this identity", token, where);
  std::uint64_t sum = 0;
  std::uint64_t count = 0;
  for (const Part* part = token->parts; part != nullptr; part = part->next) {
    if (reinterpret_cast<std::uintptr_t>(part) == kClobbered) fail("a freed part", token, where);
    if (part->value == kClobbered) fail("a freed part", token, where);
    if (++count > kParts) fail("too many parts", token, where);
    sum += part->value;
  }
  if (count != kParts) fail("a part is missing", token, where);
  std::uint64_t expected = 0;
  for (std::uint64_t i = 0; i < kParts; ++i) expected += mix(token->check, i);
  if (sum != expected) fail("a part has changed", token, where);
}

Token* make_token(std::uint64_t id, std::uint64_t birth) {
  Token* const token = gc::make<Token>();
  token->id = id;
  token->birth = birth;
  token->check = check_of(id, birth);
  for (std::uint64_t i = 0; i < kParts; ++i) {
    Part* const part = gc::make<Part>();
    part->value = mix(token->check, i);
    part->next = token->parts;
    token->parts = part;
  }
  known[id].birth.store(birth, std::memory_order_relaxed);
  return token;
}

// Each part's only reference moves from the list to the stack to the list.
void reverse_parts(Token* token) {
  Part* rest = token->parts;
  token->parts = nullptr;
  while (rest != nullptr) {
    Part* const part = rest;
    rest = part->next;
    part->next = token->parts;
    token->parts = part;
  }
}

// ------------------------------------------------------------------------------------- places

// The right to change a place, for as long as this exists, or not. Nobody waits for it.
class Turn {
 public:
  // Acquire: what the last one left here is complete. Pairs with the release below.
  explicit Turn(std::atomic<std::uint32_t>& busy)
      : x_busy(busy.exchange(1, std::memory_order_acquire) == 0 ? &busy : nullptr) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  // Release: pairs with the acquire above.
  ~Turn() {
    if (x_busy != nullptr) x_busy->store(0, std::memory_order_release);
  }
  explicit operator bool() const { return x_busy != nullptr; }

 private:
  std::atomic<std::uint32_t>* const x_busy;
};

struct Member {
  gc::ptr<Token> token;
  std::uint64_t stamp = 0;
};
struct Wrapper {
  gc::ptr<Token> token;
};
// A vector with room for three, as such containers are written.
struct Few {
  std::size_t count = 0;
  std::array<gc::ptr<Token>, 3> tokens;

  bool full() const { return count == tokens.size(); }
  void push_back(Token* token) { std::construct_at(&tokens[count++], token); }
  Token* pop_back() {
    Token* const token = tokens[--count];
    std::destroy_at(&tokens[count]);
    return token;
  }
};

struct Cell {
  gc::ptr<Cell> next;
  std::atomic<std::uint32_t> busy{0};
  gc::ptr<Token> field;
  gc::ptr<std::uint64_t> inside;  // the token's `birth`
  std::optional<gc::ptr<Token>> optional;
  Member member;
  Few vector;
  std::variant<std::monostate, gc::ptr<Token>, gc::ptr<Wrapper>> variant;
};

// A vector that grows and shrinks.
struct Growing {
  std::atomic<std::uint32_t> busy{0};
  std::size_t count = 0;
  gc::array<gc::ptr<Token>> tokens;
};

// A queue of which either end is the head, by turns.
struct Queue {
  std::atomic<std::uint32_t> busy{0};
  std::size_t count = 0;
  gc::array<gc::ptr<Token>> tokens;
};

// References that only trace() knows, at the same time as the program changes them: an element is reported before it is there,
// and null, by a store, before it is reported no more.
struct Traced {
  std::atomic<std::uint32_t> busy{0};
  std::atomic<std::uint32_t> count{
      0};  // of the elements that are reported; relaxed, as nothing else hangs on it
  std::array<gc::ptr<Token>, 5> tokens;

  void trace(gc::tracer& t) const noexcept {
    const std::uint32_t reported = count.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < reported; ++i) t(tokens[i]);
  }
};

// In a thread's frame.
struct Box {
  std::atomic<std::uint32_t> busy{0};
  Token* token = nullptr;
};
struct Frame {
  std::array<Box, 8>
      boxes;  // others take what they like, so they are shut while the thread is blocked
  std::array<Box, 16> shelf;  // always open; whoever takes stores first
};

struct Handle {
  std::atomic<std::uint32_t> busy{0};
  gc::root<Token> root;
};

// Namespace scope, a class's statics, a function's statics.
constexpr std::size_t kGlobals = 32;
gc::ptr<Token> of_namespace[kGlobals];
struct OfClass {
  static inline gc::ptr<Token> tokens[kGlobals];
};
gc::ptr<Token>& of_function(std::size_t i) {
  static gc::ptr<Token> tokens[kGlobals];
  return tokens[i];
}
std::array<std::atomic<std::uint32_t>, 3 * kGlobals> globals_busy;
gc::ptr<Token>& global(std::size_t i) {
  if (i < kGlobals) return of_namespace[i];
  return i < 2 * kGlobals ? OfClass::tokens[i - kGlobals] : of_function(i - 2 * kGlobals);
}

constexpr std::size_t kChains = 8;
gc::array<gc::ptr<Cell>> chains;
gc::array<gc::ptr<Token>> table;  // large: marked in pieces
std::array<std::atomic<std::uint32_t>, 1024> table_busy;
constexpr std::size_t kVectors = 32;
constexpr std::size_t kMostGrown = 256;
constexpr std::size_t kTracedObjects = 256;
gc::array<gc::ptr<Traced>> traced;
gc::array<gc::ptr<Growing>> growing;
constexpr std::size_t kQueues = 64;
constexpr std::size_t kMostQueued = 100;  // more than a unit of the barrier has
gc::array<gc::ptr<Queue>> queues;
std::deque<Handle> handles(512);

// In malloc memory, registered while the threads run.
constexpr std::size_t kRangePlaces = 2048;
std::vector<Token*> raw_places(kRangePlaces);
std::vector<gc::ptr<Token>> range_places(kRangePlaces);
std::array<std::atomic<std::uint32_t>, 2 * kRangePlaces> range_busy;

thread_local std::array<gc::ptr<Token>, 4> own;
thread_local gc::ptr<Token> airlock;

// What a thread shows to the others.
struct Shown {
  std::atomic<Frame*> frame{nullptr};
  std::atomic<std::array<gc::ptr<Token>, 4>*> own{nullptr};
  std::array<std::atomic<std::uint32_t>, 4> own_busy = {};
  std::atomic<std::uint32_t> calls{0};  // an odd number of threads sleep until this changes
};
std::array<Shown, 33> shown;  // by number; 0 is the main thread, which has no frame here

std::atomic<bool> ending{false};
std::atomic<std::uint64_t> moves_done{0};
std::atomic<std::uint64_t> moves_while_marking{0};
std::array<std::atomic<std::uint64_t>, kKinds> moves_by_kind;
gc::array<gc::ptr<Token>> census;

void count_in_census(Token* token, const char* where) {
  if (token == nullptr) return;
  check(token, where);
  gc::ptr<Token>& slot = census[token->id];
  if (slot) fail("a token is in two places", token, where);
  slot = token;
}

// As no program may. Atomic, since only what the barrier would do is left out.
void store_past_barrier(gc::ptr<Token>& slot, Token* token) {
  __atomic_store_n(reinterpret_cast<Token**>(&slot), token, __ATOMIC_RELEASE);
}

// ------------------------------------------------------------------------------------ workers

// An interpreter's stack of values: stores to it have no barrier. Now and then it moves to another buffer.
class ValueStack {
 public:
  ValueStack() { move_to(0); }
  void exchange(Token*& held, std::size_t chance) {
    if (chance == 0) move_to(1 - x_buffer);
    const bool is_full = x_top == x_words[x_buffer].data() + kMost;
    const bool is_empty = x_top == x_words[x_buffer].data();
    if (is_empty || (!is_full && chance % 2 == 0)) {
      if (held == nullptr) return;
      x_top = x_top + 1;
      *static_cast<Token* volatile*>(x_top - 1) = held;
      std::atomic_signal_fence(std::memory_order_seq_cst);
      held = nullptr;
    } else if (held == nullptr) {
      held = *static_cast<Token* volatile*>(x_top - 1);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      x_top = x_top - 1;
    } else {
      Token* volatile* const last = x_top - 1;
      Token* const taken = *last;
      *last = held;
      held = taken;
    }
  }
  template <class Fn>
  void drain(Fn fn) {
    while (x_top != x_words[x_buffer].data()) {
      fn(*(x_top - 1));
      x_top = x_top - 1;
    }
  }

 private:
  static constexpr std::size_t kMost = 32;
  void move_to(std::size_t buffer) {
    std::vector<Token*>& to = x_words[buffer];
    to.resize(kMost);
    std::size_t count = 0;
    if (x_top != nullptr) {
      const std::vector<Token*>& from = x_words[x_buffer];
      count = static_cast<std::size_t>(x_top - from.data());
      std::copy_n(from.begin(), count, to.begin());
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    gc::root_range seen =
        gc::add_stack(static_cast<Token* const*>(to.data()), to.data() + kMost, &x_top);
    x_top = to.data() + count;
    x_buffer = buffer;
    x_seen = std::move(seen);  // the old one goes
  }

  std::array<std::vector<Token*>, 2> x_words;
  std::size_t x_buffer = 0;
  Token** volatile x_top = nullptr;
  gc::root_range x_seen;
};

class Worker {
 public:
  Worker(unsigned number, bool sleeps)
      : x_number(number), x_sleeps(sleeps), x_random(arguments.seed * 1000 + number) {
    for (unsigned kind = 0; kind < kKinds; ++kind) {
      if (arguments.without[kind]) continue;
      // A thread costs as much as a thousand other moves.
      if (kind != kErrand) x_kinds.push_back(static_cast<Kind>(kind));
    }
  }

  void run(std::latch& all_here, std::latch& all_done) {
    const gc::thread_scope attached;
    Frame frame;
    x_frame = &frame;
    x_values.emplace();
    Shown& me = shown[x_number];
    // Release: the frame is complete. Pairs with take_from_frame (acquire).
    me.own.store(&own, std::memory_order_release);
    me.frame.store(&frame, std::memory_order_release);
    gc::blocking_call([&] { all_here.arrive_and_wait(); });

    std::array<Token*, 16> held = {};  // this thread's stack
    while (!ending.load(std::memory_order_relaxed)) {
      if (x_sleeps) sleep_until_called();
      for (int i = 0; i < 256; ++i) {
        const std::uint64_t choice = x_random();
        // Slot k is used every 2^(k + 1) moves.
        const auto k = static_cast<std::size_t>(std::countr_zero(choice | 0x8000));
        x_choice = choice >> 16;
        move_one(held[k]);
      }
      report();
    }

    // Nobody may be at our frame or our thread_locals when they end.
    for (Box& box : frame.boxes) take_turn(box.busy);
    for (Box& box : frame.shelf) take_turn(box.busy);
    for (auto& busy : me.own_busy) take_turn(busy);
    for (Token* const token : held) count_in_census(token, "on a stack");
    for (const Box& box : frame.boxes) count_in_census(box.token, "in a box");
    for (const Box& box : frame.shelf) count_in_census(box.token, "on a shelf");
    for (const auto& token : own) count_in_census(token, "in a thread_local");
    for (const auto& handle : x_pocket) count_in_census(handle, "in a handle");
    x_values->drain([](Token* token) { count_in_census(token, "on a value stack"); });
    gc::blocking_call([&] { all_done.arrive_and_wait(); });
  }

 private:
  // Exchanges what is held for what a place has.
  void move_one(Token*& held) {
    if (held != nullptr) maintain(held);
    const Kind kind =
        pick(8192) == 0 && !arguments.without[kErrand] ? kErrand : x_kinds[pick(x_kinds.size())];
    Token* const given = held;
    check(given, kKindNames[kind]);
    // Others may take it before the exchange returns.
    const std::uint64_t id = given == nullptr ? 0 : given->id;
    if (given != nullptr) change_holder(id, x_number, 0, given, kind);
    const bool had_one = given != nullptr;
    const bool marked_before = marks();
    const bool done = exchange(kind, held);
    if (held != nullptr) {
      check(held, kKindNames[kind]);
      change_holder(held->id, 0, x_number, held, kind);
    }
    if (!done || (!had_one && held == nullptr)) return;
    ++x_moves[kind];
    if (marked_before && marks()) ++x_moves_while_marking;
  }

  // Does a cycle mark, as far as this thread knows?
  static bool marks() {
    return tricolor::detail::current_cache->armed.load(std::memory_order_relaxed) != 0;
  }

  void change_holder(std::uint64_t id, std::uint32_t from, std::uint32_t to, const Token* token,
                     Kind kind) {
    // Relaxed: the place the token is in orders its two holders.
    if (known[id].holder.exchange(to, std::memory_order_relaxed) != from)
      fail("two threads have one token", token, kKindNames[kind]);
  }

  void maintain(Token*& held) {
    switch (pick(16)) {
      case 0: {
        check(held, "made anew");
        held = make_token(held->id, held->birth + 1);
        break;
      }
      case 1:
        reverse_parts(held);
        break;
      case 2:
        gc::make_array<char>(pick(64) == 0 ? 40'000 : pick(200));
        break;
      case 3:
        if (pick(64) == 0) call_a_sleeper();
        break;
      default:
        break;
    }
  }

  bool exchange(Kind kind, Token*& held) {
    switch (kind) {
      case kStack:
        held = down(held, pick(12));
        return true;
      case kBlocked:
        return block(held);
      case kBox:
        return take_from_box(held);
      case kShelf:
        return take_from_shelf(held);
      case kField:
      case kInside:
      case kOptional:
      case kMember:
      case kVector:
      case kVariant:
        return take_from_cell(kind, held);
      case kElement: {
        const std::size_t i = pick(table.size());
        const Turn turn(table_busy[i % table_busy.size()]);
        if (turn) swap(table[i], held);
        return bool(turn);
      }
      case kGrowing:
        return take_from_growing(held);
      case kTraced:
        return take_from_traced(held);
      case kGlobal: {
        const std::size_t i = pick(globals_busy.size());
        const Turn turn(globals_busy[i]);
        if (turn) swap(global(i), held);
        return bool(turn);
      }
      case kThread:
        return take_from_thread(shown[x_number], held);
      case kForeign:
        return take_from_thread(shown[pick(arguments.threads + 1)], held);
      case kRoot:
        return take_from_root(held);
      case kHandle:
        return move_handle(held);
      case kErrand:
        held = send_on_errand(held);
        return true;
      case kBulk:
        return take_from_queue(held);
      case kRaw: {
        const std::size_t i = pick(kRangePlaces);
        const Turn turn(range_busy[i]);
        if (turn) std::swap(raw_places[i], held);
        return bool(turn);
      }
      case kRange: {
        const std::size_t i = pick(kRangePlaces);
        const Turn turn(range_busy[kRangePlaces + i]);
        if (turn) swap(range_places[i], held);
        return bool(turn);
      }
      case kPassing:
        held = pass_through_range(std::exchange(held, nullptr));
        return true;
      case kPushed:
        x_values->exchange(held, pick(64));
        return true;
      case kKinds:
        break;
    }
    return false;
  }

  // Out of sight but for a range that goes when it has been taken out again.
  [[gnu::noinline]] Token* pass_through_range(Token* token) {
    const auto words = std::make_unique<gc::ptr<Token>[]>(8);
    const bool is_raw = pick(2) == 0;
    const auto seen =
        gc::add_root_range(words.get(), words.get() + 8, is_raw ? gc::raw : gc::barriered);
    auto* const word = reinterpret_cast<Token* volatile*>(&words[pick(8)]);
    if (is_raw) {
      *word = token;
    } else {
      words[0] = token;
    }
    token = nullptr;
    down(nullptr, 4);  // writes over what registers and frames held, and allocates
    Token* const same = is_raw ? *word : words[0].get();
    check(same, "in a range of its own");
    return same;
  }

  // --- stacks

  [[gnu::noinline]] Token* down(Token* token, std::uint64_t depth) {
    if (depth == 0) {
      // Writes over what earlier calls have left in these frames.
      volatile std::uintptr_t rubbish[64];
      for (auto& word : rubbish) word = 1;
      gc::make<Part>()->value = kClobbered;
      return token;
    }
    Token* const same = down(token, depth - 1);
    check(same, "on a stack");
    return same;
  }

  bool block(Token* held) {
    if (!shut_boxes()) return false;
    gc::blocking_call([] { std::this_thread::yield(); });
    open_boxes();
    check(held, "beside a blocking call");
    return true;
  }

  bool take_from_box(Token*& held) {
    Frame* const frame = shown[1 + pick(arguments.threads)].frame.load(std::memory_order_acquire);
    Box& box = frame->boxes[pick(frame->boxes.size())];
    const Turn turn(box.busy);
    if (turn) std::swap(box.token, held);
    return bool(turn);
  }

  bool take_from_shelf(Token*& held) {
    Frame* const frame = shown[1 + pick(arguments.threads)].frame.load(std::memory_order_acquire);
    // Slots of all ages, as for `held`.
    const auto i = static_cast<std::size_t>(std::countr_zero(pick(0x10000) | 0x8000));
    Box& box = frame->shelf[i];
    const Turn turn(box.busy);
    if (!turn) return false;
    Token* const out = box.token;
    if (frame == x_frame || arguments.plant == Plant::parked) {
      box.token = held;
    } else if (pick(2) == 0) {
      const gc::root<Token> stored(out);
      box.token = held;
    } else {
      airlock = out;
      box.token = held;
      if (pick(2) == 0) airlock = nullptr;
    }
    held = out;
    return true;
  }

  // False: another thread is at one of them.
  bool shut_boxes() {
    for (std::size_t i = 0; i < x_frame->boxes.size(); ++i) {
      if (x_frame->boxes[i].busy.exchange(1, std::memory_order_acquire) == 0) continue;
      while (i > 0) x_frame->boxes[--i].busy.store(0, std::memory_order_release);
      return false;
    }
    return true;
  }
  void open_boxes() {
    for (Box& box : x_frame->boxes) box.busy.store(0, std::memory_order_release);
  }
  static void take_turn(std::atomic<std::uint32_t>& busy) {
    while (busy.exchange(1, std::memory_order_acquire) != 0) {
      gc::safepoint();
      std::this_thread::yield();
    }
  }

  void sleep_until_called() {
    std::atomic<std::uint32_t>& calls = shown[x_number].calls;
    const std::uint32_t before = calls.load(std::memory_order_relaxed);
    if (!shut_boxes()) return;
    gc::blocking_call([&] {
      // Acquire: pairs with the release in main, which calls everybody once more after it.
      if (!ending.load(std::memory_order_acquire)) calls.wait(before, std::memory_order_relaxed);
    });
    open_boxes();
  }
  void call_a_sleeper() {
    std::atomic<std::uint32_t>& calls = shown[1 + pick(arguments.threads)].calls;
    calls.fetch_add(1, std::memory_order_relaxed);
    calls.notify_one();
  }

  Token* send_on_errand(Token* held) {
    if (!shut_boxes()) return held;
    Token* in = held;
    Token* out = nullptr;
    std::thread errand([&] {
      const gc::thread_scope attached;
      airlock = in;  // first stored, as the frame is a blocked thread's
      in = nullptr;
      Token* const token = airlock;
      check(token, "on an errand");
      own[0] = token;
      airlock = nullptr;
      for (int i = 0; i < 8; ++i) gc::make<Part>()->value = kClobbered;
      out = own[0];
    });
    held = nullptr;
    gc::blocking_call([&] { errand.join(); });
    open_boxes();
    return out;
  }

  // --- the heap

  static void swap(gc::ptr<Token>& slot, Token*& held) {
    Token* const out = slot;
    slot = held;
    held = out;
  }

  Cell& walk() {
    Cell*& here = x_here[pick(x_here.size())];
    for (std::uint64_t steps = pick(4); steps > 0 && here != nullptr; --steps) here = here->next;
    if (here == nullptr) here = chains[pick(kChains)];
    return *here;
  }

  bool take_from_cell(Kind kind, Token*& held) {
    Cell& cell = walk();
    const Turn turn(cell.busy);
    if (!turn) return false;
    Token* const in = held;
    switch (kind) {
      case kField:
        if (arguments.plant == Plant::store) {
          held = cell.field;
          store_past_barrier(cell.field, in);
        } else {
          swap(cell.field, held);
        }
        break;
      case kInside: {
        std::uint64_t* const birth = cell.inside;
        held =
            birth == nullptr
                ? nullptr
                : reinterpret_cast<Token*>(reinterpret_cast<char*>(birth) - offsetof(Token, birth));
        cell.inside = in == nullptr ? nullptr : &in->birth;
        break;
      }
      case kOptional:
        take_from_optional(cell.optional, held);
        break;
      case kMember:
        held = cell.member.token;
        std::destroy_at(&cell.member);
        std::construct_at(&cell.member, Member{in, x_choice});
        break;
      case kVector:
        take_from_vector(cell.vector, held);
        break;
      default:
        take_from_variant(cell, held);
        break;
    }
    return true;
  }

  void take_from_optional(std::optional<gc::ptr<Token>>& place, Token*& held) {
    Token* const in = held;
    held = place ? place->get() : nullptr;
    if (pick(2) == 0) place.reset();  // leaves the word where it is
    if (in == nullptr) {
      place.reset();
    } else if (arguments.plant == Plant::construct && place) {
      store_past_barrier(*place, in);  // over what it held, as a constructor that does not shade
    } else if (pick(2) == 0) {
      place.emplace(in);
    } else {
      place = in;
    }
  }

  void take_from_vector(Few& few, Token*& held) {
    Token* const in = held;
    if (in != nullptr && !few.full() && pick(2) == 0) {
      held = nullptr;
    } else {
      held = few.count == 0 ? nullptr : few.pop_back();
    }
    if (in != nullptr) few.push_back(in);
  }

  void take_from_variant(Cell& cell, Token*& held) {
    Token* const in = held;
    Wrapper* const wrapper = in != nullptr && pick(2) == 0 ? gc::make<Wrapper>(in) : nullptr;
    if (const auto* const token = std::get_if<1>(&cell.variant)) {
      held = *token;
    } else if (const auto* const wrapped = std::get_if<2>(&cell.variant)) {
      held = (*wrapped)->token;
    } else {
      held = nullptr;
    }
    if (wrapper != nullptr) {
      cell.variant.emplace<2>(wrapper);
    } else if (in != nullptr) {
      cell.variant.emplace<1>(in);
    } else {
      cell.variant.emplace<0>();
    }
  }

  bool take_from_growing(Token*& held) {
    Growing& place = *growing[pick(kVectors)];
    const Turn turn(place.busy);
    if (!turn) return false;
    Token* const in = held;
    // Grows and shrinks by turns.
    const bool grows = (x_choice >> 40 & 1) != 0;
    held = place.count == 0 || (in != nullptr && grows && place.count < kMostGrown)
               ? nullptr
               : place.tokens[--place.count].get();
    if (in == nullptr) return true;
    if (place.count == place.tokens.size() || place.count < place.tokens.size() / 4) {
      const auto larger = gc::make_array<gc::ptr<Token>>(place.count * 2 + 4);
      for (std::size_t i = 0; i < place.count; ++i) larger[i] = place.tokens[i];
      place.tokens = larger;
    }
    std::construct_at(&place.tokens[place.count++], in);
    return true;
  }

  // In at the front and out at the front, where all others move by one, or out at the end. What goes may be all there are.
  bool take_from_queue(Token*& held) {
    Queue& place = *queues[pick(kQueues)];
    const Turn turn(place.busy);
    if (!turn) return false;
    const gc::ptr<Token> in(held);  // constructed: a store would shade it
    const std::span<gc::ptr<Token>> all = place.tokens.span();
    const bool grows = (x_choice >> 40 & 1) != 0;
    Token* out = nullptr;
    if (place.count == kMostQueued || (place.count > 0 && !(grows && held != nullptr))) {
      if (pick(2) == 0) {
        out = all[0];
        gc::copy(all.subspan(1, place.count - 1), all.data());
      } else {
        out = all[place.count - 1];
      }
      gc::clear(all.subspan(--place.count, 1));
    }
    if (held != nullptr) {
      gc::copy(all.first(place.count), all.data() + 1);
      gc::fill(all.first(1), in);
      ++place.count;
    }
    held = out;
    return true;
  }

  bool take_from_traced(Token*& held) {
    Traced& place = *traced[pick(kTracedObjects)];
    const Turn turn(place.busy);
    if (!turn) return false;
    Token* const in = held;
    const std::uint32_t count = place.count.load(std::memory_order_relaxed);
    held = nullptr;
    if (in != nullptr && count < place.tokens.size() && (count == 0 || pick(2) == 0)) {
      place.count.store(count + 1, std::memory_order_relaxed);
      place.tokens[count] = in;
    } else if (count > 0) {
      held = place.tokens[count - 1];
      place.tokens[count - 1] = in;
      if (in == nullptr) place.count.store(count - 1, std::memory_order_relaxed);
    }
    return true;
  }

  // --- thread_locals, handles

  bool take_from_thread(Shown& other, Token*& held) {
    const std::size_t i = pick(own.size());
    auto& tokens = *other.own.load(std::memory_order_acquire);
    const Turn turn(other.own_busy[i]);
    if (turn) swap(tokens[i], held);
    return bool(turn);
  }

  bool take_from_root(Token*& held) {
    Handle& handle = handles[pick(handles.size())];
    const Turn turn(handle.busy);
    if (!turn) return false;
    if (pick(2) == 0) {
      Token* const out = handle.root;
      handle.root = held;
      held = out;
    } else {
      gc::root<Token> in(held);
      const gc::root<Token> out = std::exchange(handle.root, std::move(in));
      held = out;
    }
    return true;
  }

  // The handle itself goes from this thread's pocket to a place that all know, and another one to the pocket.
  bool move_handle(Token*& held) {
    Handle& handle = handles[pick(handles.size())];
    const Turn turn(handle.busy);
    if (!turn) return false;
    if (x_pocket.size() < 4) x_pocket.emplace_back();
    const std::size_t i = pick(x_pocket.size());
    std::swap(handle.root, x_pocket[i]);
    check(x_pocket[i], "in a handle");
    if (pick(8) == 0) {  // the vector's own moves
      gc::root<Token> copy(x_pocket[i]);
      x_pocket.erase(x_pocket.begin() + static_cast<std::ptrdiff_t>(i));
      x_pocket.push_back(std::move(copy));
    }
    if (pick(4) == 0) {
      gc::root<Token>& mine = x_pocket[pick(x_pocket.size())];
      Token* const out = mine;
      mine = held;
      held = out;
    }
    return true;
  }

  // --- chance and counts

  std::uint64_t pick(std::uint64_t below) {
    x_choice = x_choice * 6364136223846793005 + 1442695040888963407;
    return (x_choice >> 33) * below >> 31;
  }

  void report() {
    std::uint64_t sum = 0;
    for (unsigned kind = 0; kind < kKinds; ++kind) {
      sum += x_moves[kind];
      moves_by_kind[kind].fetch_add(std::exchange(x_moves[kind], 0), std::memory_order_relaxed);
    }
    moves_while_marking.fetch_add(std::exchange(x_moves_while_marking, 0),
                                  std::memory_order_relaxed);
    moves_done.fetch_add(sum, std::memory_order_relaxed);
    moves_done.notify_one();
  }

  const std::uint32_t x_number;
  const bool x_sleeps;
  std::mt19937_64 x_random;
  std::uint64_t x_choice = 0;
  std::vector<Kind> x_kinds;
  Frame* x_frame = nullptr;
  std::array<Cell*, 2> x_here = {};  // a Worker lives on its thread's stack
  std::vector<gc::root<Token>> x_pocket;
  std::optional<ValueStack> x_values;
  std::array<std::uint64_t, kKinds> x_moves = {};
  std::uint64_t x_moves_while_marking = 0;
};

// --------------------------------------------------------------------------------------- main

// On a frame of its own, which is gone when the threads begin.
[[gnu::noinline]] void build() {
  census = gc::make_array<gc::ptr<Token>>(arguments.tokens);
  table = gc::make_array<gc::ptr<Token>>(std::max<std::size_t>(arguments.tokens, 40'000));
  growing = gc::make_array<gc::ptr<Growing>>(kVectors);
  for (auto& place : growing) place = gc::make<Growing>();
  queues = gc::make_array<gc::ptr<Queue>>(kQueues);
  for (auto& place : queues) {
    place = gc::make<Queue>();
    place->tokens = gc::make_array<gc::ptr<Token>>(kMostQueued);
  }
  traced = gc::make_array<gc::ptr<Traced>>(kTracedObjects);
  for (auto& place : traced) place = gc::make<Traced>();
  chains = gc::make_array<gc::ptr<Cell>>(kChains);
  for (std::uint64_t i = 0; i < arguments.tokens / 3 + kChains; ++i) {
    Cell* const cell = gc::make<Cell>();
    cell->next = chains[i % kChains];
    chains[i % kChains] = cell;
  }
  for (std::uint64_t id = 0; id < arguments.tokens; ++id) table[id] = make_token(id, 1);
}

// Hidden from conservative eyes, too, wherever the allocator keeps it.
[[gnu::noinline]] std::unique_ptr<std::uintptr_t> plant_in_malloc() {
  auto hidden = std::make_unique<std::uintptr_t>(reinterpret_cast<std::uintptr_t>(table[0].get()));
  table[0] = nullptr;
  return hidden;
}

void empty_all_places() {
  for (auto& token : table) count_in_census(token, "in a large array");
  for (Growing* const place : growing) {
    for (std::size_t i = 0; i < place->count; ++i)
      count_in_census(place->tokens[i], "in a growing array");
  }
  for (Queue* const place : queues) {
    for (const auto& token : place->tokens.span()) count_in_census(token, "in a queue");
  }
  for (const Traced* const place : traced) {
    for (const auto& token : place->tokens) count_in_census(token, "in a traced object");
  }
  for (std::size_t i = 0; i < globals_busy.size(); ++i) count_in_census(global(i), "in a global");
  for (const Handle& handle : handles) count_in_census(handle.root, "in a handle");
  for (Token* const token : raw_places) count_in_census(token, "in a raw range");
  for (const auto& token : range_places) count_in_census(token, "in a barriered range");
  for (Cell* cell : chains) {
    for (; cell != nullptr; cell = cell->next) {
      count_in_census(cell->field, "in a field");
      if (std::uint64_t* const birth = cell->inside) {
        count_in_census(
            reinterpret_cast<Token*>(reinterpret_cast<char*>(birth) - offsetof(Token, birth)),
            "inside");
      }
      if (cell->optional) count_in_census(*cell->optional, "in an optional");
      count_in_census(cell->member.token, "in a member");
      while (cell->vector.count > 0) count_in_census(cell->vector.pop_back(), "in a vector");
      if (const auto* const token = std::get_if<1>(&cell->variant))
        count_in_census(*token, "in a variant");
      if (const auto* const wrapped = std::get_if<2>(&cell->variant))
        count_in_census((*wrapped)->token, "in a wrapper");
      gc::safepoint();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  read_arguments(argc, argv);
  std::printf("moves --seed=%llu --threads=%llu --tokens=%llu, %llu s\n",
              static_cast<unsigned long long>(arguments.seed),
              static_cast<unsigned long long>(arguments.threads),
              static_cast<unsigned long long>(arguments.tokens),
              static_cast<unsigned long long>(arguments.seconds));
  std::fflush(stdout);
  gc::options wanted;
  wanted.percent = 1;
  wanted.clobberfree = 1;
  gc::init(wanted);
  known = std::vector<Known>(arguments.tokens);
  const auto raw_seen =
      gc::add_root_range(raw_places.data(), raw_places.data() + kRangePlaces, gc::raw);
  const auto range_seen =
      gc::add_root_range(range_places.data(), range_places.data() + kRangePlaces, gc::barriered);
  build();
  std::unique_ptr<std::uintptr_t> planted;
  if (arguments.plant == Plant::malloc) planted = plant_in_malloc();

  shown[0].own.store(&own, std::memory_order_relaxed);  // before there are other threads
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(arguments.seconds);
  const auto last = end + 19 * std::chrono::seconds(arguments.seconds);
  const auto count = static_cast<std::ptrdiff_t>(arguments.threads);
  std::latch all_here(count);
  std::latch all_done(count);
  std::vector<std::thread> threads;
  for (unsigned number = 1; number <= arguments.threads; ++number) {
    // Half of the threads, but never the first ones, are asleep most of the time.
    threads.emplace_back(
        [&, number] { Worker(number, number % 2 == 0 && number > 2).run(all_here, all_done); });
  }
  const auto has_least = [] {
    return moves_done.load(std::memory_order_relaxed) >= arguments.least &&
           moves_while_marking.load(std::memory_order_relaxed) >= arguments.least / 4;
  };
  const auto enough = [&] {
    const auto now = std::chrono::steady_clock::now();
    return (now >= end && has_least()) || now >= last ||
           moves_done.load(std::memory_order_relaxed) >= arguments.moves;
  };
  while (!enough()) {
    // One collection after the other; and by turns those that allocation starts.
    for (int i = 0; i < 32 && !enough(); ++i) gc::collect();
    const std::uint64_t target = moves_done.load(std::memory_order_relaxed) + 10'000;
    gc::blocking_call([&] {
      std::uint64_t done = 0;
      while ((done = moves_done.load(std::memory_order_relaxed)) < target && !enough())
        moves_done.wait(done, std::memory_order_relaxed);
    });
  }
  // Release: pairs with sleep_until_called.
  ending.store(true, std::memory_order_release);
  for (Shown& worker : shown) {
    worker.calls.fetch_add(1, std::memory_order_release);
    worker.calls.notify_all();
  }
  gc::blocking_call([&] {
    for (std::thread& thread : threads) thread.join();
  });
  gc::collect();
  if (planted) count_in_census(reinterpret_cast<Token*>(*planted), "in malloc memory");
  for (const auto& token : own) count_in_census(token, "in the main thread's thread_local");
  empty_all_places();
  for (const auto& token : census) {
    if (!token) fail("no place has a token", nullptr, "at the end");
  }

  const gc::statistics stats = gc::stats();
  std::printf("%llu moves, %llu of them while a cycle marked:",
              static_cast<unsigned long long>(moves_done.load()),
              static_cast<unsigned long long>(moves_while_marking.load()));
  for (unsigned kind = 0; kind < kKinds; ++kind) {
    std::printf(" %s %llu", kKindNames[kind],
                static_cast<unsigned long long>(moves_by_kind[kind].load()));
  }
  std::printf("\n%llu tokens, each once; %llu cycles, longest pause %.3f ms; none lost\n",
              static_cast<unsigned long long>(arguments.tokens),
              static_cast<unsigned long long>(stats.cycles_total),
              static_cast<double>(stats.pause_ns_max) / 1e6);
  if (!has_least())
    std::printf("too few moves for --least=%llu\n",
                static_cast<unsigned long long>(arguments.least));
  return stats.cycles_total > arguments.seconds && has_least() ? 0 : 2;
}
