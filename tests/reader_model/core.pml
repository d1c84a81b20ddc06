/* Page map, chains and frames: the reader protocol as it is in shm/ and engine/, sequentially
 * consistent. What the orders of single stores are worth is the business of announce.pml and
 * order.pml; check.sh says what else there is, and which sizes are searched.
 *
 * One engine, NR readers, NP pages, NF frames. Every access to shared memory is its own step. A
 * frame's content is identified by (page, csn): hp[], hc[] stand for the whole page.
 *
 * EVICT   pages leave the pool and come back
 * REVOKE  the engine ends leases, whenever it likes
 * DETACH  reader 0's connection ends, but its process lives on, and may take its first snapshot
 *         only then; reader 1 gets the slot's number
 * ACCUSE  the engine keeps what it saw of a slot, and calls nobody hostile who is not
 * WATCH   the engine asks for marks by a bit of the page map's entry (kWatched), and takes it away
 *         again, by one store of the entry as it is but for the bit; WATCH_ONE: of page 0 alone
 * RENEW   a reader lets go of its frames and looks its pages up again; REST: it waits without any
 * OWNER   the next snapshot may be that of a new owner of the slot, in the same process, and the
 *         one before may have ended in a rest
 * ONE     batches change page 0 alone
 * V_...   one deliberate fault each; all of them must fail
 */
#ifndef NR
#define NR 1
#endif
#ifndef NF
#define NF 4
#endif
#ifndef MAXC
#define MAXC 4          /* csns 1..MAXC */
#endif
#ifndef READS
#define READS 1         /* snapshots per reader */
#endif
#ifndef PIPE
#define PIPE 2          /* batches applied but unpublished */
#endif
#define NEV  1          /* evictions */
#define NREV 1          /* revocations */
#define NP   2
#define NONE 255
#define IDLE 0
#define NOTHING 253     /* looked: uses no frame */
#define PIN  254
#define NOBODY 255      /* pinned_from: no slot is in PIN_ALL */
#define WATCHED 64      /* the bit of a page map entry; NONE never has it */
#define FRAME(e) (e == NONE -> NONE : e & 63)

#define FREE  0
#define UNPUB 1
#define PUB   2         /* published; retired when it has a successor */
#define LIMBO 3         /* evicted, not yet reused */
#define ROUND 4         /* unlinked in the round under way */

#ifdef DETACH
#define REV(i) rev[0]
#define AFTER 8         /* episodes after the newest that die with the connection */
#define SNAPSHOTS (me == 0 -> READS : 1)
#else
#define REV(i) rev[i]
#define SNAPSHOTS READS
#endif

/* shared memory */
byte pm[NP];
byte hp[NF]; byte hc[NF]; byte ol[NF];
byte visible = 1;
byte gen;
byte slot[NR];
byte seq[NR];
byte rev[NR];           /* episodes up to this one are revoked */
#ifdef RENEW
byte looked[NR];        /* every frame in use was looked up when this was visible */
#endif
#ifdef DETACH
bool attached[NR];      /* has a connection; the engine scans these alone */
#endif

/* the engine's own */
byte st[NF];
byte lo_[NF];           /* csn of the content of a frame in use */
byte sup[NF];           /* successor csn, 0 = none */
byte nw[NP];            /* newest version, published or not */
byte next = 2;          /* next csn */
byte disk[NP];
byte ub[4];             /* unpublished frames [batch*NP+page] */
byte uc[2];             /* their csns */
byte nu;
#ifdef V_REVOKE_LATE
byte pend = NONE; byte pendq;
#endif
/* ghost: which csns changed which page; the snapshot a reader really has */
bool hist[16];
byte gs[NR];
byte gq[NR];

#ifdef V_EVICT_UNPUB
#define SINGLE(p) true
#else
#define SINGLE(p) (nw[p] == FRAME(pm[p]))
#endif
#ifdef RENEW
#define LOOKED_ZERO l = 0;
#define RESET_READ_AT(i) read_at[i] = 0;
#else
#define LOOKED_ZERO
#define RESET_READ_AT(i)
#endif
#ifdef DETACH
#define SCANNED(i) attached[i]
#else
#define SCANNED(i) true
#endif
#ifdef ACCUSE
#define SCAN_ANY || visible != last_visible || slot[0] != IDLE
#else
#define SCAN_ANY || (slot[0] != IDLE && slot[0] != PIN && seq[0] != known[0])
#endif
#define H(p,c) hist[(p)*8+(c)]

inline truth(p, s, res) {
  res = s;
  do :: res > 0 && !H(p,res) -> res-- :: else -> break od
}

/* ------------------------------------------------------------------ engine */

inline alloc(f) {       /* a free frame; there is one */
  f = 0;
  do :: f < NF && st[f] != FREE -> f++ :: else -> break od
}

/* A version of an unpublished batch: VersionWriter::fill, then link. Stale walkers may look. */
inline copy_version(f, p, c, o) {
  d_step { st[f] = UNPUB; lo_[f] = c; sup[f] = 0; hc[f] = c }
  hp[f] = p;
  ol[f] = o
}

#ifndef V_BOUND
#define IN(w, lo, hi) (w >= lo && w < hi)
#else
#define IN(w, lo, hi) (w > lo && w <= hi)
#endif
/* A replaced version is judged by the snapshots, an evicted page by when its frame was looked up;
 * both by slots in PIN_ALL. */
inline judge(v) {
  blocked = sup[v] > from; i = 0;
  do
  :: i < NR ->
#ifdef RENEW
#ifdef V_LOOKED_ALL
     if :: held[i] != IDLE && IN(read_at[i], lo_[v], sup[v]) -> blocked = true :: else fi;
#else
     if :: st[v] == LIMBO && held[i] != IDLE && IN(read_at[i], lo_[v], sup[v]) -> blocked = true
        :: st[v] != LIMBO && held[i] != IDLE && IN(held[i], lo_[v], sup[v]) -> blocked = true
        :: else
     fi;
#endif
#else
     if :: held[i] != IDLE && IN(held[i], lo_[v], sup[v]) -> blocked = true :: else fi;
#endif
     i++
  :: else -> i = 0; break
  od
}

/* SlotWatcher::look: word, then episode, then looked. */
#ifdef RENEW
#define LOOK_LOOKED(i) ; l = looked[i]
#else
#define LOOK_LOOKED(i)
#endif
#ifdef V_EPISODE_FIRST
#define LOOK(i) q = seq[i]; w = slot[i] LOOK_LOOKED(i)
#else
#define LOOK(i) w = slot[i]; q = seq[i] LOOK_LOOKED(i)
#endif
/* SlotWatcher::look_again: an episode that changed after the fence does not count. */
#define LOOK_AGAIN(i) q1 = q; LOOK(i); if :: q != q1 -> w = IDLE :: else fi; q1 = 0

#ifdef V_REVOKE_LATE
#define COUNTS(i) (w != IDLE && q > REV(i) && !(i == pend && q <= pendq))
#else
#define COUNTS(i) (w != IDLE && q > REV(i))
#endif

/* The bound of a slot in PIN_ALL whose episode is seen for the first time, ClientPort::not_below. */
#ifdef V_PIN_NOW
#define BOUND_BEFORE visible
#else
#define BOUND_BEFORE last_visible
#endif
#ifdef V_PIN_KNOWN
#define BOUND_KNOWN(w) visible
#else
#define BOUND_KNOWN(w) w
#endif

/* ClientPort::look_at. Of an episode not seen before, the word may be that of the one before. */
inline scan_slot(i) {
  held[i] = IDLE;
  LOOK(i);
  if
  :: COUNTS(i) ->
#ifdef ACCUSE
     fresh = q != known[i];
#ifndef V_NO_RELOOK
     if :: fresh -> LOOK_AGAIN(i) :: else fi;
#endif
#endif
#ifndef V_NOPIN
     do :: w == PIN -> LOOK_AGAIN(i) :: break od;
#endif
     if
     :: COUNTS(i) ->
        d_step {
          if
          :: q != known[i] ->
             known[i] = q; bound[i] = BOUND_BEFORE;
#ifdef ACCUSE
             word_known[i] = false
#endif
          :: else
          fi;
          if
          :: w != PIN ->
#ifdef ACCUSE
             assert(w <= visible && w >= bound[i]);
             assert(!word_known[i] || w == bound[i]);
#ifdef RENEW
             assert(l <= visible || l == NOTHING);
#endif
             word_known[i] = true;
#endif
             held[i] = w; bound[i] = BOUND_KNOWN(w)
#ifndef V_NOPIN
          :: w == PIN && bound[i] < from -> from = bound[i]
#endif
          :: else
          fi
        }
#ifdef RENEW
        d_step { read_at[i] = (l > w -> l : w) }
#endif
     :: else
     fi
  :: else
  fi;
  d_step { if :: COUNTS(i) -> skip :: else -> bound[i] = 0 fi; w = 0; q = 0; LOOKED_ZERO fresh = false }
}

/* ghost check: nobody who is not revoked needs it */
inline check_free(v) {
#ifndef V_REVOKE_LATE
  i = 0;
  do
  :: i < NR ->
#ifdef RENEW
     /* an evicted page can be read again: the reader's own assertion watches its frames */
     assert(retired == LIMBO || !(gs[i] != 0 && gq[i] > REV(i) && gs[i] >= lo_[v] && gs[i] < sup[v]));
#else
     assert(!(gs[i] != 0 && gq[i] > REV(i) && gs[i] >= lo_[v] && gs[i] < sup[v]));
#endif
     i++
  :: else -> i = 0; break
  od
#else
  skip
#endif
}

#define RETIRED(v) ((st[v] == PUB || st[v] == LIMBO) && sup[v] != 0 && sup[v] <= visible)

/* The frames are free, and written over at once, by what every snapshot takes for its own. */
inline free_round() {
  d_step {
    v = 0;
    do
    :: v < NF -> if :: st[v] == ROUND -> st[v] = FREE; lo_[v] = 0; sup[v] = 0; hp[v] = NP; hc[v] = 1; ol[v] = NONE :: else fi; v++
    :: else -> break
    od;
    v = 0
  }
}

proctype Engine() {
  byte f, g, p, v, x, i, w, q, q1, l, c, m, retired;
  byte held[NR];         /* by the newest scan: the csn, or IDLE */
#ifdef RENEW
  byte read_at[NR];      /* the same of evicted pages: the greater of word and looked */
#endif
  byte known[NR];        /* the episode seen last, and what its snapshot is not below */
  byte bound[NR];
  byte last_visible = 1; /* at the newest scan */
#ifdef ACCUSE
  bool word_known[NR];   /* the bound is the snapshot itself */
#endif
  byte nev, nrev, from = NOBODY; bool blocked, fresh, any;
#ifdef V_TWO_ROUNDS
  bool again;
#endif
#if defined(WATCH) && defined(V_WATCH_LATE)
  byte late = NONE, latep;
#endif
end_engine:
  do
  /* apply a batch: pages m (bit 0, bit 1) */
  :: nu < PIPE && next <= MAXC ->
#ifdef ONE
     m = 1;
#else
     if :: m = 1 :: m = 2 :: m = 3 fi;
#endif
     /* both pages must be resident and frames must be there */
     atomic {
       g = 0; f = 0;
       do :: f < NF -> if :: st[f] == FREE -> g++ :: else fi; f++ :: else -> break od;
       if :: (m & 1) && nw[0] == NONE -> g = 0 :: else fi;
       if :: (m & 2) && nw[1] == NONE -> g = 0 :: else fi;
     }
     if
     :: g >= 2 || (g == 1 && m != 3) ->
        atomic { c = next; next++; uc[nu] = c; ub[nu*2] = NONE; ub[nu*2+1] = NONE; p = 0 }
        do
        :: p < NP ->
           if :: (m >> p) & 1 ->
              atomic { alloc(f); assert(f < NF) }
#ifdef V_LINK_LATE
              copy_version(f, p, c, ol[f]);
#else
              copy_version(f, p, c, nw[p]);
#endif
              d_step { x = nw[p]; nw[p] = f; ub[nu*2+p] = f; H(p,c) = true; x = 0 }
           :: else fi;
           p++
        :: else -> break
        od; skip;
        d_step { nu++; p = 0; f = 0; g = 0; c = 0 }
     :: else -> skip
     fi; m = 0; g = 0; f = 0

  /* publish the oldest batch: page map entries, then visible */
  :: nu > 0 ->
     p = 0;
#ifdef V_VISFIRST
     visible = uc[0];
#endif
     do
     :: p < NP ->
        if :: ub[p] != NONE ->
#ifdef V_LINK_LATE
           d_step { x = FRAME(pm[p]); pm[p] = ub[p] }
           d_step { ol[ub[p]] = x; st[ub[p]] = PUB; if :: x != NONE -> sup[x] = uc[0] :: else fi }
#else
           d_step { x = ol[ub[p]]; pm[p] = ub[p]; st[ub[p]] = PUB; if :: x != NONE -> sup[x] = uc[0] :: else fi }
#endif
        :: else fi;
        p++
     :: else -> break
     od;
#ifndef V_VISFIRST
     visible = uc[0];
#endif
     skip;
     d_step { uc[0] = uc[1]; ub[0] = ub[2]; ub[1] = ub[3]; ub[2] = NONE; ub[3] = NONE; uc[1] = 0; nu--; p = 0; x = 0 }

  /* a round of reclaim: one scan, then any versions that nobody needs, in any order; one step of
   * the generation serves them all */
  :: atomic { v = 0; do :: v < NF && !RETIRED(v) -> v++ :: else -> break od; (v < NF SCAN_ANY); v = 0 }
     i = 0;
     do
     :: i < NR && SCANNED(i) -> scan_slot(i); i++
     :: i < NR && !SCANNED(i) -> held[i] = IDLE; i++
     :: else -> d_step { i = 0; last_visible = visible } break
     od;
#ifdef V_TWO_ROUNDS
round:
#endif
        do
        :: atomic { v = 0; do :: v < NF-1 -> v++ :: break od;
             (RETIRED(v)); judge(v); !blocked }
           d_step { retired = st[v]; check_free(v); st[v] = ROUND; x = 0;
#ifndef V_NO_UNLINK
             if
             :: retired == PUB ->
                do :: x < NF && !(ol[x] == v && (st[x] == PUB || st[x] == UNPUB)) -> x++ :: else -> break od;
                assert(x < NF)
             :: else
             fi
#endif
             }
#ifdef V_GEN_FIRST
           if :: !any -> gen++ :: else fi;
#endif
#ifndef V_NO_UNLINK
           if :: retired == PUB -> ol[x] = ol[v] :: else fi;
#endif
#ifdef V_GEN_EARLY
           if :: !any -> gen++ :: else fi;
#endif
           any = true;
           d_step { retired = 0; x = 0; v = 0 }
        :: break
        od;
#ifdef V_GEN_LATE
        free_round();
#endif
        if :: any ->
#if !defined(V_GEN_FIRST) && !defined(V_GEN_EARLY)
           gen++;
#endif
#ifdef V_REVOKE_LATE
           if :: pend != NONE ->
              free_round();
              REV(pend) = pendq; pend = NONE
              :: else
           fi;
#endif
           free_round()
        :: else
        fi;
#ifdef V_TWO_ROUNDS
        if :: any && !again -> d_step { again = true; any = false }; goto round :: else -> again = false fi;
#endif
     skip;
     d_step { v = 0; i = 0; any = false; from = NOBODY; blocked = false; x = 0; f = 0;
       do :: f < NR -> held[f] = IDLE; RESET_READ_AT(f) f++ :: else -> break od; f = 0 }

#ifdef EVICT
  /* evict a page that has one version, which a checkpoint covers */
  :: atomic { if :: p = 0 :: p = 1 fi;
       (nev < NEV && pm[p] != NONE && ol[FRAME(pm[p])] == NONE && (nu > 0 || next <= MAXC) && SINGLE(p)) }
     /* e is the csn of the next publication; with none under way the round takes a csn of its own */
     d_step { nev++; x = FRAME(pm[p]); pm[p] = NONE; disk[p] = lo_[x]; st[x] = LIMBO;
#ifdef V_EVICT_UNPUB
       if :: nw[p] == x -> nw[p] = NONE :: else fi;
#else
       nw[p] = NONE;
#endif
       if :: nu > 0 -> c = uc[0] :: else -> c = next; next++ fi;
#ifdef V_EVICT_NOCSN
       if :: nu > 0 -> skip :: else -> next-- fi; c = visible;
#endif
       sup[x] = c }
     if :: nu == 0 -> visible = c :: else fi;
     d_step { x = 0; c = 0; p = 0 }

  /* page in: the link ends, the device writes in any order, then the page map leads here */
  :: atomic { if :: p = 0 :: p = 1 fi; pm[p] == NONE && nw[p] == NONE; alloc(f); f < NF }
     d_step { st[f] = UNPUB; lo_[f] = disk[p]; sup[f] = 0; ol[f] = NONE }
#ifdef V_MAP_EARLY
     d_step { pm[p] = f; nw[p] = f }
#endif
     if :: hc[f] = disk[p]; hp[f] = p :: hp[f] = p; hc[f] = disk[p] fi;
#ifdef WATCH
     d_step { pm[p] = f + WATCHED; nw[p] = f; st[f] = PUB; f = 0; p = 0 }
#else
     d_step { pm[p] = f; nw[p] = f; st[f] = PUB; f = 0; p = 0 }
#endif
#endif

#ifdef WATCH
  /* begin or end to watch a page; what the entry holds is the engine's own last store */
  :: atomic { if :: p = 0 :: p = 1 fi;
#ifdef WATCH_ONE
       p == 0;
#endif
#ifdef V_WATCH_LATE
       /* the entry is remembered, and stored again when something else may stand there */
       (pm[p] != NONE && late == NONE) }
     d_step { late = pm[p]; latep = p; p = 0 }
  :: late != NONE ->
     pm[latep] = (late & WATCHED -> late - WATCHED : late + WATCHED);
     d_step { late = NONE; latep = 0 }
#else
       (pm[p] != NONE) }
     d_step { pm[p] = (pm[p] & WATCHED -> pm[p] - WATCHED : pm[p] + WATCHED); p = 0 }
#endif
#endif

#ifdef REVOKE
  /* revoke a slot */
  :: atomic { i = 0; do :: i < NR-1 -> i++ :: break od;
#ifdef V_REVOKE_LATE
       (nrev < NREV && slot[i] != IDLE && seq[i] > rev[i] && pend == NONE) }
     d_step { pend = i; pendq = seq[i] }
#else
       (nrev < NREV && slot[i] != IDLE && seq[i] > rev[i]) }
     w = slot[i]; q = seq[i];
     if :: w != IDLE -> rev[i] = q :: else fi;
#endif
     d_step { nrev++; i = 0; w = 0; q = 0 }
#endif

#ifdef DETACH
  /* the connection of reader 0 ends; reader 1 gets the slot's number, in a segment of its own */
  :: attached[0] ->
     q = seq[0];
#ifdef V_DETACH_NEWEST
     rev[0] = q;
#else
     rev[0] = q + AFTER;
#endif
     d_step { attached[0] = false; q = 0; known[0] = 0; bound[0] = 0;
#ifndef V_OWNER_AGAIN
       seq[1] = rev[0];
#endif
       attached[1] = true }
#endif
  od
}

/* ------------------------------------------------------------------ reader */

/* page_walk::walk: from the page map to the version that s sees; disturbed when the generation
 * moved meanwhile. */
inline walk(p, fr, disturbed) {
  g = gen;
#ifdef V_NOMASK
  fr = pm[p];
#else
  d_step { fr = pm[p]; fr = FRAME(fr) }
#endif
  absent = fr == NONE;
  do
  :: fr != NONE && fr < NF ->
     c = hc[fr];
     if :: c > s -> fr = ol[fr] :: else -> break fi
  :: else -> fr = NONE; break
  od;
#ifdef V_NO_GEN
  disturbed = false;
#else
  disturbed = gen != g;
#endif
  d_step { g = 0; c = 0 }
}

/* version_at and walk_pinned: leaves the frame in fr, or NONE */
inline get(p, fr) {
  skip;
  walk(p, fr, bad);
  if
  :: bad ->
     r = REV(me);
     if
     :: r >= k -> fr = NONE; absent = true
     :: else ->
#ifndef V_NO_PIN_WALK
        slot[me] = PIN;
#endif
#ifndef V_UNCHECKED_FIRST
        walk(p, fr, bad);
#endif
        /* no round is left that does not know of the pin: this one needs no check */
        if :: bad -> walk(p, fr, bad) :: else fi;
        slot[me] = s
     fi
  :: else
  fi;
  /* a version too new with nothing below: only for a revoked reader (pages here exist from csn 1
   * on). Absent: it would ask for the page. */
  if
  :: fr == NONE && !absent -> r = REV(me); assert(r >= k)
  :: else
  fi;
  d_step { bad = false; r = 0; absent = false }
}

inline get_both() {
  get(0, f0); get(1, f1)
}

/* What do the frames hold now? */
inline use() {
  d_step { truth(0, s, t0); truth(1, s, t1);
    if :: f0 != NONE && (hp[f0] != 0 || hc[f0] != t0) -> wrong = true :: else fi;
    if :: f1 != NONE && (hp[f1] != 1 || hc[f1] != t1) -> wrong = true :: else fi;
    t0 = 0; t1 = 0 }
}

#ifdef RENEW
/* SlotOwner::renew: when nothing was published since the last time, frames may stay in use. */
inline renew() {
#ifdef V_LOOKED_LATE
  /* looks up before it says so, and says what is visible then */
  f0 = 0; f1 = 0;
  get_both();
  own = visible;
  looked[me] = own
#else
  r = visible;
  if
  :: r == (own > s -> own : s) -> r = 0
  :: else ->
     d_step { own = r; r = 0 }
     looked[me] = own;
     f0 = 0; f1 = 0;
     get_both()
  fi
#endif
}

/* SlotOwner::rest: waits without any frame; SlotOwner::resume: announces itself anew before it
 * looks one up. */
inline rest() {
  f0 = NONE; f1 = NONE; looked[me] = NOTHING;
#ifdef V_REST_LOOKUP
  get(0, f0);
  looked[me] = s;
  own = visible;
  looked[me] = own;
  get(1, f1)
#else
  if
#ifdef OWNER
  :: n < SNAPSHOTS -> skip  /* ends here, and the slot gets its next owner */
#endif
  :: true ->
     looked[me] = s;
     own = visible;
     looked[me] = own;
     f0 = 0; f1 = 0;
     get_both()
  fi
#endif
}
#endif

proctype Reader(byte me) {
  byte s, f0, f1, g, c, k, r, t0, t1, n;
  bool bad, absent, wrong;
#ifdef RENEW
  byte own;             /* SlotOwner::looked_, the value stored last */
#endif
#ifdef DETACH
  /* an owner in the old segment may begin after the detach as well */
  me == 0 || attached[me];
  k = seq[me];
#ifdef V_OWNER_AFTER
  r = REV(me);
  if :: r > k -> k = r :: else fi; r = 0;
#endif
#endif
  do
  :: n < SNAPSHOTS ->
#ifdef OWNER
     /* SlotOwner's constructor: episodes go on; in a fresh slot it finds what it stores */
     if
     :: n > 0 ->
#ifndef V_OWNER_LOOKED
        looked[me] = 0;
#endif
        own = 0
     :: looked[me] != NOTHING -> skip  /* the same owner goes on */
     fi;
#endif
     d_step { n++; k++ }
     /* SlotOwner::begin */
     seq[me] = k;
     slot[me] = PIN;
     d_step { s = visible; gs[me] = s; gq[me] = k }
     slot[me] = s;
     get_both();

#ifdef RENEW
     /* lets go of its frames, keeps the snapshot, and looks both pages up once more */
     if
     :: true -> skip
     :: true ->
        /* the end of the first use: it must have been right until here */
        use();
        if
        :: true -> renew()
#ifdef REST
        :: true -> rest()
#endif
        fi
     fi;
#endif

     /* the end of the use, and valid() */
     use();
     r = REV(me);
#ifdef V_BELIEVE
     r = 0;
#endif
     assert(r >= k || !wrong);
#ifdef V_OWNER_AGAIN
     /* nobody revoked a snapshot of this one */
     assert(me == 0 || r < k);
#endif
     d_step { gs[me] = 0; slot[me] = IDLE; f0 = 0; f1 = 0; s = 0; wrong = false; r = 0 }
  :: else -> break
  od
}

init {
  atomic {
    hp[0] = 0; hc[0] = 1; ol[0] = NONE; st[0] = PUB; lo_[0] = 1; pm[0] = 0; nw[0] = 0;
    hp[1] = 1; hc[1] = 1; ol[1] = NONE; st[1] = PUB; lo_[1] = 1; pm[1] = 1; nw[1] = 1;
    byte n = 2;
    do :: n < NF -> ol[n] = NONE; hp[n] = NP; n++ :: else -> break od;
    H(0,1) = true; H(1,1) = true; disk[0] = 1; disk[1] = 1;
    ub[0] = NONE; ub[1] = NONE; ub[2] = NONE; ub[3] = NONE;
#ifdef DETACH
    attached[0] = true;
#endif
    run Engine();
    n = 0;
    do :: n < NR -> run Reader(n); n++ :: else -> break od
  }
}
