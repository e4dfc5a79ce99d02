// Runs a piece of a test in a forked child: for what ends the process (a failed check) or would
// spoil it for the other tests (resource limits).
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

namespace tricolor::test {

struct ChildEnd {
  int exit_code = -1;  // what `body` returned; -1 when a signal ended the child
  int signal = 0;
  std::string errors;  // what it wrote to stderr
};

// `body` returns an int, 0..255. No Catch assertions inside: it is another process. Call it with
// one thread only.
template <typename Body>
ChildEnd in_child(Body body) {
  int pipe_ends[2];
  ChildEnd end;
  if (pipe(pipe_ends) != 0) return end;
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);  // Catch's handler would report a failed test
    _exit(body());
  }
  close(pipe_ends[1]);
  char bytes[512];
  for (ssize_t n; (n = read(pipe_ends[0], bytes, sizeof bytes)) > 0;) {
    end.errors.append(bytes, static_cast<std::size_t>(n));
  }
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  return end;
}

}  // namespace tricolor::test
