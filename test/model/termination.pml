/* Termination: is marking over when the coordinator says so, and does it ever say so?

   What is modelled
     Two mutators that append words to their write logs, flush them under `turn` when they are full, and go into
     blocking_call with words in the log; the pool of grey objects; the coordinator, which marks, flushes the logs of all
     mutators while they run, stops the world and looks again; one helper. Objects are named by numbers; a packet is one
     object.

   What is left out
     Who refers to whom: scanning an object finds any one of the white objects, or none; a mutator logs any object. So
     mutators may make work as long as anything is white, and they go on logging marked objects for ever.
     How threads are stopped (handshake.pml): `stop_on` is the stop; a mutator inside a unit or a flush finishes that first.
     Stacks and roots (barrier.pml): in the beginning one object is in the pool.

   What is proved
     At the flip no object is grey, none is in the hand of a marker, no log holds a word, and all that was ever logged is
     marked (assertions in `flip`); no object is queued twice (in `shade`); both who flush agree about a log (in `flush`). The flip comes, whatever the mutators do (ltl flips, under weak fairness).

   Faults, each of which must give a counter-example
     NO_RETEST         in the stop nothing is looked at again
     NO_RAGGED_FLUSH   no log is flushed while the mutators run, and in the stop only the pool and the markers are looked at
     UNCOUNTED_HAND    a helper that has taken a packet is not counted as working
     LOCAL_TURN        the owner flushes its log without taking `turn`
     COUNTS_WORDS      the world is started again when a log held a word, not only when a word was white (never ends) */

#ifndef OBJECTS
#define OBJECTS 2
#endif
#ifndef LOG
#define LOG 2
#endif

#define WHITE 0
#define GREY 1
#define BLACK 2

byte color[OBJECTS + 1];   /* 1 .. OBJECTS */
bit pool[OBJECTS + 1];     /* is the object in it? */
byte in_pool;
bit helper_works;          /* changes with the pool, under its lock (one step here) [queue.end] */

/* A log: words from `done` up to `used` are still to be flushed. */
typedef Log { byte word[LOG]; byte used; byte done };
Log log[2];
bit turn[2];               /* the lock of a mutator's log; a fair one: the owner lets the coordinator in */
bit waits[2];              /* the coordinator, for that lock */
bit logged[OBJECTS + 1];   /* ever, by anyone */
bit busy[2];               /* inside a unit or a critical section: cannot be stopped */
bit blocked[2];
bit stop_on;
bit flipped;

byte hand[2];              /* of the coordinator, of the helper: what it scans; 0 is nothing */

/* White -> grey, and queued. */
inline shade(x, news) {
  if
  :: color[x] == WHITE -> assert(!pool[x]); color[x] = GREY; pool[x] = 1; in_pool++; news = 1
  :: else
  fi
}

inline take(marker) {
  if
#define TAKE(x) :: pool[x] -> pool[x] = 0; in_pool--; hand[marker] = x
  TAKE(1)
  TAKE(2)
#if OBJECTS == 3
  TAKE(3)
#endif
  fi
}

/* Shades the words from `done` up to `end`. (A word that is done is made 0: fewer states.) */
inline empty_log(m, end, news) {
  next = log[m].done;
  do
  :: next < end -> atomic { shade(log[m].word[next], news); log[m].word[next] = 0; next++ }
  :: else -> break
  od
}

proctype Mutator(bit me) {
  bit news;
  byte next;

end:
  do
  :: atomic { !stop_on && !blocked[me] && log[me].used < LOG ->           /* one unit: it logs any object */
       if
       :: log[me].word[log[me].used] = 1
       :: log[me].word[log[me].used] = 2
#if OBJECTS == 3
       :: log[me].word[log[me].used] = 3
#endif
       fi;
       logged[log[me].word[log[me].used]] = 1;
       log[me].used++
     }
  :: atomic { !stop_on && !blocked[me] && log[me].used == LOG -> busy[me] = 1 };
#ifndef LOCAL_TURN
     atomic { !turn[me] && !waits[me] -> turn[me] = 1 };
#endif
     empty_log(me, log[me].used, news);
     atomic { log[me].used = 0; log[me].done = 0; next = 0; news = 0; turn[me] = 0; busy[me] = 0 }
  :: d_step { !stop_on && !blocked[me] -> blocked[me] = 1 }
  :: d_step { !stop_on && blocked[me] -> blocked[me] = 0 }
  od
}

/* It scans an object: finds a white one or nothing; then the object is black. */
inline scan(marker) {
  atomic {
    if
    :: skip
    :: color[1] == WHITE -> shade(1, news)
    :: color[2] == WHITE -> shade(2, news)
#if OBJECTS == 3
    :: color[3] == WHITE -> shade(3, news)
#endif
    fi;
    news = 0
  };
  d_step { color[hand[marker]] = BLACK; hand[marker] = 0 }
}

active proctype Helper() {
  bit news;

end:
  do
#ifdef UNCOUNTED_HAND
  :: atomic { in_pool != 0 -> take(1) };
#else
  :: atomic { in_pool != 0 -> helper_works = 1; take(1) };
#endif
     scan(1);
     helper_works = 0
  od
}

inline flip() {
  atomic {
    assert(color[1] == BLACK || color[1] == WHITE && !logged[1]);
    assert(color[2] == BLACK || color[2] == WHITE && !logged[2]);
#if OBJECTS == 3
    assert(color[3] == BLACK || color[3] == WHITE && !logged[3]);
#endif
    assert(in_pool == 0 && hand[0] == 0 && hand[1] == 0);
    assert(log[0].done == log[0].used && log[1].done == log[1].used);
    flipped = 1;
    stop_on = 0
  }
}

#define nothing_queued (in_pool == 0 && !helper_works)
#define is_stopped(m) (blocked[m] || !busy[m])

/* By the coordinator. The owner may append meanwhile. In the stop nobody holds `turn`. */
inline flush(m, any) {
  waits[m] = 1;
  atomic { !turn[m] -> turn[m] = 1; waits[m] = 0 };
  end_of_log = log[m].used;
#ifdef COUNTS_WORDS
  any = any || log[m].done < end_of_log;
#endif
  empty_log(m, end_of_log, any);
  atomic { log[m].done = end_of_log; assert(log[m].done <= log[m].used); turn[m] = 0; end_of_log = 0; next = 0 }
}

active proctype Coordinator() {
  bit news, again;
  byte end_of_log, next;

  atomic { color[0] = BLACK; color[1] = GREY; pool[1] = 1; in_pool = 1; run Mutator(0); run Mutator(1) };

mark:
  do
  :: atomic { in_pool != 0 -> take(0) }; scan(0)
  :: nothing_queued -> break
  od;

#ifndef NO_RAGGED_FLUSH
  flush(0, again);
  flush(1, again);
  if
  :: again -> again = 0; goto mark
  :: else
  fi;
#endif

  stop_on = 1;
  is_stopped(0) && is_stopped(1);
#ifndef NO_RETEST
#ifndef NO_RAGGED_FLUSH
  flush(0, again);
  flush(1, again);
#endif
  if
  :: again || !nothing_queued -> atomic { again = 0; stop_on = 0 }; goto mark
  :: else
  fi;
#endif
  flip()
}

ltl flips { <> flipped }
