// concordance FILE|DIRECTORY...: where does every word of these texts stand?
//
// Threads take files from one list and index them into a table each; then the tables are merged,
// every thread merging the words that hash to it. All of the index is managed: tables, words, their
// letters, the places they stand at, and the contents of the files, which are garbage as soon as
// they are read. So there is something to collect while every thread allocates and links.
//
// What it shows of the library:
//   - managed objects point to each other with gc::ptr and gc::array only, and so do globals;
//   - raw pointers and string_views into managed memory live on the stack, where they are roots;
//   - what a std::thread is given lives in malloc memory, which nobody scans: these threads are
//     given a number, and find their tables through a global;
//   - a thread that waits does so in gc::blocking_call, where no collection needs to stop it;
//   - contents, letters and places are pointer-free, so the collector never reads them.
//
// Counts and places do not depend on which thread read what: the merge puts places in order.

#include <fcntl.h>
#include <sys/stat.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <cwctype>
#include <filesystem>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;

// ---------------------------------------------------------------------------- the managed index

struct Place {
  std::uint32_t file;  // Index into `files`.
  std::uint32_t line;  // From 1.
};

// Some places of a word, in the order they were met. A word that comes up again and again gets
// larger and larger chunks: most words of a text stand in it once.
struct Chunk {
  gc::array<Place> places;
  std::size_t used = 0;
  gc::ptr<Chunk> older;
};

struct Word {
  gc::array<char> letters;
  gc::ptr<Word> next;       // In the same bucket.
  gc::ptr<Chunk> newest;    // While indexing; null once merged.
  gc::array<Place> places;  // Once merged: all of them, in order.
  std::size_t hash = 0;
  std::size_t count = 0;

  std::string_view text() const { return {letters.data(), letters.size()}; }
};

// A chained hash table. The number of buckets is a power of two.
struct Table {
  gc::array<gc::ptr<Word>> buckets;
  std::size_t words = 0;
};

constexpr std::size_t kFirstBuckets = 256;
constexpr std::size_t kFirstPlaces = 2;
constexpr std::size_t kMostPlaces = 512;

// Globals are roots. One table a thread, written by that thread alone until it is joined.
gc::array<gc::ptr<Table>> indexed;
gc::array<gc::ptr<Table>> merged;

Table* make_table() {
  Table* table = gc::make<Table>();
  table->buckets = gc::make_array<gc::ptr<Word>>(kFirstBuckets);
  return table;
}

Word* find(const Table* table, std::string_view text, std::size_t hash) {
  Word* word = table->buckets[hash & (table->buckets.size() - 1)];
  while (word != nullptr && (word->hash != hash || word->text() != text)) word = word->next;
  return word;
}

void link(const gc::array<gc::ptr<Word>>& buckets, Word* word) {
  gc::ptr<Word>& bucket = buckets[word->hash & (buckets.size() - 1)];
  word->next = bucket;
  bucket = word;
}

template <typename Visit>
void for_each_word(const Table* table, Visit visit) {
  for (const gc::ptr<Word>& bucket : table->buckets) {
    for (Word *word = bucket, *next = nullptr; word != nullptr; word = next) {
      next = word->next;  // `visit` may link the word elsewhere.
      visit(word);
    }
  }
}

void insert(Table* table, Word* word) {
  if (table->words == table->buckets.size()) {
    const gc::array<gc::ptr<Word>> larger =
        gc::make_array<gc::ptr<Word>>(2 * table->buckets.size());
    for_each_word(table, [&](Word* old) { link(larger, old); });
    table->buckets = larger;
  }
  link(table->buckets, word);
  ++table->words;
}

gc::array<char> copy_of(std::string_view text) {
  gc::array<char> letters = gc::make_array_for_overwrite<char>(text.size());
  std::copy(text.begin(), text.end(), letters.begin());
  return letters;
}

void add_place(Word* word, Place place) {
  Chunk* chunk = word->newest;
  if (chunk == nullptr || chunk->used == chunk->places.size()) {
    const std::size_t room =
        chunk == nullptr ? kFirstPlaces : std::min(2 * chunk->places.size(), kMostPlaces);
    Chunk* fresh = gc::make<Chunk>();
    fresh->places = gc::make_array_for_overwrite<Place>(room);
    fresh->older = chunk;
    word->newest = fresh;
    chunk = fresh;
  }
  chunk->places[chunk->used++] = place;
  ++word->count;
}

void add_word(Table* table, std::string_view text, Place place) {
  const std::size_t hash = std::hash<std::string_view>{}(text);
  Word* word = find(table, text, hash);
  if (word == nullptr) {
    word = gc::make<Word>();
    word->letters = copy_of(text);
    word->hash = hash;
    insert(table, word);
  }
  add_place(word, place);
}

// ------------------------------------------------------------------------------------- the words

// One character of UTF-8 at `bytes`, and its length. A malformed one is a 0 of one byte, which is no
// letter.
struct Character {
  wchar_t code;
  std::size_t length;
};

Character decode(std::string_view bytes) {
  constexpr Character kMalformed{0, 1};
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const auto first = static_cast<unsigned char>(bytes[0]);
  const std::size_t length = first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (length == 0 || first > 0xF4 || bytes.size() < length) return kMalformed;
  std::uint32_t code = first & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if ((byte & 0xC0) != 0x80) return kMalformed;
    code = code << 6 | (byte & 0x3F);
  }
  if (code < kLeast[length]) return kMalformed;  // An overlong spelling of a shorter one.
  return {static_cast<wchar_t>(code), length};
}

void append_utf8(std::string& text, wchar_t character) {
  const auto code = static_cast<std::uint32_t>(character);
  const auto tail = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += {static_cast<char>(0xC0 | code >> 6), tail(0)};
  } else if (code < 0x10000) {
    text += {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
  } else {
    text += {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
  }
}

// Cuts `bytes` into words: the longest runs of letters, in lower case. Calls found(word, line);
// the word is gone when found() returns.
template <typename Found>
void for_each_word_in(std::string_view bytes, Found found) {
  std::string word;
  std::uint32_t line = 1;
  const auto close = [&] {
    if (!word.empty()) found(std::string_view(word), line);
    word.clear();
  };
  for (std::size_t at = 0; at < bytes.size();) {
    const char c = bytes[at];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      word += static_cast<char>(c | 0x20);
      ++at;
    } else if (static_cast<unsigned char>(c) < 0x80) {
      close();
      if (c == '\n') ++line;
      ++at;
    } else {
      const Character character = decode(bytes.substr(at));
      const auto code = static_cast<wint_t>(character.code);
      if (std::iswalpha(code) != 0) {
        append_utf8(word, static_cast<wchar_t>(std::towlower(code)));
      } else {
        close();
      }
      at += character.length;
    }
  }
  close();
}

// ------------------------------------------------------------------------------------- the files

// Sorted, so that numbers and places are the same in every run. Plain malloc memory: it holds no
// managed pointer.
std::vector<std::string> files;
std::size_t unreadable_directories = 0;

// What one thread has read and passed over. Each thread has its own until it is joined.
struct Tally {
  std::size_t indexed = 0;
  std::size_t unreadable = 0;
  std::size_t binary = 0;
  std::size_t compressed = 0;
  std::uint64_t bytes = 0;
  std::uint64_t words = 0;
  std::uint64_t goal_bytes_max = 0;  // The highest heap goal seen, at moments between two steps.
  bool out_of_memory = false;
};

// Regular files below `directory`. Symbolic links are not followed, as in grep -r: a file would
// count twice, and a link to a parent would never end.
void list(const fs::path& directory) {
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  while (!error && entry != fs::directory_iterator()) {
    std::error_code unknown;
    switch (entry->symlink_status(unknown).type()) {
      case fs::file_type::directory:
        list(entry->path());
        break;
      case fs::file_type::regular:
      case fs::file_type::none:  // Cannot be looked at: the thread that reads it counts it.
        files.push_back(entry->path().string());
        break;
      default:
        break;
    }
    entry.increment(error);
  }
  if (error) ++unreadable_directories;
}

// False, with a line that says why, if an argument names nothing that could be read.
bool list_arguments(int count, char** names) {
  for (int i = 0; i < count; ++i) {
    std::error_code error;
    const fs::file_status status = fs::status(names[i], error);
    if (fs::is_directory(status)) {
      list(names[i]);
    } else if (fs::is_regular_file(status)) {
      files.emplace_back(names[i]);
    } else {
      const std::string why = error ? error.message() : "neither a file nor a directory";
      std::fprintf(stderr, "concordance: %s: %s\n", names[i], why.c_str());
      return false;
    }
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return true;
}

// A descriptor that is closed whatever happens to the bytes read from it.
class Descriptor {
 public:
  explicit Descriptor(const char* path) : number_(::open(path, O_RDONLY | O_CLOEXEC)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

// All bytes of a file, in a managed array that nothing holds but the caller's stack. `size` is how
// many there are: the array is one larger where the file did not change, to see its end.
struct Contents {
  gc::array<char> bytes;
  std::size_t size = 0;
  bool readable = false;
};

Contents read(const char* path) {
  const Descriptor descriptor(path);
  struct stat status;
  if (descriptor.number() < 0 || ::fstat(descriptor.number(), &status) != 0) return {};
  std::size_t size = 0;
  gc::array<char> bytes =
      gc::make_array_for_overwrite<char>(static_cast<std::size_t>(status.st_size) + 1);
  for (;;) {
    if (size == bytes.size()) {  // It has grown, or is of the kind that has no size.
      const gc::array<char> larger = gc::make_array_for_overwrite<char>(2 * size + 4096);
      std::copy_n(bytes.begin(), size, larger.begin());
      bytes = larger;
    }
    const ssize_t got = ::read(descriptor.number(), bytes.data() + size, bytes.size() - size);
    if (got == 0) return {bytes, size, true};
    if (got > 0) size += static_cast<std::size_t>(got);
    if (got < 0 && errno != EINTR) return {};
  }
}

bool is_compressed(std::string_view path) { return path.ends_with(".gz"); }

// The test of git and grep: text has no zero byte near its beginning.
bool is_binary(std::string_view bytes) {
  constexpr std::size_t kLookedAt = 8000;
  return bytes.substr(0, kLookedAt).find('\0') != std::string_view::npos;
}

void index_file(Table* table, std::uint32_t number, Tally& tally) {
  const std::string& path = files[number];
  if (is_compressed(path)) {
    ++tally.compressed;
    return;
  }
  const Contents contents = read(path.c_str());
  if (!contents.readable) {
    ++tally.unreadable;
    return;
  }
  const std::string_view text(contents.bytes.data(), contents.size);
  if (is_binary(text)) {
    ++tally.binary;
    return;
  }
  ++tally.indexed;
  tally.bytes += text.size();
  for_each_word_in(text, [&](std::string_view word, std::uint32_t line) {
    add_word(table, word, {number, line});
    ++tally.words;
  });
}

// ----------------------------------------------------------------------------------- the threads

// Relaxed: the numbers handed out are distinct, and nothing else is told through it.
std::atomic<std::size_t> next_file{0};

// The collector keeps the goal of the moment only.
void note_goal(Tally& tally) {
  const std::uint64_t goal_bytes = gc::stats().heap_goal_bytes;
  if (goal_bytes != gc::no_limit) tally.goal_bytes_max = std::max(tally.goal_bytes_max, goal_bytes);
}

void index_files(std::size_t thread, Tally& tally) {
  Table* table = make_table();
  indexed[thread] = table;
  for (;;) {
    const std::size_t number = next_file.fetch_add(1, std::memory_order_relaxed);
    if (number >= files.size()) return;
    index_file(table, static_cast<std::uint32_t>(number), tally);
    note_goal(tally);
  }
}

// Hands the places of `from` over to `to`: its chunks go below those that are there.
void take_places(Word* to, Word* from) {
  Chunk* oldest = from->newest;
  while (oldest->older != nullptr) oldest = oldest->older;
  oldest->older = to->newest;
  to->newest = from->newest;
  to->count += from->count;
}

// Every place of the word in one array, in order; the chunks become garbage.
void settle_places(Word* word) {
  gc::array<Place> places = gc::make_array_for_overwrite<Place>(word->count);
  auto end = places.begin();
  for (const Chunk* chunk = word->newest; chunk != nullptr; chunk = chunk->older) {
    end = std::copy_n(chunk->places.begin(), chunk->used, end);
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.file != b.file ? a.file < b.file : a.line < b.line;
  });
  word->places = places;
  word->newest = nullptr;
}

// Merges the words that hash to this thread. Other threads walk the same tables meanwhile, so only
// what belongs to such a word is written: its chunks, never its link.
void merge_tables(std::size_t thread, Tally& tally) {
  const std::size_t threads = indexed.size();
  Table* table = make_table();
  merged[thread] = table;
  for (const gc::ptr<Table>& source : indexed) {
    for_each_word(source, [&](Word* word) {
      if ((word->hash >> 32) % threads != thread) return;
      Word* target = find(table, word->text(), word->hash);
      if (target == nullptr) {
        target = gc::make<Word>();
        target->letters = word->letters;  // Letters never change: both words may share them.
        target->hash = word->hash;
        insert(table, target);
      }
      take_places(target, word);
    });
    note_goal(tally);
  }
  for_each_word(table, settle_places);
  note_goal(tally);
}

using Work = void (*)(std::size_t thread, Tally& tally);

// Runs `work` on every thread and waits. A thread gets a number and a tally: no managed pointer.
void run_on_all(std::vector<Tally>& tallies, Work work) {
  const auto guarded = [work](std::size_t thread, Tally* tally) {
    try {
      work(thread, *tally);
    } catch (const std::bad_alloc&) {
      tally->out_of_memory = true;
    }
  };
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < tallies.size(); ++t) threads.emplace_back(guarded, t, &tallies[t]);
  gc::blocking_call([&] { threads.clear(); });  // Joins. No collection needs to stop this thread.
  for (const Tally& tally : tallies) {
    if (tally.out_of_memory) throw std::bad_alloc();
  }
}

// ------------------------------------------------------------------------------------ the report

// The words in the order of the report: the most frequent ones first, then by their letters.
gc::array<gc::ptr<Word>> most_frequent(std::size_t wanted, std::size_t& distinct) {
  distinct = 0;
  for (const gc::ptr<Table>& table : merged) distinct += table->words;
  gc::array<gc::ptr<Word>> words = gc::make_array<gc::ptr<Word>>(distinct);
  std::size_t at = 0;
  for (const gc::ptr<Table>& table : merged) {
    for_each_word(table, [&](Word* word) { words[at++] = word; });
  }
  const std::size_t shown = std::min(wanted, distinct);
  std::partial_sort(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(shown), words.end(),
                    [](const gc::ptr<Word>& a, const gc::ptr<Word>& b) {
                      return a->count != b->count ? a->count > b->count : a->text() < b->text();
                    });
  return words;
}

using Number = unsigned long long;  // What printf knows.

void print_words() {
  constexpr std::size_t kShown = 20;
  std::size_t distinct = 0;
  const gc::array<gc::ptr<Word>> words = most_frequent(kShown, distinct);
  for (std::size_t i = 0; i < std::min(kShown, distinct); ++i) {
    const Word* word = words[i];
    const Place first = word->places[0];
    std::printf("%10llu  %.*s  %s:%u\n", Number{word->count},
                static_cast<int>(word->letters.size()), word->letters.data(),
                files[first.file].c_str(), first.line);
  }
  std::printf("%llu distinct words\n", Number{distinct});
}

Tally sum_of(const std::vector<Tally>& tallies) {
  Tally sum;
  for (const Tally& tally : tallies) {
    sum.indexed += tally.indexed;
    sum.unreadable += tally.unreadable;
    sum.binary += tally.binary;
    sum.compressed += tally.compressed;
    sum.bytes += tally.bytes;
    sum.words += tally.words;
    sum.goal_bytes_max = std::max(sum.goal_bytes_max, tally.goal_bytes_max);
  }
  return sum;
}

void print_tally(const Tally& sum) {
  std::printf("%llu words, %llu bytes in %llu files\n", Number{sum.words}, Number{sum.bytes},
              Number{sum.indexed});
  std::printf(
      "skipped: %llu unreadable files, %llu unreadable directories, %llu binary, %llu .gz\n",
      Number{sum.unreadable}, Number{unreadable_directories}, Number{sum.binary},
      Number{sum.compressed});
}

// The heap's story. It differs from run to run, as the words do not.
void print_heap(std::size_t threads, std::uint64_t goal_bytes_max) {
  constexpr double kMega = 1 << 20;  // As gctrace counts.
  const gc::statistics stats = gc::stats();
  std::printf(
      "heap: %llu threads, %llu cycles, longest pause %.1f us, %.1f MB live, peak goal %.1f MB, "
      "%.1f MB allocated, %llu conservative cells\n",
      Number{threads}, Number{stats.cycles_total}, static_cast<double>(stats.pause_ns_max) / 1e3,
      static_cast<double>(stats.heap_marked_bytes) / kMega,
      static_cast<double>(goal_bytes_max) / kMega,
      static_cast<double>(stats.allocated_bytes_total) / kMega,
      Number{stats.conservative_cells_count});
}

void make_concordance() {
  const std::size_t threads = std::max(2u, std::thread::hardware_concurrency());
  std::vector<Tally> tallies(threads);
  indexed = gc::make_array<gc::ptr<Table>>(threads);
  merged = gc::make_array<gc::ptr<Table>>(threads);
  run_on_all(tallies, index_files);
  run_on_all(tallies, merge_tables);
  indexed = nullptr;  // The merged words share their letters with these; the rest is garbage now.
  print_words();
  const Tally sum = sum_of(tallies);
  print_tally(sum);
  print_heap(threads, sum.goal_bytes_max);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: concordance FILE|DIRECTORY...\n");
    return 2;
  }
  // What is a letter does not depend on the user's language. Without this locale only A to Z are.
  std::setlocale(LC_CTYPE, "C.UTF-8");
  if (!list_arguments(argc - 1, argv + 1)) return 2;
  try {
    make_concordance();
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "concordance: out of memory\n");
    return 1;
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "concordance: cannot start a thread: %s\n", error.what());
    return 1;
  }
}
