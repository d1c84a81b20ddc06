/* A dropped table, and the roots that readers remember.
 *
 * csn 2 takes the table out of the catalog; csn 3 and later take its tree apart, under the same
 * root. A reader remembers the root from one snapshot to the next; `dropped`, stored before csn 2
 * is visible, tells it to look in the catalog again, until a snapshot that was begun behind it.
 * V_DROPPED_LATE: stored after visible. V_SINCE: the reader notes what it loaded, not its snapshot.
 * V_REMEMBER: it does not ask.
 */
#ifndef READS
#define READS 3
#endif
byte visible = 1, dropped;

proctype Engine() {
#ifndef V_DROPPED_LATE
  dropped = 2;
#endif
  visible = 2;
#ifdef V_DROPPED_LATE
  dropped = 2;
#endif
  visible = 3
}
proctype Reader() {
  byte n, s, d, since;
  bool root;            /* is remembered */
  do
  :: n < READS ->
     n++;
     s = visible;
     d = dropped;
#ifndef V_REMEMBER
     if
     :: d > since ->
        root = false;
#ifdef V_SINCE
        since = d
#else
        since = s
#endif
     :: else
     fi;
#endif
     /* not remembered: the catalog says where it is, as the snapshot sees it */
     if :: !root && s < 2 -> root = true :: else fi;
     /* by the root: all of the table is there in snapshots that see the table, and in no other */
     assert(!root || s < 2);
     d = 0
  :: else -> break
  od
}
init { atomic { run Engine(); run Reader() } }
