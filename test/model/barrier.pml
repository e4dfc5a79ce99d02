/* The write barrier: does everything that the program can reach carry a mark when marking ends?

   What is modelled
     Two mutators with frames of two words and of one; a global slot; objects with one field each. A mutator loads a slot
     into its frame, copies words raw within and between frames, drops them, allocates, constructs slots and assigns to
     them (test and log, store: others come between), takes words out of frozen frames; it goes into blocking_call and
     leaves it. The collector arms, scans slots, visits the frames of threads that were blocked when it armed, word by
     word, and flips when nothing is grey.

   What is left out, and why nothing is lost by that
     The logs. A logged word is grey here at once. Nobody but the marker looks at colours, and it may take as long as it
     likes before it scans what is grey: a word that waits in a log is an object that is grey and not scanned yet. That no
     word is left behind in a log is termination.pml.
     How threads are stopped. A stop is one step here, possible when no running thread is inside a unit [unit.no-stop].
     That it is as good as one step is handshake.pml.
     Who visits. The owner that leaves blocking_call and the collector do the same under the same lock; here the collector
     does it, and the owner waits until it is done.
     Races on one slot between a constructor and anything else, which no program may have: a constructor is one step.
     Freeing. What is unreachable is never taken for a new object.

   What is proved
     At the flip no object that a frame, running or frozen, or the global leads to is white (assertion in `flip`).

   The rule for frames of threads inside blocking_call. Others may read them, and add references to them. They may take one
   out, or write over it, in two ways: by a store that logs what it overwrites (the variable is a gc::ptr); or when it has
   been assigned to a slot that the global leads to through slots that were assigned, and all of that is still so. The
   faults RULE_... show that less will not do.

   Faults, each of which must give a counter-example
     NO_DELETION        the barrier does not log the word that it overwrites
     NO_INSERTION       the barrier does not log the new word
     NO_CONSTRUCTOR     a constructor does not log the word that it overwrites
     SPLIT              a stop may come between the test of `armed` and the store
     RAGGED_CAPTURE     a thread is captured as it stops, while others still run
     WHITE_ALLOCATION   new objects are white while marking
     NO_CAPTURE         arming does not mark from the frames of threads that run
     NO_GLOBAL          the global is never scanned
     NO_VISIT           a thread leaves blocking_call armed, but its frames have not been scanned
     RULE_ONCE          a reference may be taken out of a frozen frame by who has assigned it to a slot since that frame
                        was frozen (it may have armed, and the slot been overwritten, in between)
     RULE_SLOT          ... and any slot that it can reach still holds it (it may be the object's own field)
     RULE_CONSTRUCTED   a reference may be taken out when slots that were constructed lead to it (a constructor does not log the new word)
   Not faults, to be tried by hand (MODEL_DEFINES of run.sh): CONSTRUCTOR_LOGS_BOTH, with which RULE_CONSTRUCTED is sound;
   RULE_NEVER, nothing is taken out of frozen frames but by a barrier, with which NO_INSERTION is sound. */

#ifndef WORDS
#define WORDS 3  /* 0 and 1 are the first mutator's frame, 2 (and 3) the second's */
#endif
#define OBJECTS 2

#define WHITE 0
#define GREY 1
#define BLACK 2
#define UNUSED 3  /* not allocated yet */

/* References are numbers of objects; 0 is null. */
byte slot[OBJECTS + 1];   /* slot[0] is the global, slot[o] the field of object o */
byte color[OBJECTS + 1];  /* color[0] is the global's: it is scanned as an object is */
byte word[WORDS];

bit armed[2];
bit unit[2];     /* must not be stopped now */
bit blocked[2];  /* inside blocking_call, as far as the program knows */
bit late[2];     /* was blocked when the others armed, and has not been visited: its epoch is not the global one */
byte seen[2];    /* words of it that the visit has scanned */
bit over;        /* marking has ended */
#ifdef RAGGED_CAPTURE
bit first_waits;
#define is_held(m) (m == 0 && first_waits)
#else
#define is_held(m) 0
#endif

/* For the rule: the slot was constructed by an armed thread, and not assigned to since. (Those that were constructed
   before count as assigned here: the program cannot tell when it is armed, so it obeys a rule that asks for more.) */
bit constructed[OBJECTS + 1];
#if defined(RULE_ONCE) || defined(RULE_SLOT)
/* By object: assigned to some slot while the other thread has been inside this blocking_call; so by who may take it out. */
bit assigned[OBJECTS + 1];
#define note_assigned(x) assigned[x] = blocked[1 - me]
#define forget_assigned assigned[1] = 0; assigned[2] = 0
#else
#define note_assigned(x) skip
#define forget_assigned skip
#endif

#define runs(m) (!blocked[m] && !is_held(m) && !over)
#define is_of(m, w) (w / 2 == m)
#define has(m, o) (m == 0 && (word[0] == o || word[1] == o) || m == 1 && (word[2] == o || word[WORDS - 1] == o))
#define can_use(m, s) (s == 0 || has(m, s))  /* the global, or a field of an object that it has */

/* The slots are a chain that begins at the global; slot 0 after a null does no harm. */
#if defined(RULE_ONCE)
#define may_take_out(x) assigned[x]
#elif defined(RULE_NEVER)
#define may_take_out(x) 0
#elif defined(RULE_SLOT)
#define may_take_out(x) (assigned[x] && (holds(0, x) || has(me, 1) && holds(1, x) || has(me, 2) && holds(2, x)))
#else
#define may_take_out(x) (holds(0, x) || is_good(0) && (holds(slot[0], x) || is_good(slot[0]) && holds(slot[slot[0]], x)))
#endif
#ifdef RULE_CONSTRUCTED
#define is_good(s) 1
#else
#define is_good(s) !constructed[s]
#endif
#define holds(s, x) (slot[s] == x && is_good(s))

inline shade(x) {
  if
  :: x != 0 && color[x] == WHITE -> color[x] = GREY
  :: else
  fi
}

#define is_free (runs(me) && !stores)

/* Steps of a mutator, for every choice of words and slots that changes something. */
#define EACH_SLOT(STEP, x) STEP(x, 0) STEP(x, 1) STEP(x, 2)
#if WORDS == 3
#define EACH_WORD_PAIR(STEP) STEP(0, 1) STEP(1, 0) STEP(0, 2) STEP(2, 0) STEP(1, 2) STEP(2, 1)
#define EACH_WORD(STEP) STEP(0) STEP(1) STEP(2)
#else
#define EACH_WORD_PAIR(STEP) STEP(0, 1) STEP(1, 0) STEP(0, 2) STEP(2, 0) STEP(1, 2) STEP(2, 1) \
  STEP(0, 3) STEP(3, 0) STEP(1, 3) STEP(3, 1) STEP(2, 3) STEP(3, 2)
#define EACH_WORD(STEP) STEP(0) STEP(1) STEP(2) STEP(3)
#endif

#define LOAD_SLOT(w, s) \
  :: d_step { is_free && is_of(me, w) && can_use(me, s) && word[w] != slot[s] -> word[w] = slot[s] }
#define LOAD(w) EACH_SLOT(LOAD_SLOT, w)

#define DROP(w) \
  :: d_step { is_free && is_of(me, w) && word[w] != 0 -> word[w] = 0 }

/* Read or write the other's frame, or move a word within the own one. */
#define COPY(to, from) \
  :: d_step { is_free && (is_of(me, to) || is_of(me, from) && may_write(to)) && word[to] != word[from] -> \
              word[to] = word[from] }
#define may_write(w) (!blocked[1 - me] || word[w] == 0 || may_take_out(word[w]))

/* Take a word out of the other's frozen frame by a barrier. */
#define TAKE_OUT(w) \
  :: d_step { is_free && !is_of(me, w) && blocked[1 - me] && word[w] != 0 -> \
              if :: armed[me] -> shade(word[w]) :: else fi; word[w] = 0 }

#ifdef WHITE_ALLOCATION
#define color_of_new WHITE
#else
#define color_of_new (armed[me] -> BLACK : WHITE)
#endif
#define ALLOCATE(w) \
  :: d_step { is_free && is_of(me, w) && color[2] == UNUSED -> color[2] = color_of_new; word[w] = 2 }

#ifdef NO_CONSTRUCTOR
#define log_constructor(s, x) skip
#elif defined(CONSTRUCTOR_LOGS_BOTH)
#define log_constructor(s, x) shade(slot[s]); shade(x)
#else
#define log_constructor(s, x) shade(slot[s])
#endif
#define CONSTRUCT_WITH(s, x) \
  :: d_step { is_free && can_use(me, s) && (x == 0 || has(me, x)) && slot[s] != x -> \
              if :: armed[me] -> log_constructor(s, x) :: else fi; slot[s] = x; constructed[s] = (armed[me] && x != 0) }
#define CONSTRUCT(s) EACH_SLOT(CONSTRUCT_WITH, s)

#ifdef NO_DELETION
#define log_old(s) skip
#else
#define log_old(s) shade(slot[s])
#endif
#ifdef NO_INSERTION
#define log_new(x) skip
#else
#define log_new(x) shade(x)
#endif
#ifdef SPLIT
#define begin_unit skip
#else
#define begin_unit unit[me] = 1
#endif
/* The test and the log are one step: inside a unit `armed` cannot change, and what is in a register is not lost before. */
#define ASSIGN_VALUE(s, x) \
  :: d_step { is_free && can_use(me, s) && (x == 0 || has(me, x)) -> \
              begin_unit; to = s; value = x; if :: armed[me] -> log_old(s); log_new(x) :: else fi; stores = 1 }
#define ASSIGN(s) EACH_SLOT(ASSIGN_VALUE, s)

proctype Mutator(bit me) {
  bit stores;      /* an assignment is going on: tested and logged, not stored */
  byte to, value;

end:  /* it may be here when marking is over */
  do
  EACH_WORD(LOAD)
  EACH_WORD(DROP)
  EACH_WORD_PAIR(COPY)
  EACH_WORD(TAKE_OUT)
  CONSTRUCT(1) CONSTRUCT(2)
#ifdef NO_CONSTRUCTOR
  CONSTRUCT(0)  /* makes it quicker to find */
#endif
  ASSIGN(0) ASSIGN(1) ASSIGN(2)
  :: d_step {
       stores && runs(me) ->
       slot[to] = value; constructed[to] = 0; note_assigned(value); unit[me] = 0; stores = 0; to = 0; value = 0
     }
  :: d_step { is_free -> blocked[me] = 1; forget_assigned }
#ifndef NO_VISIT
  :: d_step { blocked[me] && !late[me] && !over -> blocked[me] = 0; forget_assigned }
#else
  :: d_step {
       blocked[me] && !over ->
       blocked[me] = 0;
       if :: late[me] -> late[me] = 0; seen[me] = 0; armed[me] = 1 :: else fi
     }
#endif
  EACH_WORD(ALLOCATE)
  od
}

#define can_stop(m) (blocked[m] || !unit[m])

/* m's part of the arming stop. */
#ifdef NO_CAPTURE
#define capture(x) skip
#else
#define capture(x) shade(x)
#endif
#ifdef NO_GLOBAL
#define color_of_global BLACK
#else
#define color_of_global GREY
#endif
#if WORDS == 3
#define last_word(m) (m + 1)
#else
#define last_word(m) (2 * m + 1)
#endif
inline arm(m) {
  if
  :: blocked[m] -> late[m] = 1
  :: else -> capture(word[2 * m]); capture(word[last_word(m)]); armed[m] = 1
  fi
}

inline visit(m) {
  shade(word[2 * m + seen[m]]);
  if
  :: 2 * m + seen[m] < last_word(m) -> seen[m]++
  :: else -> seen[m] = 0; late[m] = 0; armed[m] = 1
  fi
}

inline scan(s) { color[s] = BLACK; shade(slot[s]) }

/* Is o reachable? Two objects: by a frame or the global, directly or through the other one. */
#define is_root(o) (slot[0] == o || has(0, o) || has(1, o))
#define is_reachable(o, other) (is_root(o) || is_root(other) && slot[other] == o)

inline flip() {
  assert(!is_reachable(1, 2) || color[1] == BLACK);
  assert(!is_reachable(2, 1) || color[2] == BLACK);
  over = 1
}

active proctype Collector() {
  /* The global leads to object 1; object 2 is still to be allocated. */
  atomic { slot[0] = 1; color[2] = UNUSED; run Mutator(0); run Mutator(1) };

#ifdef RAGGED_CAPTURE
  d_step { can_stop(0) -> arm(0); first_waits = 1 };
  d_step { can_stop(1) -> arm(1); first_waits = 0; color[0] = color_of_global };
#else
  d_step { can_stop(0) && can_stop(1) -> arm(0); arm(1); color[0] = color_of_global };
#endif

  do
  :: d_step { color[0] == GREY -> scan(0) }
  :: d_step { color[1] == GREY -> scan(1) }
  :: d_step { color[2] == GREY -> scan(2) }
  :: d_step { late[0] -> visit(0) }
  :: d_step { late[1] -> visit(1) }
  :: d_step {
       color[0] != GREY && color[1] != GREY && color[2] != GREY && !late[0] && !late[1] && can_stop(0) && can_stop(1) ->
       flip()
     };
     break
  od
}
