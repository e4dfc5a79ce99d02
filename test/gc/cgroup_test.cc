#include "gc/cgroup.h"

#include <sys/stat.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "test/gc/support.h"

using tricolor::no_limit;
using tricolor::impl::cgroup_limits;
using tricolor::impl::CgroupLimits;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

using Files = std::map<std::string, std::string>;

// The limits of a system that has these files, and nothing else.
CgroupLimits limits_in(const Files& files) {
  return cgroup_limits([&](const char* path, char* out, std::size_t capacity) -> std::size_t {
    const auto file = files.find(path);
    if (file == files.end()) return 0;
    const std::size_t n = std::min(capacity, file->second.size());
    std::copy_n(file->second.begin(), n, out);
    return n;
  });
}

constexpr const char* kCgroup = "/proc/self/cgroup";
constexpr const char* kMounts = "/proc/self/mountinfo";

const std::string kSecond = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
const std::string kFirst =
    "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 32 0:30 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
    "35 32 0:31 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw\n";

}  // namespace

TEST_CASE("without control groups there is no limit") {
  for (const Files& files : {Files{}, Files{{kCgroup, "0::/a\n"}}, Files{{kMounts, kSecond}},
                             Files{{kCgroup, "0::/a\n"}, {kMounts, kSecond}}}) {
    CHECK(limits_in(files).memory_bytes == no_limit);
    CHECK(limits_in(files).cpus == 0);
  }
}

TEST_CASE("version 2: the smallest limit of the group and those above it counts") {
  Files files = {{kCgroup, "0::/user.slice/app.service\n"},
                 {kMounts, kSecond},
                 {"/sys/fs/cgroup/user.slice/app.service/memory.max", "max\n"},
                 {"/sys/fs/cgroup/user.slice/app.service/cpu.max", "max 100000\n"}};
  CHECK(limits_in(files).memory_bytes == no_limit);
  CHECK(limits_in(files).cpus == 0);
  files["/sys/fs/cgroup/user.slice/memory.max"] = "536870912\n";
  files["/sys/fs/cgroup/user.slice/cpu.max"] = "150000 100000\n";
  CHECK(limits_in(files).memory_bytes == 512 * kMiB);
  CHECK(limits_in(files).cpus == 1.5);
  files["/sys/fs/cgroup/user.slice/app.service/memory.max"] = "1073741824\n";
  files["/sys/fs/cgroup/user.slice/app.service/cpu.max"] = "20000 50000\n";
  CHECK(limits_in(files).memory_bytes == 512 * kMiB);
  CHECK(limits_in(files).cpus == 0.4);
  files["/sys/fs/cgroup/memory.max"] = "268435456\n";
  CHECK(limits_in(files).memory_bytes == 256 * kMiB);
}

TEST_CASE("version 1: each controller has a hierarchy of its own") {
  Files files = {{kCgroup, "5:memory:/jobs/7\n4:cpu,cpuacct:/fast\n1:name=systemd:/x\n0::/y\n"},
                 {kMounts, kFirst},
                 {"/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "134217728\n"},
                 {"/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "9223372036854771712\n"},
                 {"/sys/fs/cgroup/cpu,cpuacct/fast/cpu.cfs_quota_us", "250000\n"},
                 {"/sys/fs/cgroup/cpu,cpuacct/fast/cpu.cfs_period_us", "100000\n"},
                 {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"},
                 {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
                 // Not where the controllers are.
                 {"/sys/fs/cgroup/unified/y/memory.max", "4096\n"},
                 {"/sys/fs/cgroup/unified/y/cpu.max", "1 100000\n"}};
  CHECK(limits_in(files).memory_bytes == 128 * kMiB);
  CHECK(limits_in(files).cpus == 2.5);
  // Where version 1 does not have them, version 2 does.
  files[kCgroup] = "1:name=systemd:/x\n0::/y\n";
  CHECK(limits_in(files).memory_bytes == 4096);
  CHECK(limits_in(files).cpus == 0.00001);
}

TEST_CASE("the group of a container is what its mount shows") {
  const std::string mounts =
      "40 30 0:27 /docker/0a1b /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
  // Named from outside; as one below the mount's root; as one that only looks like it.
  Files files = {{kMounts, mounts},
                 {"/sys/fs/cgroup/memory.max", "268435456\n"},
                 {"/sys/fs/cgroup/inner/memory.max", "134217728\n"},
                 {"/sys/fs/cgroup/docker/0a1b/memory.max", "4096\n"},
                 {"/sys/fs/cgroup/c/memory.max", "4096\n"}};
  const auto bytes = [&](const std::string& group) {
    files[kCgroup] = "0::" + group + "\n";
    return limits_in(files).memory_bytes;
  };
  CHECK(bytes("/docker/0a1b") == 256 * kMiB);
  CHECK(bytes("/docker/0a1b/inner") == 128 * kMiB);
  CHECK(bytes("/docker/0a1bc") == 256 * kMiB);
  CHECK(bytes("/elsewhere") == 256 * kMiB);
  CHECK(bytes("/../../inner") == 256 * kMiB);
  CHECK(bytes("/") == 256 * kMiB);
}

TEST_CASE(
    "mount points with blanks, and colons in a group's name, are read as the kernel writes them") {
  const Files files = {{kCgroup, "0::/a:b,c\n"},
                       {kMounts, "31 24 0:27 / /my\\040groups\\134 rw - cgroup2 none rw\n"},
                       {"/my groups\\/a:b,c/memory.max", "4096"}};
  CHECK(limits_in(files).memory_bytes == 4096);
}

TEST_CASE("texts that are cut, malformed or too long are no limit and no crash") {
  Files files = {{kCgroup, "0::/a\n"},
                 {kMounts, kSecond},
                 {"/sys/fs/cgroup/a/memory.max", "4096\n"},
                 {"/sys/fs/cgroup/a/cpu.max", "50000 100000\n"}};
  REQUIRE(limits_in(files).memory_bytes == 4096);
  REQUIRE(limits_in(files).cpus == 0.5);
  for (const char* wrong : {"", "\n", "x\n", "-4096\n", "4096 4096\n", "99999999999999999999\n"}) {
    files["/sys/fs/cgroup/a/memory.max"] = wrong;
    CHECK(limits_in(files).memory_bytes == no_limit);
  }
  for (const char* wrong : {"", "50000\n", "50000 \n", "50000 0\n", "0 100000\n", "x 100000\n"}) {
    files["/sys/fs/cgroup/a/cpu.max"] = wrong;
    CHECK(limits_in(files).cpus == 0);
  }
  files["/sys/fs/cgroup/a/memory.max"] = "4096\n";
  for (const char* file : {kCgroup, kMounts}) {
    const std::string whole = files[file];
    for (std::size_t n = 0; n < whole.size(); ++n) {
      files[file] = whole.substr(0, n);
      const std::uint64_t bytes = limits_in(files).memory_bytes;
      if (bytes != no_limit && bytes != 4096) FAIL(files[file]);
    }
    files[file] = whole;
  }
  files[kCgroup] = "0::/" + std::string(5000, 'a') + "\n";
  CHECK(limits_in(files).memory_bytes == no_limit);
}

TEST_CASE("the system's own files are read") {
  // A group that the test's own, simpler reading finds has a limit that counts.
  const CgroupLimits limits = cgroup_limits();
  CHECK(limits.memory_bytes > 0);
  CHECK(limits.cpus >= 0);
  std::ifstream groups(kCgroup);
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t at = line.find(":memory:");
    if (at == std::string::npos) continue;
    std::ifstream file("/sys/fs/cgroup/memory" + line.substr(at + 8) + "/memory.limit_in_bytes");
    std::uint64_t bytes = 0;
    if (file >> bytes && bytes < no_limit / 2) CHECK(limits.memory_bytes <= bytes);
  }
}

TEST_CASE("child joins a control group before it uses the heap", "[.child]") {
  {
    std::ofstream members(std::string(std::getenv("GROUP")) + "/cgroup.procs");
    members << getpid() << std::endl;
    REQUIRE(members.good());
  }
  gc::collect();
  std::printf("limit=%llu\n", static_cast<unsigned long long>(gc::stats().cgroup_limit_bytes));
}

TEST_CASE("a control group's memory limit is in the statistics, and in the trace once",
          "[process]") {
  // A group of its own, where the test may make one.
  const std::string name = "/tricolor-test-" + std::to_string(getpid());
  const std::vector<std::pair<std::string, std::string>> places = {
      {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}};
  std::string group;
  for (const auto& [folder, file] : places) {
    if (mkdir((folder + name).c_str(), 0755) != 0) continue;
    std::ofstream limit(folder + name + "/" + file);
    limit << 3 * 256 * kMiB << std::endl;
    group = folder + name;
    if (limit.good()) break;
    rmdir(group.c_str());
    group.clear();
  }
  if (group.empty()) {
    WARN("skipped: no control group can be made here");
    return;
  }
  const std::string child = "child joins a control group before it uses the heap";
  const auto silent = tricolor::test::run_program(child, {{"GROUP", group}});
  const auto traced = tricolor::test::run_program(
      child, {{"GROUP", group}, {"TRICOLOR_DEBUG", "gctrace=1"}, {"GOMEMLIMIT", "700MiB"}});
  const auto warned =
      tricolor::test::run_program(child, {{"GROUP", group}, {"TRICOLOR_DEBUG", "gctrace=1"}});
  rmdir(group.c_str());
  INFO(silent.output << traced.output << warned.output);
  CHECK(tricolor::test::has_line(silent.output, "limit=805306368"));
  CHECK_FALSE(tricolor::test::has_line(silent.output, "control group allows"));
  CHECK(tricolor::test::has_line(traced.output, "tricolor: the control group allows 768 MiB\n"));
  CHECK(tricolor::test::has_line(warned.output, "allows 768 MiB; GOMEMLIMIT is not below that"));
}

TEST_CASE("child allocates in a control group", "[.child]") {
  {
    std::ofstream members(std::string(std::getenv("GROUP")) + "/cgroup.procs");
    members << getpid() << std::endl;
    REQUIRE(members.good());
  }
  // One thread, and a CPU that it does not use: where others do, it may take long until that is idle.
  constexpr std::size_t kLive = 1 << 19;
  const bool until_idle = std::getenv("UNTIL_IDLE") != nullptr;
  const std::uint64_t end_ns = tricolor::impl::os::now_ns() + 60'000'000'000;
  const auto goes_on = [&] {
    const auto now = gc::stats();
    return now.cycles_total < 12 ||
           (until_idle && now.idle_cpu_ns_total == 0 && tricolor::impl::os::now_ns() < end_ns);
  };
  const auto table = gc::make_array<gc::ptr<tricolor::test::Node>>(kLive);
  for (std::size_t i = 0; i % 1'000 != 0 || goes_on(); ++i)
    table[i % kLive] = tricolor::test::make_node(i);
  std::printf("\nIDLE %llu\n", static_cast<unsigned long long>(gc::stats().idle_cpu_ns_total));
}

TEST_CASE("of a control group's CPU quota the workers take a quarter and leave the rest alone",
          "[process]") {
  const std::string name = "/tricolor-test-cpu-" + std::to_string(getpid());
  struct Place {
    const char *folder, *file, *text;
  };
  std::string group;
  for (const Place& place : {Place{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "150000"},
                             Place{"/sys/fs/cgroup/cpu,cpuacct", "cpu.cfs_quota_us", "150000"},
                             Place{"/sys/fs/cgroup", "cpu.max", "150000 100000"}}) {
    if (mkdir((place.folder + name).c_str(), 0755) != 0) continue;
    group = place.folder + name;
    std::ofstream quota(group + "/" + place.file);
    quota << place.text << std::endl;
    if (quota.good()) break;
    rmdir(group.c_str());
    group.clear();
  }
  if (group.empty() || tricolor::impl::os::cpu_count() < 2) {
    if (!group.empty()) rmdir(group.c_str());
    WARN("skipped: no control group can be made here, or there is one CPU only");
    return;
  }
  const std::string child = "child allocates in a control group";
  const std::string traces = "gctrace=1,gcpacertrace=1";
  const auto end =
      tricolor::test::run_program(child, {{"GROUP", group}, {"TRICOLOR_DEBUG", traces}});
  const auto greedy = tricolor::test::run_program(
      child,
      {{"GROUP", group}, {"UNTIL_IDLE", "1"}, {"TRICOLOR_DEBUG", traces + ",idleworkers=1"}});
  rmdir(group.c_str());
  INFO(end.output << greedy.output);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr)
    std::printf("%s%s", end.output.c_str(), greedy.output.c_str());
  CHECK(end.exit_code == 0);
  CHECK(greedy.exit_code == 0);
  int cycles = 0;
  std::istringstream lines(end.output);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("gc ")) {
      ++cycles;
      // `... ms clock, a+b/c/0+e ms cpu, ... 2 P`
      CHECK(std::regex_search(
          line, std::regex(" ms clock, [0-9.]+\\+[0-9.]+/[0-9.]+/0\\+[0-9.]+ ms cpu, ")));
      CHECK(line.ends_with(" 2 P"));
    }
    if (line.starts_with("pacer: assist ratio")) CHECK(line.ends_with(" workers=0+0.375"));
  }
  CHECK(cycles >= 10);
  CHECK(tricolor::test::has_line(end.output, "workers=0+0.375"));
  CHECK(tricolor::test::has_line(end.output, "\nIDLE 0\n"));
  CHECK(tricolor::test::has_line(greedy.output, "workers=0+0.375"));
  CHECK(tricolor::test::has_line(greedy.output, "\nIDLE "));
  CHECK_FALSE(tricolor::test::has_line(greedy.output, "\nIDLE 0\n"));
}
