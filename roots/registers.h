// Callee-saved registers are roots: a pointer may live in one and nowhere else.
#pragma once

namespace tricolor::impl {

// Calls fn(top, argument) with every callee-saved register of the caller spilled to the stack at or above `top`. The words
// from `top` to the base of the stack then hold every pointer that the calling thread's frames hold, and stay as they are
// until fn returns. (What is in caller-saved registers at a call is dead or has been spilled by the caller.)
//
// (Not by setjmp: glibc on x86-64 mangles the frame pointer in a jmp_buf, and that register may hold any value. A pointer that the
// program itself has only there is not found.)
//
// An exception or a forced unwind (pthread_cancel) may leave fn.
void with_spilled_registers(void (*fn)(void* top, void* argument), void* argument);

}  // namespace tricolor::impl
