// What a store has to give back once nobody asks for anything: tables that are hidden or dropped,
// loads, pages in quarantine or reserved, versions, frames, waits. A frame or a page that stays
// away breaks no rule of the verifier; it is missed when many are gone.
#pragma once

#include <string>

#include "tests/sim.h"

namespace bidstore {

// Rounds, in which minutes pass, until nothing stays at some moment: an empty string, or what
// stays, with numbers. The disk is well, nobody holds a snapshot or waits for an answer. Where rows
// die there may be no end of floors that move: a rest lasts as long as nothing is due.
std::string come_to_rest(SimStore& store);

}  // namespace bidstore
