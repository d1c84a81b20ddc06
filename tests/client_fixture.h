// A store of two tables, laid into a pool by hand, and a client that reads it through the library.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clientlib/bidstore.h"
#include "engine/page/row.h"
#include "tests/fake_daemon.h"

struct Item {
    std::uint32_t group = 0;
    std::uint32_t number = 0;
    std::uint64_t amount = 0;
};

struct Note {
    std::uint64_t id = 0;
    std::uint32_t size = 0;
    std::string_view title;
    std::string_view body;
};

// As Item, but for the type of a column.
struct WrongItem {
    std::uint32_t group = 0;
    std::uint32_t number = 0;
    std::int32_t amount = 0;
};

template <>
struct bidstore::Describe<Item> {
    static constexpr auto table = bidstore::table<Item>(
        "items", keys(column<&Item::group>("group"), column<&Item::number>("number")),
        values(column<&Item::amount>("amount")));
};
template <>
struct bidstore::Describe<WrongItem> {
    static constexpr auto table = bidstore::table<WrongItem>(
        "items", keys(column<&WrongItem::group>("group"), column<&WrongItem::number>("number")),
        values(column<&WrongItem::amount>("amount")));
};
template <>
struct bidstore::Describe<Note> {
    static constexpr auto table =
        bidstore::table<Note>("notes", keys(column<&Note::id>("id")),
                              values(column<&Note::size>("size"), column<&Note::title>("title"),
                                     column<&Note::body>("body", bytes)));
};

namespace bidstore {

using namespace std::chrono_literals;

inline constexpr TableId kItems{16};
inline constexpr TableId kNotes{17};
inline constexpr PageId kItemsRoot{100};
inline constexpr PageId kNotesRoot{90};
inline constexpr std::uint32_t kRowsPerLeaf = 5;
inline constexpr std::uint32_t kLeavesPerNode = 4;
inline constexpr std::uint64_t kFirstCsn = 10;

inline Item item(std::uint32_t i) { return {i / 10, i % 10, i * 3}; }

// As a row has it, of a large value in a run of pages from `first` on.
inline std::vector<std::byte> stored_reference(std::string_view value, PageId first) {
    ValueReference reference;
    reference.length_bytes = static_cast<std::uint32_t>(value.size());
    reference.crc = crc32c(value.data(), value.size());
    reference.run_count = 1;
    reference.runs[0] = {static_cast<std::uint32_t>(first.value),
                         extent_pages(reference.length_bytes)};
    std::vector<std::byte> stored(reference.size_bytes());
    reference.store(stored.data());
    return stored;
}

class ClientFixture : public testing::Test {
  protected:
    void SetUp() override {
        const Result<Schema> items = Description<Item>::schema();
        const Result<Schema> notes = Description<Note>::schema();
        ASSERT_TRUE(items.ok() && notes.ok());
        daemon_.put_catalog(kFirstCsn,
                            {{kSessionsTable, PageId{5}, sessions_schema(), kSystemTableFlag},
                             {kItems, kItemsRoot, *items},
                             {kNotes, kNotesRoot, *notes}});
        put_items(kItemsRoot, kFirstCsn, 100);
        put_notes(kFirstCsn);
        daemon_.publish(kFirstCsn);
        daemon_.start();
        Result<Store> store = Store::attach({.socket = socket_}, in(5s));
        ASSERT_TRUE(store.ok()) << store.failure().what;
        store_.emplace(std::move(*store));
    }

    std::unique_ptr<Reader> reader() {
        Result<Reader> made = store_->reader();
        EXPECT_TRUE(made.ok()) << made.failure().what;
        return std::make_unique<Reader>(std::move(*made));
    }
    Snapshot snapshot(Reader& reader, Deadline deadline = in(5s)) {
        Result<Snapshot> made = reader.snapshot(deadline);
        EXPECT_TRUE(made.ok()) << made.failure().what;
        return std::move(*made);
    }
    Table<Item> items() {
        Result<Table<Item>> table = store_->open<Item>(in(5s));
        EXPECT_TRUE(table.ok()) << table.failure().what;
        return std::move(*table);
    }

    PageId leaf_page(PageId root, std::uint32_t leaf) const {
        return PageId{root.value + 100 + leaf};
    }
    PageId node_page(PageId root, std::uint32_t node) const {
        return PageId{root.value + 1 + node};
    }

    // A leaf of items [first, first + kRowsPerLeaf), amounts raised by `plus`.
    void put_item_leaf(PageId root, std::uint32_t leaf, std::uint64_t csn, std::uint64_t plus = 0) {
        const Result<Schema> schema = Description<Item>::schema();
        const LeafLayout layout = LeafLayout::of(*schema);
        daemon_.put_page(leaf_page(root, leaf), csn, kItems, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            for (std::uint32_t i = 0; i < kRowsPerLeaf; ++i) {
                Item row = item(leaf * kRowsPerLeaf + i);
                row.amount += plus;
                const EncodedRow<Item> encoded(row);
                edit.insert(i, encoded.key().data(), encoded.value());
            }
        });
    }

    // A tree of three levels: root, inner nodes, leaves.
    void put_items(PageId root, std::uint64_t csn, std::uint32_t rows) {
        const InnerLayout layout = InnerLayout::of(8);
        const std::uint32_t leaves = rows / kRowsPerLeaf;
        const auto first_key = [&](std::uint32_t leaf) {
            return Key<Item>::of(item(leaf * kRowsPerLeaf));
        };
        const std::uint32_t nodes = leaves / kLeavesPerNode;
        for (std::uint32_t i = 0; i < leaves; ++i) put_item_leaf(root, i, csn);
        for (std::uint32_t node = 0; node < nodes; ++node) {
            daemon_.put_page(node_page(root, node), csn, kItems, [&](std::byte* page) {
                InnerEdit edit(page, layout);
                edit.init(1);
                for (std::uint32_t i = 0; i < kLeavesPerNode; ++i) {
                    const std::uint32_t leaf = node * kLeavesPerNode + i;
                    edit.insert(i, first_key(leaf).span().data(), leaf_page(root, leaf));
                }
            });
        }
        daemon_.put_page(root, csn, kItems, [&](std::byte* page) {
            InnerEdit edit(page, layout);
            edit.init(2);
            for (std::uint32_t node = 0; node < nodes; ++node) {
                edit.insert(node, first_key(node * kLeavesPerNode).span().data(),
                            node_page(root, node));
            }
        });
    }

    void put_notes(std::uint64_t csn) {
        const Result<Schema> schema = Description<Note>::schema();
        const LeafLayout layout = LeafLayout::of(*schema);
        daemon_.put_page(kNotesRoot, csn, kNotes, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            for (std::uint32_t i = 0; i < 8; ++i) {
                const std::string title = "title " + std::to_string(i);
                const std::string body(i * 10, static_cast<char>('a' + i));
                const EncodedRow<Note> encoded(Note{i * 2, i, title, body});
                edit.insert(i, encoded.key().data(), encoded.value());
            }
        });
    }

    TemporaryDirectory directory_;
    std::string socket_ = directory_.file("socket");
    FakeDisk disk_;
    FakeDaemon daemon_{socket_, disk_, {.frame_count = 8192}};  // reloads take new ones
    std::optional<Store> store_;
};

}  // namespace bidstore
