// Whether a tree is what it should be, page by page.
//
// Who:    verify and tests, over any source of page versions; it reads every page of the tree.
// Errors: broken rules, in words, with the pages they were found on; what is below such a page is
//         not looked at. A page that the source does not have is a broken rule too.
// Source: a page that it gives out need stay as it is only until the next one is asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/page/row.h"
#include "engine/page/schema.h"
#include "engine/page/search.h"

namespace bidstore {

struct TreeReport {
    struct Broken {
        PageId page;
        std::string rule;
        bool missing = false;  // the source does not have it
    };
    static constexpr std::size_t kBrokenMost = 100;

    std::string broken;       // the first broken rule; empty: all rules hold
    PageId page;              // where, if one is broken
    std::vector<Broken> all;  // the first kBrokenMost of them, in the order of keys
    std::uint64_t more = 0;   // how many are broken behind these
    std::uint64_t rows = 0;
    std::uint64_t leaves = 0;
    std::uint64_t inner_nodes = 0;
    std::uint64_t used_bytes = 0;  // of the leaves, and what they could hold
    std::uint64_t space_bytes = 0;
    std::uint64_t large_values = 0;
    std::uint32_t depth = 0;
    bool ok() const { return broken.empty(); }
};

// What is wrong with a large value that a row refers to, in words, or an empty string. `newest`:
// the row's time, as metadata keeps it.
using ValueCheck = std::function<std::string(const std::byte* key, const ValueReference& reference,
                                             std::uint32_t newest)>;

// visit, if given, is called for each page id of the tree (to compare with what is allocated), and
// values for each large value of a live row; the pages of these are no pages of the tree.
TreeReport check_tree(const Schema& schema, TableId table, PageId root,
                      const std::function<const std::byte*(PageId)>& source,
                      const std::function<void(PageId)>& visit = nullptr,
                      const ValueCheck& values = nullptr);

// What is wrong with a page of a tree by itself, without a look at others, in words, or nullptr:
// what is left is where its keys lie among those of its neighbours, and whether what it refers to
// is there. Some 10 to 20 ns a row.
const char* tree_page_fault(const std::byte* page, const Schema& schema, const TreeShape& shape);

// What is wrong inside a leaf whose keys are at or above lo and below hi (nullptr: no bound), in
// words, or an empty string. Only a root may be empty. values, if given, is called for each large
// value of a row that is not below the tree's floor.
std::string leaf_fault(const Schema& schema, TableId table, PageId page, const std::byte* bytes,
                       const std::byte* lo, const std::byte* hi, bool root,
                       const ValueCheck& values = nullptr, std::uint64_t floor = 0);

// What is wrong inside an inner node whose keys are at or above lo and below hi (nullptr: no
// bound), or nullptr.
const char* inner_node_fault(const std::byte* page, const InnerLayout& layout, const std::byte* lo,
                             const std::byte* hi);

}  // namespace bidstore
