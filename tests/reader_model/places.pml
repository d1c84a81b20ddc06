/* The place of a page that leaves without a version of type free: a page of an extent, or (DROP) a
 * leaf that was dropped unread. From its freeing to the end of its quarantine older snapshots read
 * on; then the place gets other content. Readers take the frame that the page map gives and look at
 * no generation: a page of an extent has no versions.
 *
 * Content 1 is visible from csn 1 and freed by csn 2; content 2 comes into the same place later. It
 * may be that no checkpoint has written content 1 by then: the frame is all there is of it. An
 * extent's frame is then judged as a replaced version (retiring); a dropped leaf's stays.
 * The reader renews what it looked up, and rests while it waits for the page.
 * V_...: one deliberate fault each; all of them must fail.
 */
#ifndef NF
#define NF 2
#endif
#ifndef MAXC
#define MAXC 5
#endif
#ifndef READS
#define READS 1
#endif
#define NONE 255
#define IDLE 0
#define NOTHING 253
#define PIN 254

#define FREE 0
#define LOADING 1
#define UNPUB 2
#define PUB 3
#define RETIRING 4      /* freed, and not in the file: for older snapshots alone */
#define LIMBO 5         /* evicted */

/* shared memory */
byte pm = 0, visible = 1, slot = IDLE, seq, looked;
byte content[NF];

/* the engine's own */
byte st[NF], sup[NF];
byte file, covered;
byte freed;             /* csn; 0: not yet */
byte reused;            /* csn of content 2; 0: not visible yet */
byte known, bound;      /* the episode seen last, and what its snapshot is not below */
byte last_visible = 1;  /* at the newest scan */
bool changed, unwritten, available;
bool gone;              /* content 1 is gone for good: its quarantine is over */

#define RESIDENT (newest != NONE)
#define LOADING_ONE (st[0] == LOADING || st[1] == LOADING)
#ifdef V_EVICT_UNWRITTEN
#define EVICTABLE true
#else
#define EVICTABLE (!changed && !unwritten)
#endif
#ifdef V_QUARANTINE_LOAD
#define NOT_READ true
#else
#define NOT_READ !LOADING_ONE
#endif
#ifdef V_PIN_NOW
#define BOUND_BEFORE visible
#else
#define BOUND_BEFORE last_visible
#endif
/* SlotWatcher::look, ClientPort::look_at: of a slot in PIN_ALL, b is what its snapshot is not below */
inline scan() {
  w = slot; q = seq; l = looked;
  d_step {
    if :: l > w -> skip :: else -> l = w fi;
    if :: w != IDLE && q != known -> known = q; bound = BOUND_BEFORE :: else fi;
    if :: w != IDLE && w != PIN -> bound = w :: else fi;
    b = bound; q = 0;
    last_visible = visible
  }
}

proctype Engine() {
  byte newest = 0, f, w, l, c, q, b;
end_engine:
  do
  /* csn 2 frees the page */
  :: freed == 0 && visible == 1 && newest != NONE ->
#ifdef DROP
     unwritten = changed;
#else
     if :: changed -> unwritten = true; st[newest] = RETIRING; sup[newest] = 2 :: else fi;
#endif
#ifdef V_END_NOW
     d_step { pm = NONE; st[newest] = LIMBO; sup[newest] = 2; newest = NONE }
#endif
     freed = 2;
     visible = 2
  :: freed == 0 && visible == 1 && newest == NONE -> freed = 2; visible = 2
  /* batches of others */
  :: freed != 0 && visible < MAXC -> visible = visible + 1

  /* a checkpoint of what is visible: an image of the page where it is allocated */
  :: atomic { covered < visible ->
       if :: newest != NONE && changed && (freed == 0 || (reused != 0 && reused <= visible)) ->
             file = content[newest]; changed = false
          :: else
       fi;
       covered = visible }

  /* the clock evicts */
  :: (newest != NONE && st[newest] == PUB && visible < MAXC && EVICTABLE) ->
     d_step { pm = NONE; st[newest] = LIMBO; sup[newest] = visible + 1; newest = NONE }
     visible = visible + 1

  /* a page that is allocated, or whose place still has it, is read */
  :: atomic { newest == NONE && !LOADING_ONE && !gone ->
       f = 0; do :: f < NF && st[f] != FREE -> f++ :: else -> break od; f < NF;
       st[f] = LOADING }
     content[f] = file;
     f = 0
  :: atomic { newest == NONE && LOADING_ONE ->
       f = (st[0] == LOADING -> 0 : 1); st[f] = PUB; pm = f; newest = f; f = 0 }

  /* a round of reclaim: evicted frames by when they were looked up, retiring ones by the snapshots */
  :: atomic { f = 0; do :: f < NF-1 -> f++ :: break od;
       (st[f] == LIMBO || st[f] == RETIRING) && sup[f] <= visible }
     scan();
     if
     :: w == PIN && sup[f] > b -> skip
     :: w != PIN && w != IDLE && st[f] == LIMBO && l >= 1 && l < sup[f] -> skip
#ifdef V_RETIRING_LOOKED
     :: w != PIN && w != IDLE && st[f] == RETIRING && l >= 1 && l < sup[f] -> skip
#else
     :: w != PIN && w != IDLE && st[f] == RETIRING && w >= 1 && w < sup[f] -> skip
#endif
     :: else ->
        if :: newest == f -> pm = NONE; newest = NONE :: else fi;
        d_step { st[f] = FREE; sup[f] = 0; content[f] = 0 }
     fi;
     d_step { f = 0; w = 0; l = 0; b = 0 }

  /* the quarantine ends */
  :: (freed != 0 && covered >= freed && !gone && visible < MAXC && NOT_READ &&
      !(newest != NONE && st[newest] == RETIRING)) ->
     scan();
     if
#ifndef V_QUARANTINE_PIN
     :: w == PIN && b < freed -> skip
#endif
#ifndef V_QUARANTINE_SNAPSHOT
     :: w != PIN && w != IDLE && w < freed -> skip
#endif
     :: else ->
        if :: newest != NONE ->
#ifdef V_QUARANTINE_FREE
              d_step { pm = NONE; st[newest] = FREE; content[newest] = 0; newest = NONE }
#else
              d_step { pm = NONE; st[newest] = LIMBO; sup[newest] = visible + 1; newest = NONE }
#endif
              visible = visible + 1
           :: else
        fi;
        d_step { available = true; gone = true; changed = false; unwritten = false }
     fi;
     d_step { w = 0; l = 0; b = 0 }

  /* other content comes into the same place */
  :: atomic { available && visible < MAXC && newest == NONE ->
       f = 0; do :: f < NF && st[f] != FREE -> f++ :: else -> break od; f < NF;
       st[f] = UNPUB; available = false; newest = f }
     content[f] = 2;
     c = visible + 1;
     d_step { pm = f; st[f] = PUB; changed = true; reused = c }
     visible = c;
     d_step { f = 0; c = 0 }
  od
}

/* What the snapshot's rows refer to; 0: not to this page. */
#define WANTED (s < 2 -> 1 : (reused != 0 && s >= reused -> 2 : 0))

inline look_up() {
  f = pm;
  do
  :: f == NONE ->
     /* asks for the page: the engine has it, or the file does; never "no such page" */
     d_step { assert(want != 1 || !gone); assert(want != 1 || file == 1 || st[0] == RETIRING || st[1] == RETIRING || (st[0] >= PUB && content[0] == 1) || (st[1] >= PUB && content[1] == 1)) }
     looked = NOTHING;
     pm != NONE;
     looked = s;
     v = visible;
     looked = v;
     f = pm
  :: else -> break
  od;
  v = 0
}

proctype Reader() {
  byte s, f, n, want, v;
  do
  :: n < READS ->
     n++;
     seq = n; slot = PIN; s = visible; slot = s;
     d_step { want = WANTED }
#ifdef DROP
     /* the directory leads here, whatever the snapshot: it is no answer, but it must hold still */
     if
     :: want == 0 -> d_step { f = pm; if :: f != NONE -> want = content[f] :: else fi }
     :: want != 0 -> look_up()
     fi;
     if
     :: want == 0 || f == NONE -> skip
     :: else ->
        assert(content[f] == want)
     fi
#else
     if
     :: want == 0 -> skip
     :: else ->
        look_up();
        assert(content[f] == want);
        if
        :: skip
        :: v = visible; looked = v; v = 0;
           look_up()
        fi;
        assert(content[f] == want)
     fi
#endif
     ;
     d_step { slot = IDLE; f = 0; s = 0; want = 0 }
  :: else -> break
  od
}

init {
  atomic {
    content[0] = 1; st[0] = PUB;
    if
    :: changed = true; file = 0
    :: changed = false; file = 1; covered = 1
    fi;
    run Engine(); run Reader()
  }
}
