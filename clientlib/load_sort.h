// Sorting rows for a bulk load, in bounded memory: runs in temporary files, then one merge.
//
//   add ──► memory ──full──► sorted run in a file        drain ──► merge of runs and memory, by key
//
// The files have no name and are gone with the process. Rows of equal keys come out as the policy
// says: an error that names the key, or the one that was added last.
//
// Who:    one thread at a time.
// Errors: kExists (a key twice), kIoError, kNoSpace (the temporary directory); a file that does not
//         give back what was written to it (a CRC-32C of each run says so at its end, when its rows
//         were given out) is kIoError, never fewer or other rows.
// Bounds: each run keeps a file open: kTooLarge when the process may not have so many.
// Source: external merge sort as every database text describes it; one merge, since even 64 MiB of
//         memory and a read buffer of 64 KiB per run reach 64 GiB.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/error.h"

namespace bidstore {

class RowSorter {
  public:
    using Take =
        std::function<Status(std::span<const std::byte> key, std::span<const std::byte> value)>;
    // Called from time to time where add() or drain() work for long and give no rows: around the
    // sorting of what is in memory, while a run is written, and while rows are left out that later
    // ones replace. An error of it ends them.
    using Meanwhile = std::function<Status()>;

    // memory_bytes: of the rows that are kept before they become a run, at least 1 MiB.
    RowSorter(
        std::uint32_t key_bytes, std::uint64_t memory_bytes, std::string directory, bool last_wins,
        Meanwhile meanwhile = [] { return Status{}; });
    ~RowSorter();

    Status add(std::span<const std::byte> key, std::span<const std::byte> value);
    // All rows in the order of their keys; add() is over.
    Status drain(const Take& take);

    std::uint64_t runs() const { return runs_.size(); }

  private:
    class Run;
    struct Row {
        std::uint64_t head = 0;    // first bytes of the key, as a number
        std::uint64_t offset = 0;  // of value length, key and value in rows_
    };
    bool less(const Row& left, const Row& right) const;
    Status sort();
    Status spill();
    Status merge(const Take& take);
    Status drain_memory(const Take& take);
    Failure twice(const std::byte* key) const;

    const std::uint32_t key_bytes_;
    const std::uint64_t memory_bytes_;
    const std::string directory_;
    const bool last_wins_;
    const Meanwhile meanwhile_;
    std::uint64_t rows_in_ = 0;
    std::vector<std::byte> rows_;
    std::vector<Row> index_;
    std::vector<std::unique_ptr<Run>> runs_;  // in the order of their rows' arrival
};

}  // namespace bidstore
