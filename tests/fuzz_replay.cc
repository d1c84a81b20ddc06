// The main() of a fuzz target without libFuzzer: runs it over the files and directories that are
// named, and over nothing at all.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "tests/fuzz.h"

namespace {

namespace fs = std::filesystem;

void replay(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // Named before it is run, so that a crash is.
    std::printf("%s, %zu bytes\n", path.filename().c_str(), bytes.size());
    std::fflush(stdout);
    const void* data = bytes.data();
    LLVMFuzzerTestOneInput(static_cast<const std::uint8_t*>(data), bytes.size());
}

}  // namespace

int main(int count, char** arguments) {
    std::set<fs::path> files;
    for (int i = 1; i < count; ++i) {
        const fs::path named = arguments[i];
        if (fs::is_regular_file(named)) files.insert(named);
        if (!fs::is_directory(named)) continue;
        for (const auto& entry : fs::directory_iterator(named)) files.insert(entry.path());
    }
    LLVMFuzzerTestOneInput(nullptr, 0);
    for (const fs::path& file : files) replay(file);
    std::printf("%zu inputs\n", files.size());
    // A corpus that was not found proves nothing.
    return files.empty() ? 1 : 0;
}
