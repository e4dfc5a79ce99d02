// Threads allocate, link, hand over, check and drop lists with checksums while the collector runs all the time (GOGC=1 unless
// the environment says otherwise). Exits with 1 when an object was lost or changed.
//
//   STRESS_SECONDS=60 TRICOLOR_TEST_SEED=7 two_threads [THREADS]
//
// Debug knobs come as for every program: TRICOLOR_DEBUG=stress=1000,clobberfree=1.
#include <tricolor/gc.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace {

struct Node {
  gc::ptr<Node> next;
  std::uint64_t value = 0;
  std::uint64_t check = 0;  // of the value and of the rest of the list
  gc::array<std::uint32_t> words;
};

struct Tree {
  gc::ptr<Tree> left, right;
  std::uint64_t check = 0;
};

// References that only trace() knows.
struct Bag {
  std::array<gc::ptr<Node>, 5> nodes;
  std::atomic<std::uint32_t> used = 0;  // trace() runs beside the program
  void trace(gc::tracer& t) const noexcept {
    for (std::uint32_t i = 0; i < used; ++i) t(nodes[i]);
  }
};

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a = (a ^ b) * 0x9e3779b97f4a7c15;
  return a ^ a >> 29;
}

[[noreturn]] void lost(const char* what, std::uint64_t seed) {
  std::fprintf(stderr, "LOST: %s; TRICOLOR_TEST_SEED=%llu\n", what,
               static_cast<unsigned long long>(seed));
  std::fflush(stderr);
  std::_Exit(1);
}

// Lists on their way from one thread to another.
std::mutex shared_lock;
gc::array<gc::ptr<Node>> shared;
thread_local gc::ptr<Node> own;

std::atomic<std::uint64_t> objects{0};

class Worker {
 public:
  Worker(std::uint64_t seed, unsigned number) : x_seed(seed), x_random(seed + number) {}

  void run(std::chrono::steady_clock::time_point end) {
    std::array<Node*, 8> lists = {};  // this thread's stack
    std::vector<gc::root<Bag>> bags(4);
    gc::root<Tree> tree;
    while (std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 100; ++i) {
        const std::uint64_t choice = x_random();
        Node*& list = lists[choice % lists.size()];
        switch (choice >> 32 & 7) {
          case 0:
          case 1:
          case 2:
            check(list);
            list = make_list(choice >> 40 & 127);
            break;
          case 3:
            list = exchange(choice >> 40, list);
            check(list);
            break;
          case 4:
            check(own);
            own = list;
            break;
          case 5: {
            gc::root<Bag>& bag = bags[choice >> 40 & 3];
            if (bag) {
              for (std::uint32_t n = 0; n < bag->used; ++n) check(bag->nodes[n]);
            }
            bag = gc::make<Bag>();
            for (auto& node : bag->nodes) {
              Node* const list_in_bag = make_list(choice >> 50 & 3);
              ++bag->used;  // first: what trace() does not report yet would be lost if the thread was stopped in between
              node = list_in_bag;
            }
            break;
          }
          case 6:
            if (tree) check(tree.get(), 8);
            tree = make_tree(8);
            break;
          default:  // garbage of all sizes
            gc::make_array<char>(choice >> 40 & (choice >> 60 == 0 ? 0xffff : 0xff));
            break;
        }
      }
    }
    for (Node* const list : lists) check(list);
  }

 private:
  Node* make_list(std::uint64_t length) {
    Node* list = nullptr;
    for (std::uint64_t i = 0; i < length; ++i) {
      Node* const node = gc::make<Node>();
      node->value = x_random();
      node->next = list;
      if (i % 16 == 3) {
        node->words = gc::make_array<std::uint32_t>(node->value % 40);
        for (std::uint32_t& word : node->words.span())
          word = static_cast<std::uint32_t>(node->value);
      }
      node->check = mix(node->value, list == nullptr ? 0 : list->check);
      list = node;
    }
    objects.fetch_add(length, std::memory_order_relaxed);
    return list;
  }

  void check(const Node* list) const {
    for (; list != nullptr; list = list->next) {
      const Node* const next = list->next;
      if (list->check != mix(list->value, next == nullptr ? 0 : next->check))
        lost("a node", x_seed);
      for (const std::uint32_t word : list->words.span()) {
        if (word != static_cast<std::uint32_t>(list->value)) lost("an array", x_seed);
      }
      gc::safepoint();
    }
  }

  Tree* make_tree(int depth) {
    Tree* const tree = gc::make<Tree>();
    if (depth > 0) {
      tree->left = make_tree(depth - 1);
      tree->right = make_tree(depth - 1);
    }
    tree->check = depth == 0 ? 1 : mix(tree->left->check, tree->right->check);
    return tree;
  }
  void check(const Tree* tree, int depth) const {
    if (tree == nullptr) lost("a tree", x_seed);
    if (depth > 0) {
      check(tree->left, depth - 1);
      check(tree->right, depth - 1);
    }
    if (tree->check != (depth == 0 ? 1 : mix(tree->left->check, tree->right->check)))
      lost("a tree", x_seed);
  }

  static Node* exchange(std::uint64_t at, Node* list) {
    gc::blocking_call([] { shared_lock.lock(); });
    gc::ptr<Node>& slot = shared[at % shared.size()];
    Node* const other = slot;
    slot = list;
    shared_lock.unlock();
    return other;
  }

  const std::uint64_t x_seed;
  std::mt19937_64 x_random;
};

std::uint64_t number_from(const char* text, std::uint64_t otherwise) {
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t seconds = number_from(std::getenv("STRESS_SECONDS"), 60);
  const std::uint64_t seed = number_from(std::getenv("TRICOLOR_TEST_SEED"), std::random_device{}());
  const std::uint64_t threads = number_from(argc > 1 ? argv[1] : nullptr, 2);
  std::printf("TRICOLOR_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  gc::options wanted;
  wanted.percent = 1;
  gc::init(wanted);
  shared = gc::make_array<gc::ptr<Node>>(16);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::vector<std::thread> workers;
  for (unsigned number = 0; number < threads; ++number) {
    workers.emplace_back([=] { Worker(seed, number).run(end); });
  }
  gc::blocking_call([&] {
    for (std::thread& worker : workers) worker.join();
  });
  gc::collect();
  const gc::statistics stats = gc::stats();
  std::printf("%llu listed objects, %llu cycles, longest pause %.3f ms; none lost\n",
              static_cast<unsigned long long>(objects.load()),
              static_cast<unsigned long long>(stats.cycles_total),
              static_cast<double>(stats.pause_ns_max) / 1e6);
  return stats.cycles_total > seconds ? 0 : 2;
}
