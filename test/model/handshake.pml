/* The handshake: does a thread run only when it may, and with the epoch that it should have?

   What is modelled
     The stop word; the states running, stopped and blocked; the signal that asks a thread to stop, which takes effect
     when a unit that it meets has ended; capturing, in the arming stop, by every thread that has stopped; visiting, under
     `turn`, of those that were inside blocking_call; leaving blocking_call, in which a thread may also stay for ever.
     CYCLES cycles of two stops each; a termination stop may find work left, and then the world runs on in the same epoch.

   What is left out
     What is done in between: barriers and colours are barrier.pml, logs termination.pml. Futexes: who waits, waits for the
     condition itself. Memory order: all accesses here are sequentially consistent, as those of [handshake.dekker] are.

   What is proved
     No thread runs program code between "all have stopped" and the start; none captures before that
       [handshake.one-instant] (assertions in `program_step`, `stay_stopped`).
     A thread that runs program code has the global epoch, and is armed if that is odd (in `program_step`).
     No frame is read while its owner runs, or by two at a time (in `program_step`, `read_frame`).
     After the arming stop and its visits every thread has been read in this epoch (at the end of the visits).
     No deadlock (invalid end states: a run that ends, ends with the collector done).

   Faults, each of which must give a counter-example
     SWAPPED_DEKKER   a thread that leaves blocking_call looks at the stop word before it says that it runs
     CAPTURE_EARLY    the stopper lets threads capture before the last one has stopped
     NO_EPOCH_TEST    a thread that leaves blocking_call does not compare its epoch
     NO_TURN          it does, but does not take `turn`
     PARITY           epochs are compared by parity: a thread that was blocked from one arming to the next is left out
     TURN_KEPT        the collector stops the world while it holds `turn` of a thread (a deadlock)
     LATE_DISARM      a thread that goes on after the flip runs program code before it disarms */

#ifndef CYCLES
#define CYCLES 2
#endif

/* Steps of the stop word. */
#define RUN 0
#define STOP 1
#define CAPTURE 2

#define RUNNING 0
#define STOPPED 1
#define BLOCKED 2

byte stop_word = RUN;
byte epoch;               /* odd: marking */

byte state[2];
byte own_epoch[2];
bit armed[2];
bit turn[2];
bit asked[2];             /* the signal came */

/* What the assertions are about. */
bit all_stopped;          /* from the moment the stopper knows it to the start */
bit reads[2];             /* somebody reads the thread's frames */
byte read_in[2];          /* the epoch in which they were last read */

#ifdef PARITY
#define is_current(m) (own_epoch[m] % 2 == epoch % 2)
#else
#define is_current(m) (own_epoch[m] == epoch)
#endif

/* It takes its time. */
inline read_frame(m) {
  d_step { assert(!reads[m]); reads[m] = 1 };
  d_step { reads[m] = 0; read_in[m] = epoch }
}

inline program_step() {
  assert(!all_stopped && !reads[me]);
  assert(own_epoch[me] == epoch && armed[me] == epoch % 2)
}

/* In the handler, or where a unit ends: until the world runs. It sleeps while the stop word asks nothing new of it. */
inline stay_stopped() {
  state[me] = STOPPED;
  do
  :: stop_word == RUN ->
     state[me] = RUNNING;                                      /* S1 */
     if
     :: stop_word == RUN -> break                              /* L1 */
     :: stop_word != RUN -> state[me] = STOPPED
     fi
  :: stop_word == CAPTURE && own_epoch[me] != epoch ->
     assert(all_stopped);
     read_frame(me);
     armed[me] = 1;
     own_epoch[me] = epoch
  od;
#ifndef LATE_DISARM
  /* No stop can begin before this thread says so: it counts as running. */
  if
  :: own_epoch[me] != epoch -> armed[me] = 0; own_epoch[me] = epoch
  :: else
  fi
#endif
}

inline leave_blocked() {
  do
#ifdef SWAPPED_DEKKER
  :: stop_word == RUN -> state[me] = RUNNING; break
#else
  :: state[me] = RUNNING;                                      /* S1 */
     if
     :: stop_word == RUN -> break                              /* L1 */
     :: stop_word != RUN -> state[me] = BLOCKED
     fi;
     stop_word == RUN
#endif
  od;
#ifndef NO_EPOCH_TEST
  if
  :: !is_current(me) ->
#ifndef NO_TURN
     atomic { !turn[me] -> turn[me] = 1 };
#endif
     if
     :: !is_current(me) && epoch % 2 == 1 -> read_frame(me); armed[me] = 1; own_epoch[me] = epoch
     :: !is_current(me) && epoch % 2 == 0 -> armed[me] = 0; own_epoch[me] = epoch
     :: else
     fi;
#ifndef NO_TURN
     turn[me] = 0
#endif
  :: else
  fi
#endif
}

proctype Mutator(bit me) {
end:
  do
  :: d_step { !asked[me] -> program_step() };                  /* a unit, of two steps */
     d_step { program_step() }
  :: asked[me] -> asked[me] = 0; stay_stopped()
  :: !asked[me] ->
     d_step { program_step(); state[me] = BLOCKED };
     if
     :: leave_blocked()
     :: break                                                  /* never comes back */
     fi
  od
}

inline ask(m) { if :: state[m] == RUNNING -> asked[m] = 1 :: else fi }  /* [unit.no-stop]: it parks when it can */

inline stop_world() {
  stop_word = STOP;                                            /* S2 */
  ask(0);
  ask(1);
#ifndef CAPTURE_EARLY
  state[0] != RUNNING;                                         /* L2 */
  state[1] != RUNNING;
  all_stopped = 1
#endif
}

inline start_world() {
  d_step { all_stopped = 0; stop_word = RUN }
}

/* A thread that finds that it cannot leave blocking_call yet says RUNNING for a moment: then it is looked at again. */
inline wait_for_capture(m) { state[m] == BLOCKED || own_epoch[m] == epoch }

inline visit(m) {
  atomic { !turn[m] -> turn[m] = 1 };
  if
  :: !is_current(m) -> read_frame(m); armed[m] = 1; own_epoch[m] = epoch
  :: else
  fi;
#ifndef TURN_KEPT
  turn[m] = 0
#endif
}

active proctype Collector() {
  byte cycle;

  atomic { run Mutator(0); run Mutator(1) };

  do
  :: cycle < CYCLES ->
     stop_world();
     epoch++;
     stop_word = CAPTURE;
     wait_for_capture(0);
     wait_for_capture(1);
     start_world();
     visit(0);
     visit(1);
     assert(read_in[0] == epoch && read_in[1] == epoch);

     do
     :: stop_world();
        if
        :: start_world()                                       /* something was grey */
        :: epoch++; start_world(); break
        fi
     od;
#ifdef TURN_KEPT
     turn[0] = 0;
     turn[1] = 0;
#endif
     cycle++
  :: else -> break
  od
}
