/* The line of assists: does everybody come out of it, and is what workers have scanned given away once?

   What is modelled
     Threads that owe work while a cycle marks: they take credit, mark themselves where there is a packet, else get into
     the line; a worker that scans, pays for who is in line or earns credit, ends marking, lets go who is left, and begins
     the next cycle; the limiter, which forgives everybody while it is on. Work is counted in units; a packet is one.

   What is left out
     Prices: what is owed is owed in units of work. How threads are stopped (handshake.pml): who pays counts as stopped, so
     the end of a cycle and the beginning of the next one do not wait for it. When marking may end (termination.pml): here it
     ends when no packet is left.

   What is proved
     Nobody waits for ever: all processes end (no invalid end state). What threads have been paid is no more than what the
     worker has scanned in that cycle (assertion in `pay`), and what they have marked is no more than there was. Nobody is in
     the line of another cycle than it owes in (assertion where it gets in), or while the limiter is on. Who is let go was in it.

   Faults, each of which must give a counter-example
     UNLOCKED_TEST    whether a cycle marks is tested before the lock is taken, and not under it
     FORGIVE_FIRST    the line is emptied before marking is over
     OTHER_CYCLE      the number of the cycle is not tested
     PAID_TWICE       what the worker pays with is credit as well
     LIMIT_LATE       the limiter lets everybody go, and then comes on */

#ifndef THREADS
#define THREADS 2
#endif
#define CYCLES 2
#define WORK 2

#define OUT 0
#define WAITS 1
#define PAID 2
#define MAY_MARK 3

bit marks;
byte cycle;
byte packets;
byte credit;
bit limits;
bit lock;
chan line = [THREADS] of { byte };
byte owed[THREADS];
byte state[THREADS];
byte scanned;              /* by the worker, in this cycle */
byte given;                /* of that */

inline acquire() { atomic { !lock -> lock = 1 } }
inline release() { lock = 0 }

inline pay(units) { given = given + units; assert(given <= scanned) }

/* With the lock. */
inline let_go(how) {
  line ? first;
  assert(state[first] == WAITS);
  state[first] = how
}

/* One step: a compare-exchange. */
inline take_credit(t) {
  atomic {
    if
    :: credit >= owed[t] -> credit = credit - owed[t]; pay(owed[t]); owed[t] = 0
    :: credit < owed[t] -> pay(credit); owed[t] = owed[t] - credit; credit = 0
    fi
  }
}

proctype Thread(byte me) {
  byte first, mine, times;

  do
  :: atomic { times <= me -> times++;
       if
       :: marks -> mine = cycle; owed[me] = 1
       :: marks -> mine = cycle; owed[me] = 2
       :: true -> owed[me] = 0      /* allocates between two cycles, or not at all */
       fi
     };
     do
     :: owed[me] == 0 -> break
     :: owed[me] != 0 ->
        take_credit(me);            /* of another cycle's, if it was that slow */
        if
        :: atomic { owed[me] != 0 && packets != 0 -> packets--; owed[me]-- };
           if
           :: len(line) != 0 ->
              acquire();
              if
              :: len(line) != 0 -> let_go(MAY_MARK)
              :: else
              fi;
              release()
           :: else
           fi
        :: else
        fi;
        if
        :: limits -> owed[me] = 0
        :: else
        fi;
        if
        :: owed[me] == 0 -> break
        :: else
        fi;
#ifdef UNLOCKED_TEST
        if
        :: !marks || mine != cycle || limits -> owed[me] = 0; break
        :: else
        fi;
        acquire();
#else
        acquire();
        if
#ifdef OTHER_CYCLE
        :: !marks || limits -> owed[me] = 0; release(); break
#else
        :: !marks || mine != cycle || limits -> owed[me] = 0; release(); break
#endif
        :: else
        fi;
#endif
        take_credit(me);
        if
        :: owed[me] == 0 -> release(); break
        :: else
        fi;
        assert(mine == cycle);
        state[me] = WAITS;
        line ! me;
        release();
        state[me] != WAITS;
        if
        :: state[me] == PAID -> owed[me] = 0
        :: else
        fi;
        state[me] = OUT
     od
  :: else -> break
  od
}

inline forgive() {
  acquire();
  do
  :: len(line) != 0 -> let_go(PAID)
  :: else -> break
  od;
  release()
}

/* What has been scanned pays for the first in line, who goes to the end of it when that is not enough; or it is credit. */
inline count_work() {
  if
  :: len(line) != 0 ->
     acquire();
     if
     :: len(line) != 0 ->
        line ? [first];
        line ? <first>;
        pay(1);
        owed[first]--;
        if
        :: owed[first] == 0 -> let_go(PAID)
        :: else -> line ? first; line ! first
        fi
     :: else -> credit++
     fi;
#ifdef PAID_TWICE
     credit++;
#endif
     if
     :: packets != 0 && len(line) != 0 -> let_go(MAY_MARK)
     :: else
     fi;
     release()
  :: else -> credit++
  fi
}

active proctype Worker() {
  byte first, i;

  for (i : 0 .. THREADS - 1) { run Thread(i) }
  do
  :: cycle < CYCLES ->
     d_step { cycle++; credit = 0; scanned = 0; given = 0; packets = WORK; marks = 1 };
     do
     :: atomic { packets != 0 -> packets--; scanned++ }; count_work()
     :: packets == 0 -> break
     od;
#ifdef FORGIVE_FIRST
     forgive();
     marks = 0
#else
     marks = 0;
     forgive()
#endif
  :: else -> break
  od
}

active proctype Limiter() {
  byte first;

  if
#ifdef LIMIT_LATE
  :: forgive();
     limits = 1;
#else
  :: limits = 1;
     forgive();
#endif
     assert(len(line) == 0);
     limits = 0
  :: true
  fi
}
