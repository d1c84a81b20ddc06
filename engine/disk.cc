#include "engine/disk.h"

#include "shm/base.h"

namespace bidstore {

const char* store_file_name(StoreFile file) {
    switch (file) {
        case StoreFile::kData:
            return "data";
        case StoreFile::kLog:
            return "log";
        case StoreFile::kJournal:
            return "journal";
    }
    CHECK(!"a store has three files");
    return "";
}

}  // namespace bidstore
