#include "gc/cgroup.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <string_view>

#include "alloc/base/os.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

// More mounts than that are not looked at.
constexpr std::size_t kMostTextBytes = std::size_t{1} << 20;
constexpr std::size_t kMostPathBytes = 4096;

// Memory for the text of a file: what is not used of it costs nothing.
class Text {
 public:
  Text(const ReadFile& read, const char* path) {
    if (x_bytes == nullptr) return;
    x_size = std::min(read(path, x_bytes, kMostTextBytes), kMostTextBytes);
  }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text() {
    if (x_bytes != nullptr) os::unreserve(x_bytes, kMostTextBytes);
  }
  std::string_view view() const { return {x_bytes, x_size}; }

 private:
  char* x_bytes =
      static_cast<char*>(os::map(kMostTextBytes, os::kernel_page_bytes(), "tricolor scratch"));
  std::size_t x_size = 0;
};

// A path, always ended by NUL. What does not fit makes it invalid.
class Path {
 public:
  Path& add(std::string_view part) {
    if (part.size() >= x_bytes.size() - x_size) {
      x_valid = false;
      return *this;
    }
    std::copy(part.begin(), part.end(), x_bytes.begin() + static_cast<std::ptrdiff_t>(x_size));
    return cut(x_size + part.size());
  }
  Path& cut(std::size_t size) {
    x_size = size;
    x_bytes[size] = '\0';
    return *this;
  }
  std::string_view view() const { return {x_bytes.data(), x_size}; }
  const char* data() const { return x_bytes.data(); }
  bool valid() const { return x_valid; }

 private:
  std::array<char, kMostPathBytes> x_bytes = {};
  std::size_t x_size = 0;
  bool x_valid = true;
};

// Takes the text up to the next `separator` off the front, and the separator.
std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

bool lists(std::string_view names, std::string_view wanted) {
  while (!names.empty()) {
    if (take(names, ',') == wanted) return true;
  }
  return false;
}

enum class Version : std::uint8_t { kOne, kTwo };

// The group of the process in the hierarchy that has this controller (any, for version 2).
std::optional<std::string_view> group_in(std::string_view cgroup, Version version,
                                         std::string_view controller) {
  while (!cgroup.empty()) {
    std::string_view line = take(cgroup, '\n');
    const std::string_view number = take(line, ':');
    const std::string_view controllers = take(line, ':');
    const bool found = version == Version::kTwo ? number == "0" && controllers.empty()
                                                : lists(controllers, controller);
    if (found) return line;
  }
  return std::nullopt;
}

// The kernel writes blanks, tabs, line ends and backslashes of a path in octal.
void add_unescaped(Path& path, std::string_view text) {
  while (!text.empty()) {
    char c = text.front();
    std::size_t used = 1;
    int octal = 0;
    if (c == '\\' && text.size() >= 4 &&
        std::from_chars(text.data() + 1, text.data() + 4, octal, 8).ptr == text.data() + 4) {
      c = static_cast<char>(octal);
      used = 4;
    }
    path.add({&c, 1});
    text.remove_prefix(used);
  }
}

// The folder of a group, and how much of its path is the mount's.
struct Folder {
  Path path;
  std::size_t mount_size = 0;
  Version version = Version::kTwo;
};

// `36 35 98:0 /root /mount options [more...] - type source options-of-the-file-system`
bool find_folder(std::string_view mountinfo, Version version, std::string_view controller,
                 std::string_view group, Folder& out) {
  while (!mountinfo.empty()) {
    std::string_view line = take(mountinfo, '\n');
    for (int i = 0; i < 3; ++i) take(line, ' ');
    const std::string_view root = take(line, ' ');
    const std::string_view mount = take(line, ' ');
    while (!line.empty() && take(line, ' ') != "-") {
    }
    const std::string_view type = take(line, ' ');
    take(line, ' ');
    const bool found =
        version == Version::kTwo ? type == "cgroup2" : type == "cgroup" && lists(line, controller);
    if (!found) continue;
    out.version = version;
    add_unescaped(out.path, mount);
    while (out.path.view().ends_with('/')) out.path.cut(out.path.view().size() - 1);
    out.mount_size = out.path.view().size();
    // Only what lies below the mount's root can be seen. A group that does not is named as from outside of a container, whose
    // root is then the best there is.
    Path unescaped_root;
    add_unescaped(unescaped_root, root == "/" ? "" : root);
    const std::string_view prefix = unescaped_root.view();
    if (group.starts_with(prefix)) {
      const std::string_view below = group.substr(prefix.size());
      if (below.starts_with('/') && below != "/" && !below.starts_with("/..")) out.path.add(below);
    }
    return out.path.valid();
  }
  return false;
}

bool find_controller(std::string_view cgroup, std::string_view mountinfo,
                     std::string_view controller, Folder& out) {
  for (const Version version : {Version::kOne, Version::kTwo}) {
    const auto group = group_in(cgroup, version, controller);
    if (!group) continue;
    if (find_folder(mountinfo, version, controller, *group, out)) return true;
    out = {};
  }
  return false;
}

// A file of one line in the folder, without its end.
std::string_view read_line(const ReadFile& read, Path& folder, std::string_view file,
                           std::span<char> out) {
  const std::size_t size = folder.view().size();
  folder.add("/").add(file);
  const std::size_t n =
      folder.valid() ? std::min(read(folder.data(), out.data(), out.size()), out.size()) : 0;
  folder.cut(size);
  const std::string_view text(out.data(), n);
  return text.substr(0, text.find('\n'));
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::uint64_t memory_of(const ReadFile& read, Folder& folder) {
  std::array<char, 64> line;
  const bool one = folder.version == Version::kOne;
  const auto bytes =
      number(read_line(read, folder.path, one ? "memory.limit_in_bytes" : "memory.max", line));
  // "max" is none, and so is what version 1 says instead: the largest number of whole pages.
  return bytes && *bytes < no_limit / 2 ? *bytes : no_limit;
}

double cpus_of(const ReadFile& read, Folder& folder) {
  std::array<char, 64> line;
  std::optional<std::uint64_t> quota;
  std::optional<std::uint64_t> period;
  if (folder.version == Version::kOne) {
    quota = number(read_line(read, folder.path, "cpu.cfs_quota_us", line));  // -1: none
    period = number(read_line(read, folder.path, "cpu.cfs_period_us", line));
  } else {
    std::string_view both = read_line(read, folder.path, "cpu.max", line);
    quota = number(take(both, ' '));  // "max": none
    period = number(both);
  }
  return quota && period && *quota != 0 && *period != 0
             ? static_cast<double>(*quota) / static_cast<double>(*period)
             : 0;
}

// Calls visit() for the group and every one above it, up to the mount.
template <typename Visit>
void for_each_group(Folder& folder, Visit visit) {
  for (;;) {
    visit();
    if (folder.path.view().size() <= folder.mount_size) return;
    const std::size_t slash = folder.path.view().rfind('/');
    folder.path.cut(std::max(slash, folder.mount_size));
  }
}

}  // namespace

CgroupLimits cgroup_limits(const ReadFile& read) {
  const Text cgroup(read, "/proc/self/cgroup");
  const Text mountinfo(read, "/proc/self/mountinfo");
  CgroupLimits limits;
  Folder folder;
  if (find_controller(cgroup.view(), mountinfo.view(), "memory", folder)) {
    for_each_group(folder, [&] {
      limits.memory_bytes = std::min(limits.memory_bytes, memory_of(read, folder));
    });
  }
  folder = {};
  if (find_controller(cgroup.view(), mountinfo.view(), "cpu", folder)) {
    for_each_group(folder, [&] {
      const double cpus = cpus_of(read, folder);
      if (cpus != 0 && (limits.cpus == 0 || cpus < limits.cpus)) limits.cpus = cpus;
    });
  }
  return limits;
}

CgroupLimits cgroup_limits() { return cgroup_limits(os::read_file); }

}  // namespace tricolor::impl
