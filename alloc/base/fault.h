// Faults that the tests plant, to prove that the checkers catch them (test/gc/fault_test.cc). Each changes what the collector
// does, in one place, never what a checker sees. Nothing is planted in a process that does not ask for it; the question costs a
// relaxed load, in slow paths only.
#pragma once

#include <atomic>
#include <cstdint>

namespace tricolor::impl {

enum class Fault : std::uint8_t {
  none,
  no_insertion_half,      // the barrier does not shade the new value
  no_deletion_half,       // nor the old one
  no_constructor_shade,   // a constructor does not shade what it overwrites
  barrier_split,          // a thread is stopped in the middle of a unit
  white_allocation,       // cells claimed while marking stay white
  scanned_unready,        // a large object can be scanned before it is zero
  run_tail_not_closed,    // arming does not take back what threads have claimed
  no_stack_roots,         // captured stacks are not marked
  no_late_stack_roots,    // stacks of threads inside blocking_call are not
  no_global_roots,        // segments are not
  no_thread_local_roots,  // thread-local storage is not
  no_handle_roots,        // gc::root handles are not
  no_handle_shade,        // a handle that goes does not shade what it held
  no_range_roots,         // gc::root_range is not marked
  no_range_shade,         // a range that goes does not shade what it held
  no_detach_log,          // a thread that detaches does not shade what is in its log
  no_detach_stack,        // nor what its captured stack holds
  no_detach_locals,       // nor what its thread-local storage holds
  no_log_flush,           // marking ends without a look at the logs
  idle_with_log,          // a thread that blocks with something in its log is left out
  no_ragged_flush,        // nobody looks at them before the last stop: no fault, as that looks, too
  no_last_test,           // nor does the last stop go back to marking when it finds something grey
  dropped_packet,         // a full packet of grey work is lost
  assist_keeps_work,      // an assist that leaves does not give back what it has found
  assists_not_forgiven,   // who waits for credit is not let go when marking ends
  assists_pay_nothing,    // an assist counts as paid without having done its work
};

inline constinit std::atomic<Fault> planted_fault{Fault::none};

inline bool is_planted(Fault fault) {
  return planted_fault.load(std::memory_order_relaxed) == fault;
}

}  // namespace tricolor::impl
