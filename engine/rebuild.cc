#include "engine/rebuild.h"

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>

#include "engine/rebuild_journal.h"
#include "engine/rebuild_plan.h"
#include "engine/recovery.h"
#include "engine/storage.h"

namespace bidstore {
namespace {

using Kind = RebuildNote::Kind;

class Rebuild {
  public:
    Rebuild(Disk& disk, Clock& clock, PoolSegment& pool, const EngineOptions& options,
            const RebuildSink& sink, const RebuildAgreed* agreed)
        : disk_(disk),
          clock_(clock),
          options_(options),
          sink_(sink),
          agreed_(agreed),
          stats_(pool.stats()),
          storage_(disk, clock, pool, stats_, [](PageId, Error, const std::string&, bool) {}),
          recovery_(storage_, options),
          journal_(disk, clock, recovery_) {
        if (agreed == nullptr) return;
        for (const RebuildNote& note : agreed->notes) agreed_notes_.insert(text_of(note));
    }
    // Of a recovery that ended early, reads ahead may be under way into what is about to go.
    ~Rebuild() { drain(disk_, clock_, options_.log); }
    Rebuild(const Rebuild&) = delete;
    Rebuild& operator=(const Rebuild&) = delete;

    Status run(const VerifyProgress& progress);
    void verify(const RuleSink& broken, const VerifyProgress& progress) {
        report_.verified.totals = verify_storage(storage_, broken, progress);
    }
    const RebuildReport& report() const { return report_; }

  private:
    static std::string text_of(const RebuildNote& note) { return note.what + "; " + note.outcome; }
    static Status other_than_agreed(const std::string& what) {
        return {Error::kIoError, "not what the dry run found: " + what +
                                     "; nothing of it was written: look at the device, and begin "
                                     "anew"};
    }
    void tell(RebuildNote note);
    Status files();
    Status size_files();
    Status tell_size(StoreFile file, std::uint64_t bytes, std::uint64_t needed);
    Status lengthen(StoreFile file, std::uint64_t bytes);
    std::uint64_t data_bytes() const { return superblock_.chunk_count * kChunkBytes; }
    std::uint64_t log_bytes() const {
        return superblock_.log_segment_bytes * superblock_.log_segment_count;
    }
    Status pages(const VerifyProgress& progress);
    Status log();
    Status checkpoint(const Engine::Recovery& found, const WalStart& start);

    Disk& disk_;
    Clock& clock_;
    const EngineOptions& options_;
    const RebuildSink& sink_;
    const RebuildAgreed* const agreed_;
    std::unordered_set<std::string> agreed_notes_;
    Status other_;  // than what was agreed to
    StatsWriter stats_;
    Storage storage_;
    Recovery recovery_;
    RebuildJournal journal_;
    Superblock superblock_{};
    RebuildReport report_;
};

void Rebuild::tell(RebuildNote note) {
    if (note.kind == Kind::kRestored || note.kind == Kind::kFreed) ++report_.restored;
    if (note.kind == Kind::kUnproven) ++report_.unproven;
    if (note.kind == Kind::kLost || note.kind == Kind::kPerhaps) ++report_.lost;
    if (agreed_ != nullptr && !agreed_notes_.contains(text_of(note)) && other_) {
        other_ = other_than_agreed(text_of(note));
    }
    sink_(note);
}

Status Rebuild::run(const VerifyProgress& progress) {
    if (Status begun = files(); !begun) return begun;
    if (Status rebuilt = pages(progress); !rebuilt) return rebuilt;
    return log();
}

// Step 1.
Status Rebuild::files() {
    check_superblocks(disk_, clock_, [&](const BrokenRule& rule) {
        tell({Kind::kRestored, rule.what, "both are written anew", {}, {}});
    });
    if (Status read = recovery_.read_superblock(superblock_); !read) return read;
    if (Status fit = recovery_.check_superblock(superblock_); !fit) return fit;
    if (!other_) return other_;
    // What writes the superblock begins with copy 0: the other one must then be this one, too.
    if (Status mended = recovery_.write_copies(superblock_); !mended) return mended;
    if (Status sized = size_files(); !sized) return sized;
    return journal_.put_in_place(superblock_, [&](const std::string& what, bool loses) {
        tell({loses ? Kind::kPerhaps : Kind::kRestored,
              disk_.path(StoreFile::kJournal) + ": " + what,
              loses ? "the others are put in their places; rows of all tables may be lost, or as "
                      "they were before the last checkpoint: all keys"
                    : "the others are put in their places",
              {},
              {}});
        return other_;
    });
}

// What the data file has lost of its end reads as zeros, which are nobody's pages. Log and journal
// stay short to the last: a start of the daemon would take zeros for the log's end.
Status Rebuild::size_files() {
    const Superblock& superblock = superblock_;
    const std::uint64_t images = journal_header_blocks(superblock.journal_pages) * kBlockBytes +
                                 superblock.journal_pages * std::uint64_t{kPageBytes};
    const std::uint64_t named = superblock.journal_pages > 0 ? images : 0;
    if (Status told = tell_size(StoreFile::kData, data_bytes(), 0); !told) return told;
    if (Status told = tell_size(StoreFile::kLog, log_bytes(), log_bytes()); !told) return told;
    if (Status told = tell_size(StoreFile::kJournal, superblock.journal_bytes, named); !told) {
        return told;
    }
    return other_ ? lengthen(StoreFile::kData, data_bytes()) : other_;
}

// `needed` of it has what nothing else has.
Status Rebuild::tell_size(StoreFile file, std::uint64_t bytes, std::uint64_t needed) {
    const auto size = disk_.size_bytes(file);
    if (!size) return size.failure();
    if (*size >= bytes) return {};
    const bool loses = *size < needed;
    tell({loses ? Kind::kLost : Kind::kRestored,
          disk_.path(file) + " has " + std::to_string(*size) + " bytes of " + std::to_string(bytes),
          loses ? "made as long again, with zeros: what it had there, and what follows from it, is "
                  "lost"
                : "made as long again, with zeros",
          {},
          {}});
    return {};
}

Status Rebuild::lengthen(StoreFile file, std::uint64_t bytes) {
    const auto size = disk_.size_bytes(file);
    if (!size) return size.failure();
    return *size < bytes ? disk_.resize(file, bytes) : Status();
}

// Steps 2 to 5.
Status Rebuild::pages(const VerifyProgress& progress) {
    RebuildPlan plan(disk_, clock_, superblock_, [&](const RebuildNote& note) { tell(note); });
    if (Status planned = plan.run(progress); !planned) return planned;
    report_.images = plan.images().size();
    if (!other_) return other_;
    if (agreed_ != nullptr && report_.images > agreed_->images) {
        return other_than_agreed(std::to_string(report_.images) + " pages instead of " +
                                 std::to_string(agreed_->images) + " would change");
    }
    if (plan.images().empty()) return {};
    superblock_.directory_crc = plan.directory_crc();
    return journal_.write(superblock_, plan.images());
}

// Step 6. Without a checkpoint the next start would meet the same log, and refuse it.
Status Rebuild::log() {
    if (Status longer = lengthen(StoreFile::kJournal, superblock_.journal_bytes); !longer) {
        return longer;
    }
    if (Status longer = lengthen(StoreFile::kLog, log_bytes()); !longer) return longer;
    std::uint64_t left_out = 0;
    recovery_.leave_out([&](const std::string& what, bool costs_rows) {
        ++left_out;
        tell({costs_rows ? Kind::kLost : Kind::kRestored,
              what,
              costs_rows ? "what it says is lost" : "the floor stays where it is",
              {},
              {}});
        return other_;
    });
    WalStart start;
    const Result<Engine::Recovery> found = recovery_.run(start);
    if (!other_) return other_;
    if (found.error() == Error::kIoError) {
        return {Error::kIoError, found.failure().what +
                                     "; copy the directory to another device, with zeros for what "
                                     "cannot be read, and rebuild the copy"};
    }
    if (!found) return found.failure();
    report_.verified.checkpoint_csn = found->checkpoint_csn;
    report_.verified.recovered_csn = found->recovered_csn;
    report_.verified.batches = found->batches;
    return left_out > 0 ? checkpoint(*found, start) : Status();
}

// A csn that was called durable, and is lost, is below the checkpoint's: nobody misses it, and it
// is not given out again.
Status Rebuild::checkpoint(const Engine::Recovery& found, const WalStart& start) {
    const Csn promised{storage_.superblock.durable_csn};
    Csn csn{found.recovered_csn};
    if (promised > csn) csn = Csn{std::max(start.newest_csn.value, promised.value + 1)};
    if (Csn{storage_.pool.visible()} < csn) storage_.pool.advance_visible(csn);
    return storage_.checkpoint(
        {csn, start.end.position, start.newest_time_us, start.end.previous_crc, csn});
}

}  // namespace

Result<RebuildReport> rebuild_files(Disk& disk, Clock& clock, PoolSegment& pool,
                                    const EngineOptions& options, const RebuildSink& sink,
                                    const RuleSink& broken, const VerifyProgress& progress,
                                    const RebuildAgreed* agreed) {
    Rebuild rebuild(disk, clock, pool, options, sink, agreed);
    if (Status done = rebuild.run(progress); !done) return done.failure();
    rebuild.verify(broken, progress);
    return rebuild.report();
}

}  // namespace bidstore
