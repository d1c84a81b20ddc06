// Reads whose lease ends behind one of the loads that they make of the pool, whichever it is.
//
// Nothing of the pool may be read at first, so each load stops the thread (SIGSEGV), is let through
// alone (the processor's trap flag), and counts. Behind the one that is due the handler does what
// an engine does that has revoked a snapshot: it puts other versions into the same frames. The read
// gives what was there before, or kSnapshotExpired. A check that is made too early, with bytes
// still to be read, shows here and in hardly any race.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "clientlib/large_value.h"
#include "clientlib/snapshot.h"
#include "engine/page/row.h"
#include "tests/client_fixture.h"

namespace bidstore {
namespace {

// ---- each load of the pool ----------------------------------------------------------------------

// Of the thread that is in it, one at a time: behind the due'th load of [begin, begin + bytes) it
// calls act, once, and counts no more.
class Loads {
  public:
    Loads(const std::byte* begin, std::size_t bytes, std::uint64_t due, std::function<void()> act)
        : begin_(const_cast<std::byte*>(begin)), bytes_(bytes), due_(due), act_(std::move(act)) {
        struct sigaction action = {};
        action.sa_flags = SA_SIGINFO;
        sigemptyset(&action.sa_mask);
        action.sa_sigaction = on_load;
        current_ = this;
        CHECK(::sigaction(SIGSEGV, &action, &old_load_) == 0);
        action.sa_sigaction = on_loaded;
        CHECK(::sigaction(SIGTRAP, &action, &old_loaded_) == 0);
        protect(PROT_NONE);
    }
    ~Loads() {
        protect(PROT_READ);
        ::sigaction(SIGSEGV, &old_load_, nullptr);
        ::sigaction(SIGTRAP, &old_loaded_, nullptr);
        current_ = nullptr;
    }
    Loads(const Loads&) = delete;
    Loads& operator=(const Loads&) = delete;
    std::uint64_t count() const { return count_; }

  private:
    // Whether the thread stops behind its next instruction.
    static void trap_next(void* context, bool whether) {
#ifdef __x86_64__
        constexpr greg_t kTrapFlag = 0x100;
        greg_t& flags = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL];
        flags = whether ? flags | kTrapFlag : flags & ~kTrapFlag;
#endif
    }
    static void on_load(int, siginfo_t* fault, void* context) {
        Loads& loads = *current_;
        const auto* at = static_cast<const std::byte*>(fault->si_addr);
        if (at < loads.begin_ || at >= loads.begin_ + loads.bytes_) {
            ::sigaction(SIGSEGV, &loads.old_load_, nullptr);  // whatever it is, it comes again
            return;
        }
        loads.protect(PROT_READ);
        trap_next(context, true);
    }
    static void on_loaded(int, siginfo_t*, void* context) {
        Loads& loads = *current_;
        trap_next(context, false);
        if (++loads.count_ == loads.due_) return loads.act_();
        loads.protect(PROT_NONE);
    }
    void protect(int protection) const { CHECK(::mprotect(begin_, bytes_, protection) == 0); }

    static Loads* current_;
    std::byte* const begin_;
    const std::size_t bytes_;
    const std::uint64_t due_;
    const std::function<void()> act_;
    std::uint64_t count_ = 0;
    struct sigaction old_load_ = {};
    struct sigaction old_loaded_ = {};
};
Loads* Loads::current_ = nullptr;

// ---- a store of two versions that take turns ----------------------------------------------------

constexpr std::uint32_t kLeaves = 20;
constexpr std::uint32_t kNoteCount = 8;
constexpr std::uint32_t kLargeFrom = 4;     // notes whose bodies are in extents, of a page each
constexpr std::uint64_t kLoadsMax = 8'000;  // of one kind of read, in all its times

class ReadChecks : public ClientFixture {
  protected:
    // A page whose frame has one image after the other.
    struct Turns {
        FrameId frame;
        bool extent = false;
        alignas(64) std::array<std::array<std::byte, kPageBytes>, 2> images{};
    };
    using Read = std::function<Result<std::string>(const Snapshot&)>;

    void SetUp() override {
#ifndef __x86_64__
        GTEST_SKIP() << "it knows no other processor's trap flag";
#endif
        ClientFixture::SetUp();
        for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
            images_of(leaf_page(kItemsRoot, leaf), kItems, *Description<Item>::schema(),
                      [&](LeafEdit& edit, std::uint32_t turn) { put_items(edit, leaf, turn); });
        }
        for (std::uint32_t i = kLargeFrom; i < kNoteCount; ++i) {
            daemon_.put_page(value_page(i), kFirstCsn, kNotes, [](std::byte*) {});
            Turns& turns = turns_.emplace_back(Turns{frame_of(value_page(i)), true, {}});
            for (std::uint32_t turn = 0; turn < 2; ++turn) {
                const std::string bytes = body(i, turn);
                std::memcpy(turns.images[turn].data(), bytes.data(), bytes.size());
            }
        }
        images_of(kNotesRoot, kNotes, *Description<Note>::schema(), put_notes);
        take_turn();
        items_.emplace(items());
        auto notes = store_->open<Note>(in(5s));
        ASSERT_TRUE(notes.ok()) << notes.failure().what;
        notes_.emplace(std::move(*notes));
        reader_ = reader();
        const Snapshot now = snapshot(*reader_);  // finds the roots
        ASSERT_TRUE(items_->get(now, 0, 0).ok());
        ASSERT_TRUE(notes_->get(now, 0).ok());
    }

    // ---- what is in it, in either turn ----
    static std::uint64_t amount(std::uint32_t i, std::uint32_t turn) { return i * 3 + turn * 1000; }
    static char letter(char of_turn_0, char of_turn_1, std::uint32_t i, std::uint32_t turn) {
        return static_cast<char>((turn == 0 ? of_turn_0 : of_turn_1) + static_cast<int>(i));
    }
    static std::string title(std::uint32_t i, std::uint32_t turn) {
        return std::string(40 + i, letter('a', 'A', i, turn));
    }
    static std::string body(std::uint32_t i, std::uint32_t turn) {
        return std::string(i < kLargeFrom ? 50 : 200, letter('k', 'K', i, turn));
    }
    static PageId value_page(std::uint32_t i) { return PageId{500 + i}; }
    static void put_items(LeafEdit& edit, std::uint32_t leaf, std::uint32_t turn) {
        for (std::uint32_t i = 0; i < kRowsPerLeaf; ++i) {
            Item row = item(leaf * kRowsPerLeaf + i);
            row.amount = amount(leaf * kRowsPerLeaf + i, turn);
            const EncodedRow<Item> encoded(row);
            edit.insert(i, encoded.key().data(), encoded.value());
        }
    }
    static void put_notes(LeafEdit& edit, std::uint32_t turn) {
        const Schema schema = *Description<Note>::schema();
        for (std::uint32_t i = 0; i < kNoteCount; ++i) {
            const std::string its_title = title(i, turn);
            const std::string its_body = body(i, turn);
            const auto reference = stored_reference(its_body, value_page(i));
            const auto bytes = [](const std::string& text) {
                return std::as_bytes(std::span(text));
            };
            const bool large = i >= kLargeFrom;
            const ColumnContent contents[] = {
                {bytes(its_title), false}, {large ? std::span(reference) : bytes(its_body), large}};
            std::vector<std::byte> row(row_value_bytes(schema, contents));
            write_row_value(row.data(), schema, std::as_bytes(std::span(&i, 1)), contents);
            edit.insert(i, Key<Note>::from(std::uint64_t{i}).span().data(), row);
        }
    }

    // ---- the engine's side ----
    FrameId frame_of(PageId page) { return FrameId{daemon_.versions().mapped(page)}; }
    template <class Put>
    void images_of(PageId page, TableId table, const Schema& schema, Put put) {
        const LeafLayout layout = LeafLayout::of(schema);
        Turns& turns = turns_.emplace_back(Turns{frame_of(page), false, {}});
        for (std::uint32_t turn = 0; turn < 2; ++turn) {
            std::byte* image = turns.images[turn].data();
            page_header(image).page_id = page.value;
            page_header(image).table_id = table.value;
            LeafEdit edit(image, layout, schema);
            edit.init();
            put(edit, turn);
        }
    }
    // Into the same frames.
    void take_turn() {
        turn_ = 1 - turn_;
        ++csn_;
        for (const Turns& turns : turns_) {
            std::byte* frame = daemon_.pool().frame(turns.frame);
            const std::byte* image = turns.images[turn_].data();
            if (turns.extent) {
                VersionWriter::fill_extent(frame, image, kPageBytes);
            } else {
                VersionWriter::fill(frame, csn_, image);
            }
        }
        daemon_.publish(csn_);
    }
    void end_lease(const ReaderState& state) {
        const std::uint32_t slot = state.connection->segment().first_slot() + state.slot_number;
        SlotWatcher::revoke(daemon_.pool().revoked()[slot], state.slot->episode());
        daemon_.versions().next_generation();
        take_turn();
    }

    // ---- a read ----
    // The loads that it makes, if the lease ends behind load number `due`.
    std::uint64_t loads_of(const Read& read, std::uint64_t due) {
        const Snapshot now = snapshot(*reader_);
        const ReaderState& state = ReaderState::of(now);
        const std::string right = *read(now);
        const PoolView& pool = state.connection->pool();
        const auto* begin = static_cast<const std::byte*>(static_cast<const void*>(&pool.header()));
        const auto bytes = static_cast<std::size_t>(pool.frame(pool.frame_count()) - begin);
        std::optional<Result<std::string>> got;
        std::uint64_t count = 0;
        {
            Loads loads(begin, bytes, due, [&] { end_lease(state); });
            got.emplace(read(now));
            count = loads.count();
        }
        if (got->ok()) {
            EXPECT_EQ(**got, right) << "its lease ended behind load " << due;
        } else {
            ++expired_;
            EXPECT_EQ(got->error(), Error::kSnapshotExpired) << got->failure().what;
        }
        return count;
    }
    void expect_right_or_expired(const Read& read) {
        expired_ = 0;
        const std::uint64_t all = loads_of(read, ~std::uint64_t{0});
        ASSERT_GT(all, 10u);
        ASSERT_EQ(expired_, 0u) << "though no lease ended";
        const std::uint64_t step = all * all / 2 / kLoadsMax + 1;
        for (std::uint64_t due = 1; due <= all && !HasFailure(); due += step) loads_of(read, due);
        // Behind the last check nothing may be read.
        for (std::uint64_t due = all - 5; due <= all && !HasFailure(); ++due) loads_of(read, due);
        EXPECT_GT(expired_, 0u) << "or nothing was tested";
    }

    std::optional<Table<Item>> items_;
    std::optional<Table<Note>> notes_;
    std::unique_ptr<Reader> reader_;
    std::vector<Turns> turns_;
    std::uint64_t csn_ = kFirstCsn;
    std::uint32_t turn_ = 1;
    std::uint64_t expired_ = 0;  // reads of a kind
};

// Of what may be believed.
std::string text_of(const Copy<Item>& row) { return std::to_string(row.amount) + ' '; }
std::string text_of(const Copy<Note>& row) {
    return std::to_string(row.size) + std::string(row.title) + std::string(row.body) + ' ';
}
Result<std::string> believe(const Snapshot& snapshot, std::string text) {
    if (const Status status = snapshot.status(); !status.ok()) return status.failure();
    return text;
}
template <class T>
Result<std::string> text_of_found(const Result<std::optional<Copy<T>>>& row) {
    if (!row.ok()) return row.failure();
    return *row ? text_of(**row) : "none";
}

TEST_F(ReadChecks, OfGets) {
    expect_right_or_expired(
        [&](const Snapshot& now) { return text_of_found<Item>(items_->get(now, 1, 7)); });
    for (const std::uint64_t id : {2u, 5u}) {
        expect_right_or_expired(
            [&](const Snapshot& now) { return text_of_found<Note>(notes_->get(now, id)); });
        expect_right_or_expired([&](const Snapshot& now) -> Result<std::string> {
            const auto row = notes_->raw().get(now, notes_->key(id).span());
            if (!row.ok()) return row.failure();
            if (!*row) return std::string("none");
            return text_of(Description<Note>::copy((*row)->key, (*row)->value));
        });
    }
}

TEST_F(ReadChecks, OfManyGets) {
    const std::array item_keys{items_->key(0, 3), items_->key(1, 7), items_->key(5, 0)};
    const std::array note_keys{notes_->key(std::uint64_t{1}), notes_->key(std::uint64_t{6})};
    const auto many = [](const auto& table, const Snapshot& now,
                         const auto& keys) -> Result<std::string> {
        const auto rows = table.multi_get(now, keys);
        if (!rows.ok()) return rows.failure();
        std::string all;
        for (const auto& row : *rows) all += row ? text_of(*row) : "none";
        return all;
    };
    expect_right_or_expired([&](const Snapshot& now) { return many(*items_, now, item_keys); });
    expect_right_or_expired([&](const Snapshot& now) { return many(*notes_, now, note_keys); });
}

TEST_F(ReadChecks, OfRowsInPlace) {
    for (const std::uint64_t id : {3u, 7u}) {
        expect_right_or_expired([&](const Snapshot& now) -> Result<std::string> {
            const auto row = notes_->peek(now, id);
            if (!row.ok()) return row.failure();
            return believe(now, *row ? text_of((**row).copy()) : "none");
        });
    }
    expect_right_or_expired([&](const Snapshot& now) -> Result<std::string> {
        const auto row = notes_->peek(now, std::uint64_t{4});
        if (!row.ok()) return row.failure();
        if (!*row) return believe(now, "none");
        const auto value = (**row).large<&Note::body>();
        if (!value.ok()) return value.failure();
        std::string text(value->size(), ' ');
        value->copy_to(std::as_writable_bytes(std::span(text)).data());
        return believe(now, text);
    });
}

TEST_F(ReadChecks, OfScans) {
    const auto scan = [](auto cursor, bool copies) -> Result<std::string> {
        std::string all;
        while (cursor.next()) {
            if (copies) {
                const auto row = cursor.copy();
                if (!row.ok()) return row.failure();
                all += text_of(*row);
            } else {
                all += text_of(cursor.row().copy());
            }
        }
        if (const Status status = cursor.status(); !status.ok()) return status.failure();
        return all;
    };
    for (const bool copies : {true, false}) {
        for (const bool reverse : {true, false}) {
            const ScanOptions options{.reverse = reverse, .streaming = copies};
            expect_right_or_expired([&](const Snapshot& now) {
                return scan(
                    items_->scan(now, items_->prefix(1u, 3u), items_->prefix(2u, 2u), options),
                    copies);
            });
            expect_right_or_expired([&](const Snapshot& now) {
                return scan(notes_->scan(now, notes_->prefix(std::uint64_t{2}),
                                         notes_->prefix(std::uint64_t{6}), options),
                            copies);
            });
        }
    }
}

}  // namespace
}  // namespace bidstore
