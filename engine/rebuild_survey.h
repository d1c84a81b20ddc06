// What of a damaged data file is still there: which metadata, and for each page what proves that
// its bytes are those of the last checkpoint. The first step of a rebuild (engine/rebuild.h).
//
//   remembered   the metadata of its chunk is whole, has the page in use, and remembers its CRC:
//                no former version of the page, and no page that was freed, can pass for it
//   own CRC      the metadata of its chunk is lost; the page is sound, of this store, in its place
//                and not newer than the checkpoint. It may have been freed since it was written.
//   nothing      free, or lost
//
// Who:    one thread, over files that nobody writes meanwhile; the journal is in place.
// Errors: a page that cannot be read is one that is lost. One that could be read once, and not
//         again, and a device that answers no more, are unread(): then nothing that was found
//         holds.
// Memory: 32 bytes per page of the file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/checkpoint.h"
#include "engine/format.h"

namespace bidstore {

enum class Proof : std::uint8_t { kNothing, kOwnCrc, kRemembered };

struct PageFact {
    std::uint64_t csn = 0;
    std::uint32_t table = 0;
    std::uint32_t crc = 0;     // of a tree page that is proven; of an extent's, what is remembered
    std::uint32_t newest = 0;  // time in it, as metadata keeps it
    PageType type = PageType::kNone;
    std::uint8_t level = 0;
    Proof proof = Proof::kNothing;
    bool in_use = false;  // by metadata that are whole
    bool extent = false;  // by metadata that are whole
};

struct ChunkFact {
    ChunkMeta meta{};       // zeros when it is lost
    std::uint32_t crc = 0;  // of its page
    std::string fault;      // empty: it is whole
    bool whole() const { return fault.empty(); }
};

class Survey {
  public:
    using Progress = std::function<void(std::uint64_t pages)>;

    Survey(Disk& disk, Clock& clock, const Superblock& superblock);

    // Reads the whole data file, once.
    void run(const Progress& progress);

    std::uint32_t chunk_count() const { return superblock_.chunk_count; }
    std::uint32_t page_count() const { return chunk_count() * kChunkPages; }
    std::uint64_t file_uuid() const { return uuid_; }
    const ChunkFact& chunk(std::uint32_t chunk) const { return chunks_[chunk]; }
    const PageFact& fact(PageId page) const { return pages_[page.value]; }
    // By group of chunks; empty: the directory page is whole.
    const std::vector<std::string>& directory_faults() const { return directory_faults_; }
    const ChunkDirectory& directory() const { return directory_; }
    // Whether any chunk's metadata are lost: what was in use there is not known.
    bool any_chunk_lost() const { return chunk_lost_; }

    Status unread() const { return unread_; }
    // A tree page that something proves, until the next call; else, or unread(), nullptr.
    const std::byte* page(PageId page);
    // What lies in the place of an extent's page; false when it cannot be read. Where something
    // proved it before, and it is another one now, it is unread().
    bool extent_page(PageId page, std::byte* to);

  private:
    bool raw(PageId page, std::byte* to);
    void not_again(PageId page, const Status& there);
    void read_directory();
    void read_metadata(std::uint32_t chunk);
    void read_chunk(std::uint32_t chunk);
    bool older_than_a_page(std::uint32_t chunk) const;
    void look_at(PageId page, const std::byte* bytes);
    std::string fault_of(PageId page, PageType type, std::byte* bytes);
    Status read(PageId page, std::byte* to, std::uint64_t length_bytes);

    Superblock superblock_;
    std::uint64_t uuid_ = 0;
    BlockingIo io_;
    AlignedBuffer copy_{kPageBytes};
    AlignedBuffer chunk_bytes_{kChunkBytes};
    ChunkDirectory directory_;
    std::vector<std::string> directory_faults_;
    std::vector<ChunkFact> chunks_;
    std::vector<PageFact> pages_;
    bool chunk_lost_ = false;
    Status unread_;
};

}  // namespace bidstore
