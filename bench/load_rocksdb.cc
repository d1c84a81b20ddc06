// RocksDB's load of the file of binary rows that `bidstore load` loads (clientlib/load_rows.h), for
// `bench/run.sh load`: into a new database, without compression, on disk when it ends.
//
//   --how ingest     SstFileWriter: --threads writers, each a part of the rows, then one
//                    IngestExternalFile that moves the files in
//   --how batches    WriteBatch without the WAL, then Flush; no compaction
//
// The rows are sorted; --direct writes the tables past the page cache. All else is the default.
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/load_input.h"
#include "bench/measure.h"
#include "clientlib/load_rows.h"

namespace bench {
namespace {

constexpr std::uint64_t kRowsPerRead = 4'096;
constexpr std::uint64_t kRowsPerFile = 1'000'000;
constexpr std::uint64_t kRowsPerBatch = 512;

struct Options {
    std::string how;
    std::string file;
    std::string directory;
    unsigned threads = 2;
    bool direct = false;
};

void must(const rocksdb::Status& status) {
    if (!status.ok()) fail("RocksDB: " + status.ToString());
}

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

// Gives each row of [first, last) to take(key, value).
template <class Take>
void read_rows(const std::string& path, std::uint64_t first, std::uint64_t last, Take take) {
    const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
    if (!file) fail(path + ": cannot be read");
    std::setvbuf(file.get(), nullptr, _IONBF, 0);
    const std::uint64_t offset = sizeof(bidstore::RowsHeader) + first * kLoadRowBytes;
    if (std::fseek(file.get(), static_cast<long>(offset), SEEK_SET) != 0) fail(path + ": seek");
    std::vector<char> buffer(kRowsPerRead * kLoadRowBytes);
    while (first < last) {
        const std::uint64_t rows = std::min(kRowsPerRead, last - first);
        if (std::fread(buffer.data(), kLoadRowBytes, rows, file.get()) != rows) {
            fail(path + ": is cut short");
        }
        const char* row = buffer.data();
        for (std::uint64_t i = 0; i < rows; ++i, row += kLoadRowBytes) {
            take(rocksdb::Slice(row, kLoadKeyBytes),
                 rocksdb::Slice(row + kLoadKeyBytes, kLoadValueBytes));
        }
        first += rows;
    }
}

rocksdb::Options database_options(const Options& options) {
    rocksdb::Options database;
    database.create_if_missing = true;
    database.error_if_exists = true;
    database.compression = rocksdb::kNoCompression;
    database.use_direct_io_for_flush_and_compaction = options.direct;
    database.disable_auto_compactions = true;
    database.IncreaseParallelism(2);
    return database;
}

std::uint64_t rows_in(const std::string& path) {
    return (std::filesystem::file_size(path) - sizeof(bidstore::RowsHeader)) / kLoadRowBytes;
}

void write_table(const rocksdb::Options& database, const Options& options, std::uint64_t first,
                 std::uint64_t last, const std::string& path) {
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(database), database);
    must(writer.Open(path));
    read_rows(options.file, first, last, [&](const rocksdb::Slice& key,
                                             const rocksdb::Slice& value) {
        must(writer.Put(key, value));
    });
    must(writer.Finish());  // with a sync
}

void ingest(const Options& options, rocksdb::DB& database) {
    const std::uint64_t rows = rows_in(options.file);
    const std::uint64_t files = (rows + kRowsPerFile - 1) / kRowsPerFile;
    std::vector<std::string> paths;
    for (std::uint64_t i = 0; i < files; ++i) {
        paths.push_back(options.directory + "/../" + std::to_string(i) + ".sst");
    }
    const rocksdb::Options wanted = database.GetOptions();
    {
        std::vector<std::jthread> writers;
        for (unsigned thread = 0; thread < options.threads; ++thread) {
            writers.emplace_back([&, thread] {
                for (std::uint64_t i = thread; i < files; i += options.threads) {
                    write_table(wanted, options, i * kRowsPerFile,
                                std::min(rows, (i + 1) * kRowsPerFile), paths[i]);
                }
            });
        }
    }
    rocksdb::IngestExternalFileOptions how;
    how.move_files = true;
    how.write_global_seqno = false;
    must(database.IngestExternalFile(paths, how));
}

void batches(const Options& options, rocksdb::DB& database) {
    rocksdb::WriteOptions how;
    how.disableWAL = true;
    rocksdb::WriteBatch batch;
    std::uint64_t in_batch = 0;
    read_rows(options.file, 0, rows_in(options.file),
              [&](const rocksdb::Slice& key, const rocksdb::Slice& value) {
                  must(batch.Put(key, value));
                  if (++in_batch < kRowsPerBatch) return;
                  must(database.Write(how, &batch));
                  batch.Clear();
                  in_batch = 0;
              });
    must(database.Write(how, &batch));
    must(database.Flush(rocksdb::FlushOptions()));
}

void load(const Options& options) {
    rocksdb::Options wanted = database_options(options);
    if (options.how == "batches") {
        wanted.PrepareForBulkLoad();  // no limit on files of level 0, no slow-down of writers
        wanted.write_buffer_size = std::size_t{256} << 20;
        wanted.max_write_buffer_number = 4;
        wanted.memtable_factory = std::make_shared<rocksdb::SkipListFactory>();
    }
    rocksdb::DB* opened = nullptr;
    must(rocksdb::DB::Open(wanted, options.directory, &opened));
    const std::unique_ptr<rocksdb::DB> database(opened);
    if (options.how == "ingest") {
        ingest(options, *database);
    } else {
        batches(options, *database);
    }
    must(database->SyncWAL());
    std::uint64_t rows = 0;
    must(database->GetIntProperty("rocksdb.estimate-num-keys", &rows)
             ? rocksdb::Status::OK()
             : rocksdb::Status::Corruption("no estimate-num-keys"));
    if (rows != rows_in(options.file)) fail("RocksDB has " + std::to_string(rows) + " rows");
    must(database->Close());
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Loads a file of binary rows into a new RocksDB. See bench/README.md.");
    app.add_option("--how", options.how)->required()->check(CLI::IsMember({"ingest", "batches"}));
    app.add_option("--file", options.file, "binary rows, sorted")->required();
    app.add_option("--directory", options.directory, "of the new database")->required();
    app.add_option("--threads", options.threads, "that write tables")->check(CLI::Range(1, 64));
    app.add_flag("--direct", options.direct, "write past the page cache");
    CLI11_PARSE(app, argument_count, arguments);
    bench::load(options);
    return EXIT_SUCCESS;
}
