#include "engine/load_builder.h"

#include <algorithm>
#include <cstring>

#include "engine/inner_edit.h"
#include "shm/version_writer.h"

namespace bidstore {

LoadBuilder::LoadBuilder(const Schema& schema, const LoadIdentity& identity, LoadRoom room)
    : schema_(schema),
      shape_(schema_, identity.table),
      identity_(identity),
      room_(std::move(room)) {}

void LoadBuilder::start_page(std::byte* page, PageType type) const {
    VersionWriter::fill(page, identity_.csn.value, nullptr);
    PageHeader& header = page_header(page);
    header.type = type;
    header.table_id = identity_.table.value;
    header.file_uuid = identity_.file_uuid;
}

// ---- rows ----

Error LoadBuilder::take(std::span<const std::byte> packed, std::uint64_t rows,
                        LoadProgress& progress) {
    return schema_.has_variable() ? take_variable(packed, rows, progress)
                                  : take_fixed(packed, rows, progress.row);
}

bool LoadBuilder::rises(const std::byte* key) const {
    return rows_ == 0 || compare_keys(last_key_.data(), key, shape_.leaf.key_bytes) < 0;
}

void LoadBuilder::remember(const std::byte* key) {
    std::memcpy(last_key_.data(), key, shape_.leaf.key_bytes);
}

// The leaf before is complete. Inner nodes that became complete meanwhile go in front of the new
// one: they name pages that were placed already.
void LoadBuilder::begin_leaf() {
    for (const auto& node : ready_) std::memcpy(room_.next_page(), node->data(), kPageBytes);
    ready_.clear();
    leaf_ = room_.next_page();
    start_page(leaf_, PageType::kLeaf);
    LeafEdit(leaf_, shape_.leaf, schema_).init();
    ++leaves_;
}

Error LoadBuilder::take_fixed(std::span<const std::byte> packed, std::uint64_t rows,
                              std::uint32_t& bad_row) {
    const std::size_t key_bytes = shape_.leaf.key_bytes;
    const std::size_t row_bytes = key_bytes + shape_.leaf.value_bytes;
    bad_row = 0;
    if (packed.size() % row_bytes != 0 || packed.size() / row_bytes != rows || rows == 0) {
        return Error::kProtocol;
    }
    if (!rises(packed.data())) return Error::kInvalid;
    std::uint32_t good = 1;
    const std::byte* key = packed.data();
    while (good < rows && compare_keys(key, key + row_bytes, shape_.leaf.key_bytes) < 0) {
        key += row_bytes;
        ++good;
    }
    for (std::uint32_t done = 0; done < good;) {
        if (leaf_ == nullptr || page_header(leaf_).count == shape_.leaf.capacity) begin_leaf();
        const std::uint32_t room = shape_.leaf.capacity - page_header(leaf_).count;
        const std::uint32_t part = std::min(room, good - done);
        LeafEdit(leaf_, shape_.leaf, schema_).append_packed(packed.data() + done * row_bytes, part);
        done += part;
    }
    remember(key);
    rows_ += good;
    bad_row = good;
    return good == rows ? Error::kOk : Error::kInvalid;
}

Error LoadBuilder::take_variable(std::span<const std::byte> packed, std::uint64_t rows,
                                 LoadProgress& progress) {
    const std::size_t key_bytes = shape_.leaf.key_bytes;
    packed = packed.subspan(progress.bytes);
    for (; progress.row < rows; ++progress.row) {
        std::uint32_t value_bytes = 0;
        if (packed.size() < sizeof value_bytes + key_bytes) return Error::kProtocol;
        std::memcpy(&value_bytes, packed.data(), sizeof value_bytes);
        const auto row = packed.subspan(sizeof value_bytes);
        if (row.size() - key_bytes < value_bytes) return Error::kProtocol;
        const auto value = row.subspan(key_bytes, value_bytes);
        if (const Error error = take_row(row.data(), value); error != Error::kOk) return error;
        const std::size_t whole = sizeof value_bytes + key_bytes + value_bytes;
        progress.bytes += whole;
        packed = packed.subspan(whole);
    }
    return packed.empty() ? Error::kOk : Error::kProtocol;
}

Error LoadBuilder::take_row(const std::byte* key, std::span<const std::byte> value) {
    if (!rises(key) || !schema_.valid_value(value)) return Error::kInvalid;
    std::array<std::byte, kRowBytesMax> stored;
    if (RowView(schema_, value).wide()) {
        extents_needed_.clear();
        append_extents(schema_, identity_.table, value, extents_needed_);
        if (!room_.reserve(extents_needed_)) return Error::kBusy;
        value = store_wide_row(schema_, key, value, room_.put_value, stored);
    }
    if (leaf_ == nullptr || !LeafEdit(leaf_, shape_.leaf, schema_).fits(value.size())) {
        begin_leaf();
    }
    LeafEdit leaf(leaf_, shape_.leaf, schema_);
    leaf.insert(leaf.count(), key, value);
    remember(key);
    ++rows_;
    return Error::kOk;
}

// ---- inner nodes ----

void LoadBuilder::placed(std::byte* page, PageId id) {
    PageHeader& header = page_header(page);
    header.page_id = id.value;
    seal_page(page);
    std::array<std::byte, kKeyBytesMax> first;
    if (header.level == 0) {
        checksum_ = crc32c(&header.crc, sizeof header.crc, checksum_);
        std::memcpy(first.data(), LeafView(page, shape_.leaf).key(0), shape_.leaf.key_bytes);
    } else {
        InnerView(page, shape_.inner).copy_key(0, first.data());
    }
    add_child(header.level + 1u, first.data(), id);
}

void LoadBuilder::add_child(std::uint32_t level, const std::byte* key, PageId child) {
    CHECK_OP(level, <=, kDepthMax);
    if (levels_.size() < level) {
        levels_.push_back(std::make_unique<Level>());
        start_page(levels_.back()->node.data(), PageType::kInner);
        InnerEdit(levels_.back()->node.data(), shape_.inner).init(level);
    }
    Level& above = *levels_[level - 1];
    if (InnerEdit(above.node.data(), shape_.inner).full()) complete_node(above);
    InnerEdit node(above.node.data(), shape_.inner);
    node.insert(node.count(), key, child);
}

void LoadBuilder::complete_node(Level& level) {
    ++level.completed;
    const std::uint32_t number = page_header(level.node.data()).level;
    ready_.push_back(std::make_unique<AlignedBuffer>(std::move(level.node)));
    level.node = AlignedBuffer(kPageBytes);
    start_page(level.node.data(), PageType::kInner);
    InnerEdit(level.node.data(), shape_.inner).init(number);
}

// ---- the end ----

void LoadBuilder::end_rows() {
    if (leaves_ == 1) {
        only_leaf_ = AlignedBuffer(kPageBytes);
        std::memcpy(only_leaf_.data(), leaf_, kPageBytes);
    }
    leaf_ = nullptr;
}

bool LoadBuilder::end_level() {
    // From below, and one at a time: the node above gets its last child when this one is placed.
    for (std::size_t i = 0; ready_.empty() && i < levels_.size(); ++i) {
        const bool children = page_header(levels_[i]->node.data()).count > 0;
        if (levels_[i]->completed > 0 && children) complete_node(*levels_[i]);
    }
    const bool more = !ready_.empty();
    for (const auto& node : ready_) std::memcpy(room_.next_page(), node->data(), kPageBytes);
    ready_.clear();
    return more;
}

void LoadBuilder::fill_root(std::byte* root) const {
    const std::byte* from = nullptr;
    if (leaves_ == 1) {
        from = only_leaf_.data();
    } else if (!levels_.empty()) {
        from = levels_.back()->node.data();
    } else {
        return;  // no rows: it is the empty leaf that it was
    }
    const PageHeader& header = page_header(from);
    PageHeader& made = page_header(root);
    made.type = header.type;
    made.level = header.level;
    made.count = header.count;
    made.free_offset = header.free_offset;
    made.live_bytes = header.live_bytes;
    made.time_shift = header.time_shift;
    made.time_min = header.time_min;
    made.time_max = header.time_max;
    std::memcpy(root + kPageHeaderBytes, from + kPageHeaderBytes, kPayloadBytes);
}

}  // namespace bidstore
