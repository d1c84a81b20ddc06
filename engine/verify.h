// Walks everything that the newest state consists of and reports each broken rule, and each read
// that failed.
//
// Rules: each tree is sound (engine/tree_check.h); each page of a tree is allocated, belongs to one
//        tree, once; each allocated page belongs to a tree or is a fixed page of its chunk; pages
//        that are not in the pool read back with the checksum that their chunk remembers. Which
//        pages are leaked is told when all trees are whole; when not, those below a broken node are
//        read all the same, and the first hundred that are damaged are named.
// Unread: what the device does not give is no broken rule: nothing is known of it, nor of what is
//        below it. It is told by itself, the first hundred of them, and all else is looked at.
// Who:   the engine thread, with nothing in the open batch; tests after every run; and the daemon
//        over files at rest (engine/verify_files.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/format.h"
#include "engine/page/row.h"
#include "engine/storage.h"

namespace bidstore {

enum class Damage : std::uint8_t {
    kData,   // rows are lost, wrong, or will be
    kSpace,  // pages are in use for nothing, or one of two copies is; no row is concerned
    // None: a read failed, and whether there is any is not known. Whoever hears of one of these
    // must not call the store sound.
    kUnread,
};

struct BrokenRule {
    Damage damage = Damage::kData;
    std::string what;  // with page and table; of what is unread, with file, offset and errno
    bool unread() const { return damage == Damage::kUnread; }
};
using RuleSink = std::function<void(const BrokenRule&)>;

// Pages of trees that were looked at so far.
using VerifyProgress = std::function<void(std::uint64_t pages)>;

struct VerifyTotals {
    std::uint64_t tables = 0;
    std::uint64_t pages = 0;  // of trees, or what may be theirs
    std::uint64_t rows = 0;   // dead ones included
    std::uint64_t broken_data = 0;
    std::uint64_t broken_space = 0;
    std::uint64_t unread = 0;  // that were told
    // Of extents that no row refers to and that retention frees later than it could: a crash left
    // them a time that a lost batch gave them, or a row lost time twice between two checkpoints
    // (Space::stamp_extent). No broken rule, but where neither happened a leak.
    std::uint64_t early_pages = 0;

    void count(Damage damage) {
        if (damage == Damage::kData) ++broken_data;
        if (damage == Damage::kSpace) ++broken_space;
        if (damage == Damage::kUnread) ++unread;
    }
};

VerifyTotals verify_storage(Storage& storage, const RuleSink& sink,
                            const VerifyProgress& progress = nullptr);

// Whether an extent's time, as metadata keep it, may be that of a row below the floor: in the file
// it is known to 2^kExtentNewestShift units.
bool extent_may_be_dead(const Schema& schema, std::uint32_t newest, std::uint64_t floor);

// What is wrong with a run of a large value of the table, by the metadata of its chunk, in words,
// or an empty string. The times are those that metadata keep of the run, and of its row.
std::string value_run_fault(const ChunkMeta& meta, TableId table, const ExtentRun& run,
                            std::uint32_t known_newest, std::uint32_t newest);

// Whose a page is, as far as its header or its chunk's metadata say; 0: they do not.
struct PageOwner {
    TableId table;
    bool sure = false;  // else the page is damaged, and its header may be, too
};

// The table that the header of a page of a tree names; 0: it is no header of that page.
TableId table_in_header(const std::byte* page, PageId id, std::uint64_t file_uuid);

// As messages name a page: "table 16 (rows), page 17", with "perhaps" before it when nobody can be
// sure, "page 17" when its table is not known.
std::string page_text(PageId page, const PageOwner& owner, const std::string& table_name);

// Bytes of a key, as messages show them.
std::string hex_of(const std::byte* bytes, std::size_t count);

// An empty string when all rules hold; else the first one that does not, or was not looked at.
std::string verify_storage(Storage& storage);

}  // namespace bidstore
