#include "clientlib/space_report.h"

#include <algorithm>
#include <array>
#include <vector>

#include "clientlib/catalog_row.h"
#include "clientlib/snapshot.h"
#include "engine/page/chunk.h"
#include "engine/page/row.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kNodesPerSnapshot = 64;
constexpr std::uint64_t kLargeValuePages = kLargeValueBytesMax / kPageBytes;

void count_extents(const std::byte* meta, FileSpace& file) {
    ExtentSpace* run = nullptr;
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const std::uint32_t mark = extent_mark(meta, i);
        if (mark == 0) run = nullptr;
        if (mark != 0 && mark != kExtentGoesOn) {
            run = &file.extents[extent_owner(meta, mark)];
            ++run->runs;
        }
        if (run != nullptr) ++run->pages;
    }
}

void count_chunk(const std::byte* meta, FileSpace& file) {
    std::uint64_t used = 0;
    std::uint64_t run = 0;
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const bool taken = (used_word(meta, i / 64) >> (i % 64)) & 1;
        used += taken;
        file.free_runs += !taken && run == 0;
        run = taken ? 0 : run + 1;
        file.longest_run = std::max(file.longest_run, run);
        if (run == kLargeValuePages) file.large_value_pages += run;
        if (run > kLargeValuePages) ++file.large_value_pages;
    }
    count_extents(meta, file);
    file.used_pages += used;
    file.free_pages += kChunkPages - used;
    // Its metadata, and every 128th chunk's directory page, are in use for ever.
    const bool empty = used <= 2;
    file.empty_chunks += empty;
    file.empty_at_end = empty ? file.empty_at_end + 1 : 0;
    ++file.chunks;
}

// One table's walk from the lowest key up, an inner node above leaves at a time.
class Walk {
  public:
    Walk(const RawTable& table, TableSpace& space)
        : info_(table.info()), shape_(*info_.shape), space_(space) {}

    bool done() const { return done_; }

    // The next nodes under this snapshot. What is counted is kept only when it was valid.
    Status step(const Snapshot& snapshot) {
        Result<ReaderState*> state = ReaderState::live(snapshot, info_);
        if (!state.ok()) return state.failure();
        for (std::uint32_t i = 0; i < kNodesPerSnapshot && !done_; ++i) {
            const Walk before = *this;
            const TableSpace counted = space_;
            const Status visited = visit(**state);
            if (visited.ok() && (*state)->valid()) continue;
            restore(before, counted);
            return visited.ok() ? Status{expired_failure()} : visited;
        }
        return {};
    }

  private:
    Walk(const Walk&) = default;

    void restore(const Walk& before, const TableSpace& counted) {
        from_ = before.from_;
        begun_ = before.begun_;
        done_ = before.done_;
        last_leaf_ = before.last_leaf_;
        space_ = counted;
    }

    Status visit(ReaderState& state) {
        PageLookup last = PageLookup::kFound;
        const PageSource source(state, last);
        Obstacle obstacle(state, info_, from_.data());
        for (;;) {
            const PageId root = state.root(info_);
            const Landing landing = root ? descend_above_leaves(root, source)
                                         : Landing{Landed::kCorrupt, root, nullptr};
            if (landing.state == Landed::kLeaf) return {};
            if (Status cleared = obstacle.overcome(landing, last); !cleared.ok()) return cleared;
        }
    }

    // kLeaf: a node was counted, or a root that is a leaf.
    Landing descend_above_leaves(PageId root, const PageSource& source) {
        PageId page = root;
        std::array<bool, kDepthMax> first{};  // the way goes on with the first child
        std::uint32_t depth = 0;
        std::array<std::byte, kKeyBytesMax> next{};
        bool more = false;
        for (int level = -1;;) {
            const std::byte* bytes = source(page);
            if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
            const int found = tree_level(bytes, shape_.table);
            if (found < 0 || (level >= 0 && found != level)) {
                return {Landed::kCorrupt, page, nullptr};
            }
            if (level < 0) space_.depth = static_cast<std::uint32_t>(found) + 1;
            if (found == 0) {
                count_leaf(page, bytes);
                done_ = true;
                return {Landed::kLeaf, page, bytes};
            }
            const InnerView node(bytes, shape_.inner);
            if (node.count() == 0) return {Landed::kCorrupt, page, nullptr};
            if (found == 1) {
                // Keys that go back are no tree's, and would be walked for ever.
                if (begun_ && more && next <= from_) return {Landed::kCorrupt, page, nullptr};
                count_upper(first, depth);
                count_node(node, source);
                from_ = next;
                begun_ = true;
                done_ = !more;
                return {Landed::kLeaf, page, bytes};
            }
            const std::uint32_t index = begun_ ? node.index_for(from_.data()) : 0;
            if (index + 1 < node.count()) {
                node.copy_key(index + 1, next.data());
                more = true;
            }
            first[depth++] = index == 0;
            page = node.child(index);
            level = found - 1;
        }
    }

    // An upper node is counted with the first node below it.
    void count_upper(const std::array<bool, kDepthMax>& first, std::uint32_t depth) {
        for (std::uint32_t at = depth; at > 0 && first[at - 1]; --at) ++space_.inner_nodes;
    }

    void count_node(const InnerView& node, const PageSource& source) {
        ++space_.inner_nodes;
        for (std::uint32_t i = 0; i < node.count(); ++i) {
            const PageId leaf = node.child(i);
            count_leaf(leaf, source(leaf));
        }
    }

    void count_leaf(PageId page, const std::byte* bytes) {
        ++space_.leaves;
        space_.in_order += last_leaf_ && page.value == last_leaf_.value + 1;
        last_leaf_ = page;
        if (bytes == nullptr || tree_level(bytes, shape_.table) != 0) return;
        const LeafView rows(bytes, shape_.leaf);
        const LeafLayout& layout = shape_.leaf;
        ++space_.leaves_seen;
        space_.rows_seen += rows.count();
        if (layout.variable) {
            count_references(rows);
            space_.used_bytes += kSlotBytes * rows.count() +
                                 load_once<std::uint16_t>(bytes + offsetof(PageHeader, live_bytes));
            space_.space_bytes += kPayloadBytes;
        } else {
            const std::uint64_t row = layout.key_bytes + layout.value_bytes;
            space_.used_bytes += row * rows.count();
            space_.space_bytes += row * layout.capacity;
        }
    }

    void count_references(const LeafView& rows) {
        ExtentSpace& extents = space_.extents;
        for (std::uint32_t i = 0; i < rows.count(); ++i) {
            const RowView row(info_.schema, rows.value(i));
            row.each_reference([&](std::uint32_t, const ValueReference& value) {
                ++extents.seen;
                extents.runs_seen += value.run_count;
                extents.pages_seen += extent_pages(value.length_bytes);
                extents.bytes_seen += value.length_bytes;
            });
        }
    }

    const TableInfo& info_;
    const TreeShape& shape_;
    TableSpace& space_;
    std::array<std::byte, kKeyBytesMax> from_{};
    bool begun_ = false;
    bool done_ = false;
    PageId last_leaf_;
};

}  // namespace

std::uint64_t ExtentSpace::free_bytes_seen() const { return pages_seen * kPageBytes - bytes_seen; }

double ExtentSpace::fullness() const {
    if (pages_seen == 0) return 0;
    return static_cast<double>(bytes_seen) / static_cast<double>(pages_seen * kPageBytes);
}

double ExtentSpace::runs_each() const {
    return seen == 0 ? 0 : static_cast<double>(runs_seen) / static_cast<double>(seen);
}

double TableSpace::fullness() const {
    if (space_bytes == 0) return 0;
    return static_cast<double>(used_bytes) / static_cast<double>(space_bytes);
}

double TableSpace::in_order_share() const {
    if (leaves < 2) return 1;
    return static_cast<double>(in_order) / static_cast<double>(leaves - 1);
}

Result<FileSpace> file_space(Reader& reader, Deadline deadline) {
    return read_once(reader, deadline, [&](const Snapshot& snapshot) -> Result<FileSpace> {
        Result<ReaderState*> state = ReaderState::live(snapshot);
        if (!state.ok()) return state.failure();
        FileSpace file;
        // Metadata never leave the pool: the first that is missing is of a chunk which the snapshot
        // does not see yet. The counter of chunks would be as old as the daemon's last tick.
        for (std::uint32_t chunk = 0;; ++chunk) {
            const PageVersion meta = (*state)->version(meta_page(chunk));
            if (meta.page == nullptr) break;
            count_chunk(meta.page, file);
        }
        if (!(*state)->valid()) return expired_failure();
        return file;
    });
}

Result<TableSpace> table_space(Reader& reader, const RawTable& table, Deadline deadline) {
    TableSpace space;
    space.name = table.name();
    space.id = table.id().value;
    Walk walk(table, space);
    while (!walk.done()) {
        const Result<bool> stepped =
            read_once(reader, deadline, [&](const Snapshot& snapshot) -> Result<bool> {
                if (Status step = walk.step(snapshot); !step.ok()) return step.failure();
                return true;
            });
        if (!stepped.ok()) return stepped.failure();
    }
    return space;
}

Result<std::vector<TableSpace>> all_table_space(Store& store, Reader& reader, Deadline deadline) {
    Result<std::vector<RawTable>> tables = store.tables(deadline, true);
    if (!tables.ok()) return tables.failure();
    // The catalog does not list itself.
    tables->insert(tables->begin(),
                   RawTable(std::shared_ptr<const TableInfo>(&catalog_info(), [](auto*) {})));
    std::vector<TableSpace> spaces;
    for (const RawTable& table : *tables) {
        Result<TableSpace> space = table_space(reader, table, deadline);
        if (!space.ok() && space.error() == Error::kNoSuchTable) continue;  // dropped meanwhile
        if (!space.ok()) return space.failure();
        spaces.push_back(std::move(*space));
    }
    return spaces;
}

ExtentSpace add_extents(const FileSpace& file, std::vector<TableSpace>& tables) {
    auto extents = file.extents;
    for (TableSpace& table : tables) {
        const auto found = extents.find(table.id);
        if (found == extents.end()) continue;
        table.extents.runs = found->second.runs;
        table.extents.pages = found->second.pages;
        extents.erase(found);
    }
    ExtentSpace left;
    for (const auto& [id, space] : extents) {
        left.runs += space.runs;
        left.pages += space.pages;
    }
    return left;
}

}  // namespace bidstore
