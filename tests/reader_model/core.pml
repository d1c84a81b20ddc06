/* The reader protocol of the pool, sequentially consistent part.  See check.sh.
 *
 * One engine, NR readers, NP pages, NF frames.  Every access to shared memory is its own step.  A frame's content is
 * identified by (page, csn): hp[], hc[] stand for the whole page.
 *
 * PROTO 0: the walk of the first draft (each link is checked again after the csn behind it was read)
 *       1: the walk under the reuse generation (the fix)
 *       2: no check at all
 *       3: as 0, read generously: csn and next link are both read before the link to them is checked again
 * RENEW: a reader lets go of its frames and looks its pages up again; REST: it waits without any.
 * WATCH: the engine asks for marks by a bit of the page map's entry (kWatched), and takes it away
 *        again, whenever it likes: by one store of the entry as it is but for the bit.
 * V_... : one deliberate fault each; all of them must fail.
 */
#ifndef PROTO
#define PROTO 1
#endif
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
#ifndef NEV
#define NEV 1           /* evictions */
#endif
#ifndef NREV
#define NREV 1          /* revocations */
#endif
#define NP   2
#define NONE 255
#define IDLE 0
#define NOTHING 253     /* looked: uses no frame */
#define PIN  254
#define WATCHED 64      /* the bit of a page map entry; NONE never has it */
#define FRAME(e) (e == NONE -> NONE : e & 63)

#define FREE  0
#define UNPUB 1
#define PUB   2
#define LIMBO 3         /* evicted, not yet reused */

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
#ifdef V_SLOTGEN
byte rw[NR];
#endif
#ifdef V_REVOKE_LATE
byte pend = NONE; byte pendq;
#endif
/* ghost: which csns changed which page; the snapshot a reader really has */
bool hist[16];
byte gs[NR];
byte gq[NR];
#ifdef LTL
bool rdone;
#endif

#ifdef V_EVICT_UNPUB
#define SINGLE(p) true
#else
#define SINGLE(p) (nw[p] == FRAME(pm[p]))
#endif
#define H(p,c) hist[(p)*8+(c)]

inline truth(p, s, res) {
  res = s;
  do :: res > 0 && !H(p,res) -> res-- :: else -> break od
}

/* ------------------------------------------------------------------ engine */

inline alloc(f) {       /* a free frame, or blocked */
  f = 0;
  do :: f < NF && st[f] != FREE -> f++ :: else -> break od
}

inline fill(f, p, oldc, c, o) {   /* not atomic: stale walkers may look */
  d_step { st[f] = UNPUB; lo_[f] = c; sup[f] = 0 }
  d_step { hp[f] = p; hc[f] = oldc }        /* memcpy of the newest version, or DMA */
  if :: oldc != c -> hc[f] = c :: else fi;
  ol[f] = o
}

/* an evicted page's frame is judged by when its users looked it up; a replaced version by their snapshots */
#ifdef RENEW
#ifdef V_LOOKED_ALL
#define EVICTED(v) true
#else
#define EVICTED(v) (st[v] == LIMBO)
#endif
#define JUDGE if :: w != IDLE && w != PIN && EVICTED(v) && looked[i] > w -> w = looked[i] :: else fi;
#else
#define JUDGE
#endif

inline scan(lo, hi) {
  i = 0; blocked = false;
  do
  :: i < NR ->
#ifdef V_SEQFIRST
     q = seq[i]; w = slot[i];
#else
     w = slot[i]; q = seq[i];
#endif
     JUDGE
#ifdef V_SLOTGEN
     /* no episode number: a revoked slot is ignored for as long as it shows the same word */
     if :: w != rw[i] -> rw[i] = IDLE :: else fi;
     if :: w == IDLE || w == rw[i] -> skip
#else
     if :: w == IDLE || q <= rev[i] -> skip
#endif
#ifdef V_REVOKE_LATE
        :: i == pend && q <= pendq -> skip
#endif
#ifdef V_NOPIN
        :: else -> if :: w != PIN && w >= lo && w < hi -> blocked = true :: else fi
#else
#ifdef RELOOK
        /* PIN_ALL: look again; an episode that began after the fence does not count */
        :: w == PIN && q > rev[i] ->
           w = slot[i];
           JUDGE
           if
           :: seq[i] != q -> skip
           :: else -> if :: w == PIN || (w >= lo && w < hi) -> blocked = true :: else fi
           fi
        :: w != PIN && w != IDLE && q > rev[i] -> if :: w >= lo && w < hi -> blocked = true :: else fi
#else
        :: else -> if :: w == PIN || (w >= lo && w < hi) -> blocked = true :: else fi
#endif
#endif
     fi;
     i++
  :: else -> break
  od
}

/* ghost check: nobody who is not revoked needs it */
inline check_free(v) {
#if !defined(V_SLOTGEN) && !defined(V_REVOKE_LATE) && !defined(READER_ONLY)
  i = 0;
  do
  :: i < NR ->
#ifdef RENEW
     /* an evicted page can be read again: the reader's own assertion watches its frames */
     assert(st[v] == LIMBO || !(gs[i] != 0 && gq[i] > rev[i] && gs[i] >= lo_[v] && gs[i] < sup[v]));
#else
     assert(!(gs[i] != 0 && gq[i] > rev[i] && gs[i] >= lo_[v] && gs[i] < sup[v]));
#endif
     i++
  :: else -> break
  od
#else
  skip
#endif
}

proctype Engine() {
  byte f, g, p, v, x, i, w, q, c, m;
  byte nev, nrev; bool blocked;
#if defined(WATCH) && defined(V_WATCH_LATE)
  byte late = NONE, latep;
#endif
end_engine:
  do
  /* apply a batch: pages m (bit 0, bit 1) */
  :: nu < PIPE && next <= MAXC ->
     if :: m = 1 :: m = 2 :: m = 3 fi;
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
              fill(f, p, lo_[nw[p]], c, nw[p]);
              d_step { nw[p] = f; ub[nu*2+p] = f; H(p,c) = true }
           :: else fi;
           p++
        :: else -> break
        od; skip;
        d_step { nu++; p = 0; f = 0; g = 0; c = 0 }
     :: else -> skip
     fi; m = 0; g = 0; f = 0

  /* publish the oldest batch */
  :: nu > 0 ->
     p = 0;
#ifdef V_VISFIRST
     visible = uc[0];
#endif
     do
     :: p < NP ->
        if :: ub[p] != NONE ->
           d_step { x = ol[ub[p]]; pm[p] = ub[p]; st[ub[p]] = PUB; if :: x != NONE -> sup[x] = uc[0] :: else fi }
        :: else fi;
        p++
     :: else -> break
     od;
#ifndef V_VISFIRST
     visible = uc[0];
#endif
     skip;
     d_step { uc[0] = uc[1]; ub[0] = ub[2]; ub[1] = ub[3]; ub[2] = NONE; ub[3] = NONE; uc[1] = 0; nu--; p = 0; x = 0 }

  /* reclaim one version */
  :: atomic { v = 0;
       do :: v < NF-1 -> v++ :: break od;
       (((st[v] == PUB || st[v] == LIMBO) && sup[v] != 0 && sup[v] <= visible)) }
     scan(lo_[v], sup[v]);
     if
     :: blocked -> skip
     :: else ->
        x = NONE;
#ifdef V_UNLINK_LATE
        d_step { check_free(v) }
        gen++;
        d_step { hp[v] = NP; hc[v] = 1 }    /* already overwritten */
#endif
        if :: st[v] == PUB ->
           d_step { x = 0; do :: x < NF && !(ol[x] == v && (st[x] == PUB || st[x] == UNPUB)) -> x++ :: else -> break od; assert(x < NF) }
           ol[x] = ol[v]
        :: else fi;
#if !defined(V_UNLINK_LATE) && !defined(V_GENLATE)
        gen++;
#endif
#ifdef V_REVOKE_LATE
        if :: pend != NONE -> d_step { hp[v] = NP; hc[v] = 1 }; rev[pend] = pendq; pend = NONE :: else fi;
#endif
        d_step { check_free(v); st[v] = FREE; lo_[v] = 0; sup[v] = 0; x = 0 }
#ifdef V_GENLATE
        /* the frame is handed out and overwritten, and only then the generation moves */
        d_step { hp[v] = NP; hc[v] = 1 }
        gen++;
#endif
     fi; skip; d_step { v = 0; i = 0; w = 0; q = 0; blocked = false; x = 0 }

#ifndef NO_EVICT
  /* evict a page */
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

  /* page in */
  :: atomic { if :: p = 0 :: p = 1 fi; pm[p] == NONE && nw[p] == NONE; alloc(f); f < NF }
     fill(f, p, disk[p], disk[p], NONE);
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

#ifndef NO_REVOKE
  /* revoke a slot */
  :: atomic { i = 0; do :: i < NR-1 -> i++ :: break od;
#if defined(V_SLOTGEN)
       (nrev < NREV && slot[i] != IDLE && rw[i] == IDLE) }
     atomic { w = slot[i]; if :: w != IDLE -> rw[i] = w; rev[i]++ :: else fi }
#elif defined(V_REVOKE_LATE)
       (nrev < NREV && slot[i] != IDLE && seq[i] > rev[i] && pend == NONE) }
     d_step { pend = i; pendq = seq[i] }
#else
       (nrev < NREV && slot[i] != IDLE && seq[i] > rev[i]) }
     w = slot[i]; q = seq[i];
     if :: w != IDLE -> rev[i] = q :: else fi;
#endif
     d_step { nrev++; i = 0; w = 0; q = 0 }
#endif
  od
}

/* ------------------------------------------------------------------ reader */

inline get(p, fr) {      /* leaves the frame in fr, or NONE */
  skip;
again:
  g = gen;
#ifdef V_NOMASK
  fr = pm[p];
#else
  d_step { fr = pm[p]; fr = FRAME(fr) }
#endif
#ifdef V_NOMASK
  /* as the walk does with what is no frame: no version, which is believed if nothing was revoked */
  if :: fr != NONE && fr >= NF -> r = rev[me]; if :: r < k -> assert(false) :: else fi; fr = NONE
     :: else fi;
#endif
  if
  :: fr == NONE -> skip                       /* would ask for the page */
  :: else ->
     c = hc[fr];
#if PROTO == 3
     y = ol[fr];
#endif
#if PROTO == 0 || PROTO == 3
     if :: pm[p] != fr -> goto again :: else fi;
#endif
     do
     :: c > s ->
#if PROTO == 3
        x = fr; fr = y;
#else
        x = fr; fr = ol[x];
#endif
        if :: fr == NONE -> break :: else fi;
        c = hc[fr];
#if PROTO == 3
        y = ol[fr];
#endif
#if PROTO == 0 || PROTO == 3
        if :: ol[x] != fr -> goto again :: else fi;
#endif
     :: else -> break
     od;
#if PROTO == 1
     if
     :: gen != g ->
#ifdef PINWALK
        /* the second try walks under PIN_ALL; after that only the round then under way can disturb it, once */
        tries = (tries < 3 -> tries + 1 : 3);
        assert(tries < 3 || rev[me] >= k);
        if :: tries == 1 -> slot[me] = PIN :: else fi;
#endif
        goto again
     :: else
     fi;
#ifdef PINWALK
     if :: tries > 0 -> slot[me] = s; tries = 0 :: else fi;
#endif
#endif
     /* a version too new with nothing below: only for a revoked reader (pages here exist from csn 1 on) */
     if
     :: fr == NONE ->
        r = rev[me];
#ifdef V_SLOTGEN
        if :: r == r0 -> assert(false) :: else fi
#else
        if :: r < k -> assert(false) :: else fi
#endif
     :: else fi
  fi
}

proctype Reader(byte me) {
  byte tries, s, p, fr, y, f0, f1, g, c, x, k, r, t0, t1, r0;
  bool bad;
  do
  :: k < READS ->
     k++;
#ifdef V_SLOTGEN
     r0 = rev[me];
#endif
     d_step { seq[me] = k; bad = false }
     slot[me] = PIN;
     d_step { s = visible; gs[me] = s; gq[me] = k }
     slot[me] = s;
     p = 0;
     do
     :: p < NP -> get(p, fr); skip; d_step { if :: p == 0 -> f0 = fr :: else -> f1 = fr fi; p++; fr = 0; c = 0; x = 0; y = 0; g = 0; r = 0 }
     :: else -> break
     od; skip;

#ifdef RENEW
     /* lets go of its frames, keeps the snapshot, and looks both pages up once more */
     if
     :: true -> skip
     :: true ->
        /* the end of the first use: it must have been right until here */
        d_step { truth(0, s, t0); truth(1, s, t1);
          if :: f0 != NONE && (hp[f0] != 0 || hc[f0] != t0) -> bad = true :: else fi;
          if :: f1 != NONE && (hp[f1] != 1 || hc[f1] != t1) -> bad = true :: else fi }
#ifdef V_LOOKED_LATE
        /* looks up before it says so, and says what is visible then */
        f0 = 0; f1 = 0; p = 0;
        do
        :: p < NP -> get(p, fr); skip; d_step { if :: p == 0 -> f0 = fr :: else -> f1 = fr fi; p++; fr = 0; c = 0; x = 0; y = 0; g = 0; r = 0 }
        :: else -> break
        od; skip;
        r = visible;
        looked[me] = r; r = 0
#else
#ifdef REST
        /* waits without any frame, and announces itself anew before it looks one up */
        f0 = NONE; f1 = NONE; looked[me] = NOTHING;
#ifdef V_REST_LOOKUP
        get(0, fr); skip; d_step { f0 = fr; fr = 0; c = 0; x = 0; y = 0; g = 0; r = 0 }
        looked[me] = s;
        r = visible;
        looked[me] = r; r = 0; p = 1;
        do
        :: p < NP -> get(p, fr); skip; d_step { f1 = fr; p++; fr = 0; c = 0; x = 0; y = 0; g = 0; r = 0 }
        :: else -> break
        od; skip;
#define V_LOOKED_KEEP
#else
        looked[me] = s;
#endif
#endif
#ifndef V_REST_LOOKUP
        r = visible;
        looked[me] = r; r = 0;
#endif
#ifndef V_LOOKED_KEEP
        f0 = 0; f1 = 0; p = 0;
        do
        :: p < NP -> get(p, fr); skip; d_step { if :: p == 0 -> f0 = fr :: else -> f1 = fr fi; p++; fr = 0; c = 0; x = 0; y = 0; g = 0; r = 0 }
        :: else -> break
        od; skip
#endif
#endif
     fi;
#endif

     /* the end of the use: what do the frames hold now? */
     d_step { truth(0, s, t0); truth(1, s, t1);
       if :: f0 != NONE && (hp[f0] != 0 || hc[f0] != t0) -> bad = true :: else fi;
       if :: f1 != NONE && (hp[f1] != 1 || hc[f1] != t1) -> bad = true :: else fi }
     r = rev[me];
#ifdef V_SLOTGEN
     assert(r != r0 || !bad);
#else
     assert(r >= k || !bad);
#endif
     d_step { gs[me] = 0; slot[me] = IDLE; f0 = 0; f1 = 0; s = 0; p = 0; g = 0; c = 0; x = 0; t0 = 0; t1 = 0; bad = false; r = 0 }
  :: else -> break
  od;
#ifdef LTL
  rdone = true
#endif
}

#ifdef LTL
ltl term { <> rdone }   /* under weak fairness: every reader ends, whatever the engine does */
#endif

init {
  atomic {
    hp[0] = 0; hc[0] = 1; ol[0] = NONE; st[0] = PUB; lo_[0] = 1; pm[0] = 0; nw[0] = 0;
    hp[1] = 1; hc[1] = 1; ol[1] = NONE; st[1] = PUB; lo_[1] = 1; pm[1] = 1; nw[1] = 1;
    byte n = 2;
    do :: n < NF -> ol[n] = NONE; hp[n] = NP; n++ :: else -> break od;
    H(0,1) = true; H(1,1) = true; disk[0] = 1; disk[1] = 1;
    ub[0] = NONE; ub[1] = NONE; ub[2] = NONE; ub[3] = NONE;
    run Engine();
    n = 0;
    do :: n < NR -> run Reader(n); n++ :: else -> break od
  }
}
