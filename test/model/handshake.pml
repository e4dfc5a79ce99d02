/* The handshake: does a thread run only when it may, with the epoch that it should have, and is nothing of it left out?

   What is modelled
     The stop word; the states running, stopped, blocked and idle; the signal or note that asks a thread to stop, which takes
     effect when a unit that it meets has ended; that a stop looks only at threads that are not idle; capturing, in the arming
     stop, by the stopper, or for a large stack (that of thread 1) by the thread itself in a step of its own; what a stop has to
     look at: claims, in the arming stop, which a thread that runs returns itself, and the log, in the termination stop;
     visiting, under `turn`, of those that were inside blocking_call; leaving blocking_call, in which a thread may also stay for
     ever. A thread may sleep through a start into the next stop. CYCLES cycles of two stops each; a termination stop may find
     work left, and then the world runs on in the same epoch.

   What is left out
     What is done in between: barriers and colours are barrier.pml, logs termination.pml. Futexes: who waits, waits for the
     condition itself. Memory order: all accesses here are sequentially consistent, as those of [handshake.dekker] are.

   What is proved
     No thread runs program code between "all have stopped" and the start, nor between the first capture and the start
       [handshake.one-instant] (in `program_step`).
     A thread that runs program code has the global epoch, and is armed if that is odd (in `program_step`).
     No frame is read while its owner runs, or by two at a time (in `program_step`, `read_frame`). No claims are returned by two
       at a time, or while their owner runs (in `walk_claims`, `program_step`).
     No thread has claims at the end of an arming stop, or something in its log at the end of the other [handshake.idle].
     After the arming stop and its visits every thread has been read in this epoch (at the end of the visits).
     No deadlock (invalid end states: a run that ends, ends with the collector done).

   Faults, each of which must give a counter-example
     SWAPPED_DEKKER   a thread that leaves blocking_call looks at the stop word before it says that it runs
     CAPTURE_EARLY    the stopper captures each thread as it stops
     IDLE_WITH_NEWS   a thread that enters blocking_call says that it is idle, whatever it has
     TRUST_STOPPED    the stopper takes it that whoever has stopped has returned its claims
     RETURN_AGAIN     a thread that meets the next stop on its way out of one returns its claims, which are the stopper's already
     NO_EPOCH_TEST    a thread that leaves blocking_call does not compare its epoch
     NO_TURN          it does, but does not take `turn`
     PARITY           epochs are compared by parity: a thread that was blocked from one arming to the next is left out
     TURN_KEPT        the collector stops the world while it holds `turn` of a thread (a deadlock)
     LATE_DISARM      threads that have stopped are brought up to date after the start */

#ifndef CYCLES
#define CYCLES 2
#endif

/* Steps of the stop word. */
#define RUN 0
#define END 1
#define ARM 2
#define CAPTURE 3

#define IDLE 0
#define RUNNING 1
#define STOPPED 2
#define BLOCKED 3

byte stop_word = RUN;
byte epoch;               /* odd: marking */

byte state[2];
byte own_epoch[2];
bit armed[2];
bit turn[2];
bit asked[2];             /* the signal came */
bit claims[2];
bit log[2];
bit captured[2];          /* a large stack */
#define is_large(m) (m == 1)
byte found[2];            /* the stopper's */

/* What the assertions are about. */
bit all_stopped;          /* from the moment the stopper knows it to the start */
bit any_captured;
bit reads[2];             /* somebody reads the thread's frames */
bit walks[2];             /* somebody returns the thread's claims */
byte read_in[2];          /* the epoch in which they were last read */

#ifdef PARITY
#define is_current(m) (own_epoch[m] % 2 == epoch % 2)
#else
#define is_current(m) (own_epoch[m] == epoch)
#endif

/* It takes its time. */
inline read_frame(m, e) {
  d_step { assert(!reads[m]); reads[m] = 1 };
  d_step { reads[m] = 0; read_in[m] = e }
}
inline capture(m) {
  any_captured = 1;
  read_frame(m, epoch + 1)
}

inline walk_claims(m) {
  d_step { assert(!walks[m]); walks[m] = 1 };
  d_step { walks[m] = 0; claims[m] = 0 }
}

inline program_step() {
  assert(!all_stopped && !any_captured && !reads[me] && !walks[me]);
  assert(own_epoch[me] == epoch && armed[me] == epoch % 2)
}

/* In the handler, or where a unit ends: until the world runs. It sleeps while the stop word asks nothing new of it. */
inline stay_stopped() {
  has_stopped = 0;
  do
  :: stop_word == RUN ->
     state[me] = RUNNING;                                      /* S1 */
     if
     :: stop_word == RUN -> break                              /* L1 */
#ifdef RETURN_AGAIN
     :: stop_word != RUN -> has_stopped = 0
#else
     :: stop_word != RUN -> if :: has_stopped -> state[me] = STOPPED :: else fi
#endif
     fi
  :: stop_word == ARM && !has_stopped ->
     has_stopped = 1;
     walk_claims(me);
     state[me] = STOPPED
  :: stop_word == END && !has_stopped -> has_stopped = 1; state[me] = STOPPED
  :: stop_word == CAPTURE && is_large(me) && !captured[me] ->
     assert(all_stopped);
     capture(me);
     captured[me] = 1
  od
}

inline leave_blocked() {
  do
#ifdef SWAPPED_DEKKER
  :: stop_word == RUN -> state[me] = RUNNING; break
#else
  :: state[me] = RUNNING;                                      /* S1 */
     if
     :: stop_word == RUN -> break                              /* L1 */
     :: stop_word != RUN -> state[me] = away
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
     :: !is_current(me) && epoch % 2 == 1 ->
        read_frame(me, epoch);
        armed[me] = 1;
        own_epoch[me] = epoch
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
  byte away;
  bit has_stopped;

end:
  do
  :: d_step { !asked[me] -> program_step() };                  /* a unit, of two steps */
     d_step { program_step(); claims[me] = 1; log[me] = 1 }
  :: asked[me] ->
     asked[me] = 0;
     stay_stopped()
  :: !asked[me] ->
     d_step {
       program_step();
#ifdef IDLE_WITH_NEWS
       away = IDLE;
#else
       away = (claims[me] || log[me] -> BLOCKED : IDLE);
#endif
       state[me] = away
     };
     if
     :: leave_blocked()
     :: break                                                  /* never comes back */
     fi
  od
}

inline gather(m) { found[m] = state[m] }                       /* L2, the first look */
/* [unit.no-stop]: it parks when it can */
inline ask(m) { if :: found[m] == RUNNING -> asked[m] = 1 :: else fi }
inline wait_for(m) {
  if
  :: found[m] == RUNNING -> atomic { state[m] != RUNNING -> found[m] = state[m] }   /* L2 */
  :: else
  fi
}

inline stop_world(step) {
  d_step { stop_word = step; captured[1] = 0 };                /* S2 */
  gather(0);
  gather(1);
  ask(0);
  ask(1);
#ifdef CAPTURE_EARLY
  wait_for(0);
  if
  :: step == ARM && found[0] == STOPPED -> capture(0)
  :: else
  fi;
#else
  wait_for(0);
#endif
  wait_for(1);
  all_stopped = 1
}

/* If there is nothing left to look at. */
inline settle(m) {
  if
  :: !claims[m] -> atomic { if :: state[m] == BLOCKED -> state[m] = IDLE :: else fi }
  :: else
  fi
}
inline return_claims(m) {
  if
  :: found[m] == IDLE
#ifdef TRUST_STOPPED
  :: found[m] == STOPPED
  :: found[m] == BLOCKED ->
#else
  :: found[m] != IDLE ->
#endif
     if
     :: claims[m] -> walk_claims(m)
     :: else
     fi;
     log[m] = 0;                                               /* of an older cycle */
     settle(m)
  fi
}
inline shade_log(m) {
  if
  :: found[m] != IDLE -> log[m] = 0; settle(m)
  :: else
  fi
}

inline capture_all() {
  if
  :: found[1] == STOPPED -> stop_word = CAPTURE
  :: else
  fi;
  return_claims(0);
  return_claims(1);
  if
#ifdef CAPTURE_EARLY
  :: found[0] == STOPPED
#else
  :: found[0] == STOPPED -> capture(0)
#endif
  :: else
  fi;
  found[1] != STOPPED || captured[1]
}

inline bring_up_to_date(m) {
  if
  :: found[m] == STOPPED -> armed[m] = epoch % 2; own_epoch[m] = epoch
  :: else
  fi
}

inline start_world() {
  d_step {
    all_stopped = 0;
    any_captured = 0;
    stop_word = RUN
  }
}

inline visit(m) {
  atomic { !turn[m] -> turn[m] = 1 };
  if
  :: !is_current(m) -> read_frame(m, epoch); armed[m] = 1; own_epoch[m] = epoch
  :: else
  fi;
#ifndef TURN_KEPT
  turn[m] = 0
#endif
}

active proctype Collector() {
  byte cycle;

  d_step { state[0] = RUNNING; state[1] = RUNNING };
  atomic { run Mutator(0); run Mutator(1) };

  do
  :: cycle < CYCLES ->
     stop_world(ARM);
     capture_all();
     epoch++;
     bring_up_to_date(0);
     bring_up_to_date(1);
     assert(!claims[0] && !claims[1]);
     start_world();
     visit(0);
     visit(1);
     assert(read_in[0] == epoch && read_in[1] == epoch);

     do
     :: stop_world(END);
        shade_log(0);
        shade_log(1);
        assert(!log[0] && !log[1]);
        if
        :: start_world()                                       /* something was grey */
        :: epoch++;
#ifdef LATE_DISARM
           start_world();
           bring_up_to_date(0);
           bring_up_to_date(1);
#else
           bring_up_to_date(0);
           bring_up_to_date(1);
           start_world();
#endif
           break
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
