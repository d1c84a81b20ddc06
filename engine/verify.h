// Walks everything that the newest state consists of and reports the first broken rule.
//
// Rules: each tree is sound (engine/tree_check.h); each page of a tree is allocated, belongs to one
//        tree, once; each allocated page belongs to a tree or is a fixed page of its chunk; pages
//        that are not in the pool read back with the checksum that their chunk remembers.
// Who:   the engine thread, with nothing in the open batch; tests after every run.
#pragma once

#include <string>

#include "engine/storage.h"

namespace bidstore {

// An empty string when all rules hold; else the rule, with page and table.
std::string verify_storage(Storage& storage);

}  // namespace bidstore
