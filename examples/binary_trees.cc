// binary_trees DEPTH [THREADS]: the benchmarks game's allocation workload on managed nodes.
//
// A stretch tree is built and dropped, a long-lived tree is kept to the end, and between the two
// short-lived trees of every second depth from 4 to DEPTH are built, counted and dropped: each depth
// allocates about as many nodes as the others. With THREADS > 1 every thread takes its share of each
// depth's trees. The classic lines go to stdout, time and heap figures to stderr.
//
// The trees live on the threads' stacks only: raw pointers in locals are roots.

#include <tricolor/gc.h>

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int kMinDepth = 4;
constexpr int kMaxDepth = 32;
constexpr int kMaxThreads = 1024;

using Number = unsigned long long;  // Counts what may exceed 32 bits; printf knows it.

struct Node {
  gc::ptr<Node> left, right;
};

// Bottom-up: both subtrees hang on this frame alone until the node that holds them exists.
Node* build(int depth) {
  if (depth == 0) return gc::make<Node>();
  Node* left = build(depth - 1);
  Node* right = build(depth - 1);
  Node* node = gc::make<Node>();
  node->left = left;
  node->right = right;
  return node;
}

Number count(const Node* node) {
  if (node->left == nullptr) return 1;
  return 1 + count(node->left) + count(node->right);
}

// The trees of one depth: how many there are and how many nodes were counted in them.
struct Round {
  int depth;
  Number trees;
  Number nodes;
};

std::vector<Round> rounds_up_to(int max_depth) {
  std::vector<Round> rounds;
  for (int depth = kMinDepth; depth <= max_depth; depth += 2) {
    rounds.push_back({depth, Number{1} << (max_depth - depth + kMinDepth), 0});
  }
  return rounds;
}

// What one thread does. Results are plain numbers in memory that belongs to this thread until it is
// joined; a pointer to a node never leaves the thread's stack.
struct Share {
  std::vector<Round> rounds;
  bool out_of_memory = false;

  void run() noexcept try {
    for (Round& round : rounds) {
      Number nodes = 0;
      for (Number i = 0; i < round.trees; ++i) nodes += count(build(round.depth));
      round.nodes = nodes;
    }
  } catch (const std::bad_alloc&) {
    // The limit of TRICOLOR_HARD_LIMIT holds in every thread; only main() reports it.
    out_of_memory = true;
  }
};

// Splits each round's trees over the threads, so that no thread waits at the end of a depth.
std::vector<Share> split(const std::vector<Round>& rounds, int threads) {
  std::vector<Share> shares(static_cast<std::size_t>(threads));
  for (const Round& round : rounds) {
    const auto n = static_cast<Number>(threads);
    for (Number t = 0; t < n; ++t) {
      const Number trees = round.trees * (t + 1) / n - round.trees * t / n;
      shares[t].rounds.push_back({round.depth, trees, 0});
    }
  }
  return shares;
}

void run_all(std::vector<Share>& shares) {
  std::vector<std::jthread> threads;
  for (std::size_t t = 1; t < shares.size(); ++t) threads.emplace_back(&Share::run, &shares[t]);
  shares[0].run();  // The main thread works too, then waits for the others.
  // While it waits no collection needs to stop it; the long-lived tree on its stack stays alive.
  gc::blocking_call([&] { threads.clear(); });
  for (const Share& share : shares) {
    if (share.out_of_memory) throw std::bad_alloc();
  }
}

void play(int max_depth, int threads) {
  std::printf("stretch tree of depth %d\t check: %llu\n", max_depth + 1,
              count(build(max_depth + 1)));
  const Node* long_lived = build(max_depth);

  std::vector<Round> rounds = rounds_up_to(max_depth);
  std::vector<Share> shares = split(rounds, threads);
  run_all(shares);
  for (std::size_t r = 0; r < rounds.size(); ++r) {
    for (const Share& share : shares) rounds[r].nodes += share.rounds[r].nodes;
    std::printf("%llu\t trees of depth %d\t check: %llu\n", rounds[r].trees, rounds[r].depth,
                rounds[r].nodes);
  }

  std::printf("long lived tree of depth %d\t check: %llu\n", max_depth, count(long_lived));
}

// The heap's story, for those who compare runs under different settings of GOGC.
void report(double elapsed_ms) {
  constexpr double kMega = 1 << 20;  // As gctrace counts.
  const gc::statistics stats = gc::stats();
  std::fprintf(
      stderr, "%.0f ms, %llu cycles, longest pause %.1f us, %.1f MB live, %.1f MB allocated\n",
      elapsed_ms, Number{stats.cycles_total}, static_cast<double>(stats.pause_ns_max) / 1e3,
      static_cast<double>(stats.heap_marked_bytes) / kMega,
      static_cast<double>(stats.allocated_bytes_total) / kMega);
}

// The whole of `text` as a number between `least` and `most`; false if it is anything else.
bool parse(const char* text, int least, int most, int& value) {
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && least <= value && value <= most;
}

}  // namespace

int main(int argc, char** argv) {
  int depth = 0;
  int threads = 1;
  if (argc < 2 || argc > 3 || !parse(argv[1], 0, kMaxDepth, depth) ||
      (argc == 3 && !parse(argv[2], 1, kMaxThreads, threads))) {
    std::fprintf(stderr, "usage: binary_trees DEPTH [THREADS]  (DEPTH 0 to %d, THREADS 1 to %d)\n",
                 kMaxDepth, kMaxThreads);
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  try {
    play(depth < kMinDepth + 2 ? kMinDepth + 2 : depth, threads);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "binary_trees: out of memory at depth %d\n", depth);
    return 1;
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "binary_trees: cannot start %d threads: %s\n", threads, error.what());
    return 1;
  }
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  report(elapsed.count());
}
