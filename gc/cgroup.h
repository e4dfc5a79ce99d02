// What the control groups of the process allow it: memory and CPU time, in version 1 and version 2 of the kernel's interface
// (cgroups(7); Go's internal/runtime/cgroup reads the CPU half of it).
//
//   /proc/self/cgroup      which group the process is in: one line a hierarchy, `number:controllers:path`; `0::path` is
//                          version 2
//   /proc/self/mountinfo   where that hierarchy is mounted, and from which of its groups on
//   <mount>/<path>/...     the limits, of the group and of every group above it that can be seen: the smallest counts
//
// A controller is in one hierarchy: in one of version 1 if there is such a line, else in that of version 2. What cannot be
// read is no limit. Groups above the mount, outside of a container, cannot be seen.
//
// Read when the heap is made, and by whoever asks again: the limits may change while the process runs. Takes a few system
// calls and no lock, allocates nothing from malloc. Not while a thread is stopped: the kernel may be slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include <tricolor/options.h>

namespace tricolor::impl {

struct CgroupLimits {
  std::uint64_t memory_bytes = no_limit;
  double cpus = 0;  // CPU time for each time on the clock; 0: no quota
};

// Writes the file's first bytes into out[0, capacity), and returns how many there are; 0 when it cannot be read.
using ReadFile = std::function<std::size_t(const char* path, char* out, std::size_t capacity)>;

// As the files say that `read` reads. All limits are off when memory for their text is refused.
CgroupLimits cgroup_limits(const ReadFile& read);

// As the system's files say.
CgroupLimits cgroup_limits();

}  // namespace tricolor::impl
