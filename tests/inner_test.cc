#include "engine/page/inner.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/inner_edit.h"
#include "engine/page/search.h"
#include "engine/page/search_many.h"

namespace bidstore {
namespace {

struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes]{};
};

const std::byte* as_bytes(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size())).data();
}

std::string random_key(std::mt19937& random, std::uint32_t key_bytes, unsigned letters) {
    std::string key(key_bytes, '\0');
    for (char& c : key) c = static_cast<char>(random() % letters);
    return key;
}

std::string key_at(const InnerView& node, std::uint32_t index, std::uint32_t key_bytes) {
    std::string key(key_bytes, '\0');
    node.copy_key(index, std::as_writable_bytes(std::span(key)).data());
    return key;
}

TEST(InnerLayout, FansOutWideAndStaysInThePage) {
    for (std::uint32_t key_bytes = 1; key_bytes <= 64; ++key_bytes) {
        const InnerLayout layout = InnerLayout::of(key_bytes);
        ASSERT_LE(layout.capacity, kFanOutMax);
        ASSERT_GE(layout.capacity, 57u);
        ASSERT_EQ(layout.children_offset % 4, 0u);
        ASSERT_GE(layout.children_offset,
                  layout.tails_offset + layout.capacity * layout.tail_bytes);
        ASSERT_LE(layout.children_offset + 4 * layout.capacity, kPageBytes);
    }
    EXPECT_EQ(InnerLayout::of(8).capacity, 256u);
    EXPECT_GE(InnerLayout::of(16).capacity, 190u);
}

class InnerModel : public ::testing::TestWithParam<std::tuple<int, int>> {};

// The child that a key belongs to, by the rule: the last whose key is not above it, or the first.
std::uint32_t index_by_rule(const std::vector<std::pair<std::string, std::uint32_t>>& children,
                            const std::string& key) {
    std::uint32_t index = 0;
    for (std::uint32_t i = 1; i < children.size(); ++i) {
        if (children[i].first <= key) index = i;
    }
    return index;
}

TEST_P(InnerModel, RandomEditsMatchAList) {
    const auto key_bytes = static_cast<std::uint32_t>(std::get<0>(GetParam()));
    const auto letters = static_cast<unsigned>(std::get<1>(GetParam()));
    std::mt19937 random(99 + key_bytes);
    const InnerLayout layout = InnerLayout::of(key_bytes);
    auto page = std::make_unique<Page>();
    InnerEdit edit(page->bytes, layout);
    edit.init(1);
    const std::string lowest(key_bytes, '\0');
    edit.insert(0, as_bytes(lowest), PageId{1000});
    std::vector<std::pair<std::string, std::uint32_t>> model{{lowest, 1000}};
    for (std::uint32_t round = 0; round < 3000; ++round) {
        const std::string key = random_key(random, key_bytes, letters);
        const InnerView view = edit.view();
        const std::uint32_t index = index_by_rule(model, key);
        ASSERT_EQ(view.index_for(as_bytes(key)), index) << "round " << round;
        ASSERT_EQ(view.child_for(as_bytes(key)).value, model[index].second);
        if (random() % 8 == 0 && model.size() > 1) {
            const auto first = static_cast<std::uint32_t>(random() % model.size());
            const auto most = static_cast<std::uint32_t>(model.size()) - first;
            std::uint32_t last = first + 1 + static_cast<std::uint32_t>(random() % most) / 4;
            if (last - first == model.size()) --last;
            edit.erase(first, last);
            model.erase(model.begin() + first, model.begin() + last);
        } else if (!edit.full() && (index == 0 || model[index].first != key)) {
            // Key 0 means minus infinity: what comes behind it may well be below its bytes.
            edit.insert(index + 1, as_bytes(key), PageId{round + 1});
            model.insert(model.begin() + index + 1, {key, round + 1});
        }
        ASSERT_EQ(edit.count(), model.size());
    }
    for (std::uint32_t i = 0; i < model.size(); ++i) {
        EXPECT_EQ(key_at(edit.view(), i, key_bytes), model[i].first);
        EXPECT_EQ(edit.view().child(i).value, model[i].second);
        if (i > 0) {
            EXPECT_EQ(edit.view().index_for(as_bytes(model[i].first)), i);
        }
    }
}

// Few letters make keys that share their first eight bytes, where the tails decide.
INSTANTIATE_TEST_SUITE_P(Keys, InnerModel,
                         ::testing::Values(std::tuple{1, 256}, std::tuple{4, 256},
                                           std::tuple{8, 256}, std::tuple{8, 3},
                                           std::tuple{16, 256}, std::tuple{16, 2},
                                           std::tuple{17, 2}, std::tuple{64, 2},
                                           std::tuple{64, 256}));

TEST(Inner, AFullNodeOfEqualHeadsIsDecidedByItsTails) {
    const InnerLayout layout = InnerLayout::of(16);
    auto page = std::make_unique<Page>();
    InnerEdit edit(page->bytes, layout);
    edit.init(3);
    char text[17];
    for (std::uint32_t i = 0; i < layout.capacity; ++i) {
        std::snprintf(text, sizeof text, "prefix..%08u", i * 10);
        edit.insert(i, as_bytes(text), PageId{i + 1});
    }
    EXPECT_TRUE(edit.full());
    for (std::uint32_t i = 0; i < layout.capacity; ++i) {
        std::snprintf(text, sizeof text, "prefix..%08u", i * 10);
        EXPECT_EQ(edit.view().child_for(as_bytes(text)).value, i + 1);
        std::snprintf(text, sizeof text, "prefix..%08u", i * 10 + 9);
        EXPECT_EQ(edit.view().child_for(as_bytes(text)).value, i + 1);
    }
    EXPECT_EQ(edit.view().child_for(as_bytes("prefiw..99999999")).value, 1u);
    EXPECT_EQ(edit.view().child_for(as_bytes("prefiy..00000000")).value, layout.capacity);
}

// Runs begin and end anywhere among the sixteens of heads, which the search counts by.
TEST(Inner, RunsOfEqualHeadsOfAnyLengthAreDecidedByTheirTails) {
    for (const std::uint32_t key_bytes : {9u, 16u, 24u}) {
        const InnerLayout layout = InnerLayout::of(key_bytes);
        for (std::uint32_t run = 1; run <= 50; ++run) {
            auto page = std::make_unique<Page>();
            InnerEdit edit(page->bytes, layout);
            edit.init(1);
            const auto key = [&](std::uint32_t head, std::uint32_t tail) {
                std::string text(key_bytes, '\0');
                text[7] = static_cast<char>(head);
                text[8] = static_cast<char>(tail);
                return text;
            };
            std::vector<std::pair<std::string, std::uint32_t>> model;
            for (std::uint32_t i = 0; i < layout.capacity - run % 16; ++i) {
                model.emplace_back(key(2 * (i / run), 2 * (i % run)), i);
                edit.insert(i, as_bytes(model.back().first), PageId{i + 1});
            }
            for (std::uint32_t i = 0; i < model.size(); ++i) {
                for (const auto& [head, tail] : {std::pair{0u, 0u}, {0u, 1u}, {1u, 0u}}) {
                    const std::string sought = key(2 * (i / run) + head, 2 * (i % run) + tail);
                    ASSERT_EQ(edit.view().index_for(as_bytes(sought)), index_by_rule(model, sought))
                        << "run of " << run << ", child " << i << ", " << key_bytes << " bytes";
                }
            }
        }
    }
}

TEST(Inner, AppendGivesTheFirstChildTheBoundOfTheParent) {
    const InnerLayout layout = InnerLayout::of(1);
    auto left = std::make_unique<Page>();
    auto right = std::make_unique<Page>();
    InnerEdit to(left->bytes, layout);
    InnerEdit from(right->bytes, layout);
    to.init(1);
    from.init(1);
    to.insert(0, as_bytes("a"), PageId{1});
    from.insert(0, as_bytes("\1"), PageId{2});
    from.insert(1, as_bytes("x"), PageId{3});
    to.append(from.view(), 0, as_bytes("m"));
    EXPECT_EQ(to.count(), 3u);
    EXPECT_EQ(key_at(to.view(), 1, 1), "m");
    EXPECT_EQ(to.view().child_for(as_bytes("n")).value, 2u);
    EXPECT_EQ(to.view().child_for(as_bytes("x")).value, 3u);
}

// ---- garbage ------------------------------------------------------------------------------------

TEST(Inner, ViewsOfRandomBytesStayInsideThePage) {
    std::mt19937 random(5);
    auto page = std::make_unique<Page>();
    for (int round = 0; round < 500; ++round) {
        for (std::byte& byte : page->bytes) byte = static_cast<std::byte>(random());
        if (round % 3 == 1) std::memset(page->bytes + 64, 0xff, kPayloadBytes);
        if (round % 3 == 2) std::memset(page->bytes + 64, 0, kPayloadBytes);
        page_header(page->bytes).count =
            static_cast<std::uint16_t>(round % 2 == 0 ? random() : random() % 300);
        for (std::uint32_t key_bytes : {1u, 4u, 8u, 9u, 16u, 17u, 64u}) {
            const InnerLayout layout = InnerLayout::of(key_bytes);
            const InnerView node(page->bytes, layout);
            ASSERT_LE(node.count(), layout.capacity);
            for (int i = 0; i < 10; ++i) {
                const std::string key = random_key(random, key_bytes, 256);
                ASSERT_LT(node.index_for(as_bytes(key)), std::max(node.count(), 1u));
            }
            for (std::uint32_t i = 0; i < node.count(); ++i) key_at(node, i, key_bytes);
        }
    }
}

// A source whose prefetching goes nowhere.
template <class Source>
struct Prefetching {
    Source source;
    const std::byte* operator()(PageId page) const { return source(page); }
    void prefetch(PageId) const {}
    void prefetch_entry(PageId) const {}
};

// A tree of two levels with fan-outs of their own; some pages are missing, some of another table.
TEST(Search, ManyDescentsTogetherLandWhereEachLandsAlone) {
    constexpr std::uint32_t kNodes = 40;
    constexpr std::uint32_t kLeavesOfNode = 60;
    const TreeShape shape(LeafLayout::fixed(16, 40), TableId{7});
    std::unordered_map<std::uint32_t, std::unique_ptr<Page>> pages;
    const auto inner = [&](std::uint32_t id, std::uint8_t level) {
        auto& page = pages[id];
        page = std::make_unique<Page>();
        InnerEdit edit(page->bytes, shape.inner);
        edit.init(level);
        page_header(page->bytes).table_id = 7;
        return edit;
    };
    const auto key_of = [](std::uint32_t node, std::uint32_t leaf) {
        std::string key(16, '\0');
        key[7] = static_cast<char>(node / 4);
        key[8] = static_cast<char>(node % 4);
        key[9] = static_cast<char>(leaf);
        return key;
    };
    InnerEdit root = inner(1, 2);
    for (std::uint32_t node = 0; node < kNodes; ++node) {
        root.insert(node, as_bytes(key_of(node, 0)), PageId{100 + node});
        InnerEdit parent = inner(100 + node, 1);
        for (std::uint32_t leaf = 0; leaf < kLeavesOfNode; ++leaf) {
            const std::uint32_t id = 1000 + node * 100 + leaf;
            parent.insert(leaf, as_bytes(key_of(node, leaf)), PageId{id});
            if (id % 17 == 0) continue;
            auto& page = pages[id];
            page = std::make_unique<Page>();
            page_header(page->bytes).type = PageType::kLeaf;
            page_header(page->bytes).table_id = id % 23 == 0 ? 8 : 7;
        }
    }
    const auto find_page = [&](PageId id) -> const std::byte* {
        const auto page = pages.find(id.value);
        return page == pages.end() ? nullptr : page->second->bytes;
    };
    const Prefetching<decltype(find_page)> source{find_page};
    std::mt19937 random(8);
    std::map<Landed, int> seen;
    for (std::size_t count = 0; count < 100; ++count) {
        std::vector<std::string> keys(count);
        std::vector<Descent> together(count);
        for (std::size_t i = 0; i < count; ++i) {
            keys[i] = key_of(static_cast<std::uint32_t>(random()) % (kNodes + 1),
                             static_cast<std::uint32_t>(random()) % (kLeavesOfNode + 5));
            together[i].key = as_bytes(keys[i]);
        }
        descend_many(shape, PageId{1}, together, source);
        for (std::size_t i = 0; i < count; ++i) {
            const Landing alone = descend(shape, PageId{1}, as_bytes(keys[i]), source);
            ++seen[alone.state];
            ASSERT_EQ(together[i].landing.state, alone.state) << count << " keys, number " << i;
            ASSERT_EQ(together[i].landing.page, alone.page);
            ASSERT_EQ(together[i].landing.bytes, alone.bytes);
        }
    }
    EXPECT_GT(seen[Landed::kLeaf], 0);
    EXPECT_GT(seen[Landed::kMissing], 0);
    EXPECT_GT(seen[Landed::kCorrupt], 0);
}

// The two halves of a search in a page that is reused between them. Behind it nothing may be read:
// tails of as many keys as a block has would lie there.
TEST(Inner, BlocksOfAnotherCountStayInThePage) {
    void* memory = ::mmap(nullptr, 2 * kPageBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* page = static_cast<std::byte*>(memory);
    ASSERT_EQ(::mprotect(page + kPageBytes, kPageBytes, PROT_NONE), 0);
    const std::byte zeros[kKeyBytesMax] = {};  // as all of the page: every key is the one wanted
    for (std::uint32_t key_bytes = 1; key_bytes <= kKeyBytesMax; ++key_bytes) {
        const InnerLayout layout = InnerLayout::of(key_bytes);
        page_header(page).count = static_cast<std::uint16_t>(layout.capacity);
        const InnerView::Blocks blocks = InnerView(page, layout).aim(zeros);
        ASSERT_EQ(blocks.not_above, (layout.capacity - 1) / kHeadsPerSample);
        for (std::uint32_t count = 1; count <= layout.capacity; ++count) {
            page_header(page).count = static_cast<std::uint16_t>(count);
            ASSERT_EQ(InnerView(page, layout).index_for(zeros, blocks), count - 1);
        }
    }
    ::munmap(memory, 2 * kPageBytes);
}

// A store of pages of garbage that all claim to be parts of one tree.
TEST(Search, DescentsThroughGarbageEnd) {
    std::mt19937 random(6);
    const TreeShape shape(LeafLayout::fixed(16, 40), TableId{7});
    std::unordered_map<std::uint32_t, std::unique_ptr<Page>> pages;
    const auto garbage = [&](PageId id) -> const std::byte* {
        if (id.value % 5 == 0) return nullptr;
        auto& page = pages[id.value % 64];
        if (page == nullptr) {
            page = std::make_unique<Page>();
            for (std::byte& byte : page->bytes) byte = static_cast<std::byte>(random());
            PageHeader& header = page_header(page->bytes);
            header.table_id = 7;
            header.level = static_cast<std::uint8_t>(random() % 6);
            header.type = header.level == 0 ? PageType::kLeaf : PageType::kInner;
        }
        return page->bytes;
    };
    const Prefetching<decltype(garbage)> source{garbage};
    std::map<Landed, int> seen;
    for (int round = 0; round < 3000; ++round) {
        if (round % 10 == 0) pages.clear();
        const std::string key = random_key(random, 16, 256);
        const PageId root{static_cast<std::uint32_t>(random())};
        const Landing alone = descend(shape, root, as_bytes(key), source);
        ++seen[alone.state];
        Descent together;
        together.key = as_bytes(key);
        descend_many(shape, root, std::span(&together, 1), source);
        ASSERT_EQ(together.landing.state, alone.state);
        ASSERT_EQ(together.landing.page, alone.page);
        PathCursor cursor(shape, root, source);
        Landing landing = round % 2 == 0 ? cursor.seek(as_bytes(key)) : cursor.seek_first();
        for (int i = 0; i < 20 && landing.state == Landed::kLeaf; ++i) {
            PageId next[4];
            ASSERT_LE(cursor.upcoming(i % 2 == 0, next), 4u);
            cursor.prefetch(true);
            landing = i % 2 == 0 ? cursor.next_leaf() : cursor.previous_leaf();
        }
    }
    EXPECT_GT(seen[Landed::kMissing], 0);
    EXPECT_GT(seen[Landed::kCorrupt], 0);
}

}  // namespace
}  // namespace bidstore
