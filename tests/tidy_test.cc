// The house rules that a machine can hold: each message says where, and what to do instead.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

// One file of the tree. `code` is its lines without comments and the insides of literals, so that
// a rule about code does not trip over a sentence.
struct File {
    std::string path;  // from the root, with forward slashes
    std::vector<std::string> lines;
    std::vector<std::string> code;
};

const fs::path kRoot = BIDSTORE_SOURCE_DIR;
const std::vector<std::string> kProductFolders = {"shm/", "engine/", "clientlib/", "daemon/"};

bool is_one_of(const std::string& word, const std::vector<std::string>& words) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

// Blanks comments and the insides of string and character literals; lines keep their length.
// Raw strings are taken as ordinary ones, which is enough for the rules here.
std::vector<std::string> without_comments(const std::vector<std::string>& lines) {
    std::vector<std::string> code;
    bool in_comment = false;
    for (std::string line : lines) {
        char quote = 0;
        for (std::size_t i = 0; i < line.size(); ++i) {
            const std::string_view two = std::string_view(line).substr(i, 2);
            if (in_comment) {
                in_comment = two != "*/";
                if (!in_comment) line[i + 1] = ' ';
                line[i] = ' ';
            } else if (quote != 0) {
                const bool ends = line[i] == quote;
                if (line[i] == '\\' && i + 1 < line.size()) line[i + 1] = ' ';
                if (!ends) line[i] = ' ';
                if (ends) quote = 0;
            } else if (two == "//") {
                line.resize(i);
            } else if (two == "/*") {
                in_comment = true;
                line[i] = line[i + 1] = ' ';
            } else if (line[i] == '"' || (line[i] == '\'' && (i == 0 || !isalnum(line[i - 1])))) {
                quote = line[i];
            }
        }
        code.push_back(line);
    }
    return code;
}

File read_file(const fs::path& path) {
    File file{.path = fs::relative(path, kRoot).generic_string(), .lines = {}, .code = {}};
    std::ifstream stream(path);
    for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
    file.code = without_comments(file.lines);
    return file;
}

// Every text file of the project, but for what git or a build made.
const std::vector<File>& tree() {
    static const std::vector<File> files = [] {
        std::vector<File> all;
        const std::vector<std::string> endings = {".h",       ".cc",       ".sh",       ".cmake",
                                                  ".md",      ".in",       ".txt",      ".toml",
                                                  ".service", ".sysusers", ".tmpfiles", ".json"};
        for (fs::recursive_directory_iterator at(kRoot), end; at != end; ++at) {
            const std::string name = at->path().filename().string();
            if (name.starts_with(".git") || name.starts_with("build"))
                at.disable_recursion_pending();
            const bool wanted = is_one_of(at->path().extension().string(), endings) ||
                                name == "run" || name.starts_with(".clang");
            if (at->is_regular_file() && wanted) all.push_back(read_file(at->path()));
        }
        std::sort(all.begin(), all.end(),
                  [](const File& left, const File& right) { return left.path < right.path; });
        return all;
    }();
    return files;
}

bool is_source(const File& file) { return file.path.ends_with(".h") || file.path.ends_with(".cc"); }
bool in_folder(const File& file, const std::string& folder) {
    return file.path.starts_with(folder);
}
bool is_product(const File& file) {
    return is_source(file) &&
           std::any_of(kProductFolders.begin(), kProductFolders.end(),
                       [&](const std::string& folder) { return in_folder(file, folder); });
}
std::vector<const File*> product() {
    std::vector<const File*> files;
    for (const File& file : tree()) {
        if (is_product(file)) files.push_back(&file);
    }
    return files;
}

std::string place(const File& file, std::size_t line_index) {
    return file.path + ":" + std::to_string(line_index + 1) + ": ";
}

const File* find_file(const std::string& path) {
    for (const File& file : tree()) {
        if (file.path == path) return &file;
    }
    return nullptr;
}

bool is_letter(char letter) {
    return isalnum(static_cast<unsigned char>(letter)) != 0 || letter == '_';
}

// Whether the word stands in the line, not as a part of a longer one. Much faster than a regular
// expression, and there are many lines.
bool has_word(const std::string& line, const std::string& word) {
    for (std::size_t at = line.find(word); at != std::string::npos; at = line.find(word, at + 1)) {
        const std::size_t end = at + word.size();
        const bool begins = at == 0 || !is_letter(word.front()) || !is_letter(line[at - 1]);
        const bool ends = end == line.size() || !is_letter(word.back()) || !is_letter(line[end]);
        if (begins && ends) return true;
    }
    return false;
}
bool has_any_word(const std::string& line, const std::vector<std::string>& words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const std::string& word) { return has_word(line, word); });
}

// Words that code of the product may use only in the named places, or together with `pardon`.
void expect_words_only_in(const std::vector<std::string>& words,
                          const std::vector<std::string>& allowed, const std::string& pardon,
                          const std::string& advice) {
    for (const File* file : product()) {
        const bool free = std::any_of(allowed.begin(), allowed.end(), [&](const std::string& at) {
            return file->path.starts_with(at);
        });
        for (std::size_t i = 0; !free && i < file->code.size(); ++i) {
            const std::string& line = file->code[i];
            if (!pardon.empty() && line.find(pardon) != std::string::npos) continue;
            EXPECT_FALSE(has_any_word(line, words))
                << place(*file, i) << file->lines[i] << "\n    " << advice;
        }
    }
}

// ---- layers -------------------------------------------------------------------------------------

// The folder whose rule an included path falls under.
std::string layer_of(const std::string& path) {
    if (path.starts_with("engine/page/")) return "engine/page";
    return path.substr(0, path.find('/'));
}

TEST(Tidy, IncludesPointInTheDirectionsOfTheDesign) {
    const std::map<std::string, std::set<std::string>> may_include = {
        {"shm", {"shm"}},
        {"engine/page", {"shm", "engine/page"}},
        {"engine", {"shm", "engine/page", "engine"}},
        {"clientlib", {"shm", "engine/page", "clientlib"}},
        {"daemon", {"shm", "engine/page", "engine", "daemon"}},
    };
    const std::regex include("^#include \"([^\"]+)\"");
    for (const File* file : product()) {
        const std::string layer = layer_of(file->path);
        for (std::size_t i = 0; i < file->lines.size(); ++i) {
            std::smatch match;
            if (!std::regex_search(file->lines[i], match, include)) continue;
            const std::string target = match[1];
            EXPECT_TRUE(may_include.at(layer).contains(layer_of(target)))
                << place(*file, i) << layer << " may not include " << target
                << ": move what is needed to a folder below both, or pass it in";
        }
    }
}

TEST(Tidy, IncludesAreWrittenFromTheRoot) {
    const std::regex include("^#include \"([^\"]+)\"");
    for (const File& file : tree()) {
        for (std::size_t i = 0; is_source(file) && i < file.lines.size(); ++i) {
            std::smatch match;
            if (!std::regex_search(file.lines[i], match, include)) continue;
            EXPECT_TRUE(fs::exists(kRoot / match[1].str()))
                << place(file, i) << "write the path from the root of the tree: " << match[1];
        }
    }
}

// So that each header is known to compile by itself: the build looks apart at those alone that have
// no source.
TEST(Tidy, SourcesIncludeTheirOwnHeaderFirst) {
    const std::regex include("#include [<\"]([^>\"]+)[>\"]");
    std::size_t looked_at = 0;
    for (const File* file : product()) {
        if (!file->path.ends_with(".cc")) continue;
        const std::string header = file->path.substr(0, file->path.size() - 3) + ".h";
        if (find_file(header) == nullptr) continue;
        ++looked_at;
        std::smatch match;
        const auto first =
            std::find_if(file->lines.begin(), file->lines.end(), [&](const std::string& line) {
                return std::regex_search(line, match, include);
            });
        ASSERT_NE(first, file->lines.end()) << file->path << ": include " << header;
        EXPECT_EQ(match[1], header) << file->path << ": include its own header before all others";
    }
    EXPECT_GT(looked_at, 50u);
}

// Of each name of the standard library, without `std::`, the header that the builds have
// precompiled (standard_headers in CMakeLists.txt).
const std::map<std::string, std::string>& precompiled_headers() {
    static const std::map<std::string, std::string> of_name = [] {
        const std::map<std::string, std::string> names = {
            {"algorithm",
             "all_of any_of binary_search clamp copy copy_if copy_n count count_if equal "
             "equal_range fill fill_n find find_if find_if_not lower_bound max max_element min "
             "min_element minmax mismatch none_of partition partition_point ranges remove_if "
             "replace reverse rotate search shuffle sort stable_sort swap_ranges transform unique "
             "upper_bound"},
            {"array", "array to_array"},
            {"atomic",
             "atomic atomic_ref atomic_thread_fence memory_order memory_order_acq_rel "
             "memory_order_acquire memory_order_relaxed memory_order_release memory_order_seq_cst"},
            {"charconv", "from_chars to_chars"},
            {"cstdint",
             "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t uintptr_t"},
            {"cstring", "memchr memcmp memcpy memmove memset strcmp strerror strlen strncmp"},
            {"functional", "function greater hash less plus ref"},
            {"map", "map multimap"},
            {"memory", "align construct_at make_shared make_unique shared_ptr unique_ptr weak_ptr"},
            {"optional", "make_optional nullopt optional"},
            {"span", "as_bytes as_writable_bytes span"},
            {"sstream", "istringstream ostringstream stringstream"},
            {"string", "getline stoi stoul stoull string to_string"},
            {"string_view", "string_view"},
            {"unordered_map", "unordered_map"},
            {"utility",
             "as_const exchange forward index_sequence make_index_sequence move pair swap"},
            {"variant", "get_if holds_alternative monostate variant visit"},
            {"vector", "vector"}};
        std::map<std::string, std::string> headers;
        for (const auto& [header, words] : names) {
            std::istringstream stream(words);
            for (std::string name; stream >> name;) headers[name] = header;
        }
        return headers;
    }();
    return of_name;
}

// All that a file includes, itself or by what it includes of the tree.
void add_includes(const File& file, std::set<std::string>& found) {
    for (const std::string& line : file.lines) {
        if (!line.starts_with("#include ")) continue;
        const std::string name = line.substr(10, line.find_first_of(">\"", 10) - 10);
        if (!found.insert(name).second) continue;
        if (const File* included = find_file(name)) add_includes(*included, found);
    }
}

std::set<std::string> precompiled_by_the_build() {
    std::set<std::string> headers;
    bool in_list = false;
    for (const std::string& line : find_file("CMakeLists.txt")->lines) {
        in_list = in_list || line.find("set(standard_headers ") != std::string::npos;
        for (std::size_t at = 0; in_list && (at = line.find('<', at)) != std::string::npos; ++at) {
            headers.insert(line.substr(at + 1, line.find('>', at) - at - 1));
        }
        in_list = in_list && !line.ends_with(")");
    }
    return headers;
}

// The name behind a `std::` that ends at `at`.
std::string name_at(const std::string& line, std::size_t at) {
    std::size_t end = at;
    while (end < line.size() && is_letter(line[end])) ++end;
    return line.substr(at, end - at);
}

// No build of a whole run of the tests shows it: they have these headers precompiled, or take many
// sources as one.
TEST(Tidy, SourcesIncludeThePrecompiledHeadersThatTheyUse) {
    std::set<std::string> known;
    for (const auto& [name, header] : precompiled_headers()) known.insert(header);
    EXPECT_EQ(known, precompiled_by_the_build());
    static const std::string kStd = "std::";
    for (const File& file : tree()) {
        if (!is_source(file)) continue;
        std::set<std::string> included;
        add_includes(file, included);
        for (std::size_t i = 0; i < file.code.size(); ++i) {
            const std::string& line = file.code[i];
            std::size_t at = 0;
            while ((at = line.find(kStd, at)) != std::string::npos) {
                at += kStd.size();
                const auto header = precompiled_headers().find(name_at(line, at));
                if (header == precompiled_headers().end()) continue;
                EXPECT_TRUE(included.contains(header->second))
                    << place(file, i) << "include <" << header->second
                    << "> for std::" << header->first;
            }
        }
    }
}

TEST(Tidy, ClientSegmentsAreReadByTheClientPortAlone) {
    expect_words_only_in({"ReaderSlot", "RingControl", "RecordHeader", "CallSlot", "RingConsumer"},
                         {"shm/", "clientlib/", "engine/client_port."}, "",
                         "only engine/client_port reads what a client may write: ask it for a "
                         "checked copy");
}

// ---- words --------------------------------------------------------------------------------------

TEST(Tidy, NoVolatileAndNoInlineAssembly) {
    for (const File& file : tree()) {
        for (std::size_t i = 0; is_source(file) && i < file.code.size(); ++i) {
            EXPECT_FALSE(has_any_word(file.code[i], {"volatile", "asm", "__asm__"}))
                << place(file, i) << "use std::atomic, in shm/, with its order in one sentence";
        }
    }
}

TEST(Tidy, AtomicsAndTheirOrdersStayInShm) {
    // wake() is the seam's: it passes on a word of shm/ without touching it.
    expect_words_only_in({"memory_order_relaxed", "memory_order_acquire", "memory_order_release",
                          "memory_order_acq_rel", "memory_order_seq_cst", "memory_order",
                          "atomic_thread_fence", "std::atomic"},
                         {"shm/", "engine/page/"}, "wake(std::atomic<",
                         "use a class of shm/ that does it and says why or, between the daemon's "
                         "threads, a queue");
}

TEST(Tidy, ReinterpretCastStaysWhereBytesBecomeStructs) {
    expect_words_only_in({"reinterpret_cast"}, {"shm/", "engine/page/", "engine/client_port."}, "",
                         "copy with memcpy, or add a view to shm/ or engine/page/");
}

TEST(Tidy, NothingIsLeftForLater) {
    // In two pieces, so that this file passes its own rule.
    const std::vector<std::string> words = {std::string("FIX") + "ME", std::string("TO") + "DO",
                                            std::string("XX") + "X", std::string("HA") + "CK"};
    for (const File& file : tree()) {
        for (std::size_t i = 0; i < file.lines.size(); ++i) {
            EXPECT_FALSE(has_any_word(file.lines[i], words))
                << place(file, i) << "do it now, or write an issue: " << file.lines[i];
        }
    }
}

TEST(Tidy, NoPathsOfOneMachine) {
    const std::vector<std::string> paths = {std::string("/wo") + "rk/", std::string("/ho") + "me/",
                                            std::string("/tmp/bu") + "ild"};
    for (const File& file : tree()) {
        for (std::size_t i = 0; i < file.lines.size(); ++i) {
            for (const std::string& path : paths) {
                const std::size_t at = file.lines[i].find(path);
                const bool absolute =
                    at != std::string::npos && (at == 0 || (!is_letter(file.lines[i][at - 1]) &&
                                                            file.lines[i][at - 1] != '.'));
                EXPECT_FALSE(absolute)
                    << place(file, i)
                    << "make it a setting, an argument or a relative path: " << file.lines[i];
            }
        }
    }
}

TEST(Tidy, GlossaryWordsAreNotReplacedByTheirLookalikes) {
    // What has a name in the glossary is called by it.
    const std::map<std::string, std::string> instead = {
        {"page_table", "page_map"},
        {"watermark", "horizon"},
        {"lsn", "csn, or a log position"},
        {"txid", "csn"},
        {"redo_log", "WAL"},
        {"branch_node", "inner node"},
        {"internal_node", "inner node"},
    };
    for (const auto& [word, better] : instead) {
        expect_words_only_in({word}, {}, "", "the glossary says " + better);
    }
}

// ---- shapes -------------------------------------------------------------------------------------

TEST(Tidy, LinesHaveAtMostAHundredLetters) {
    const auto letters = [](const std::string& line) {
        // Bytes that continue a letter of UTF-8 are not counted.
        return std::count_if(line.begin(), line.end(), [](char byte) {
            return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
        });
    };
    for (const File& file : tree()) {
        const bool free = file.path.ends_with(".md") || file.path.ends_with(".json") ||
                          in_folder(file, "tests/golden/") ||
                          in_folder(file, "clientlib/mappings/");
        for (std::size_t i = 0; !free && i < file.lines.size(); ++i) {
            EXPECT_LE(letters(file.lines[i]), 100) << place(file, i) << "break the line";
        }
    }
}

// A function is what begins in the first column with a parenthesis, opens a brace, and ends with
// "}" in the first column. Members defined within a class are short by other means.
struct FunctionFinder {
    enum class At { kOutside, kSignature, kBody, kType };
    At at = At::kOutside;
    std::size_t begin = 0;

    // Whether a function that began at `begin` ends with this line.
    bool ends_with(const std::string& line, std::size_t index) {
        if (at == At::kBody || at == At::kType) {
            if (!line.starts_with("}")) return false;
            const bool function = at == At::kBody;
            at = At::kOutside;
            return function;
        }
        if (line.empty() || line.starts_with("#")) return false;
        if (at == At::kOutside && !is_letter(line[0])) return false;
        if (at == At::kOutside) {
            static const std::regex type(
                "^(struct|class|enum|union)\\b[^(]*(\\([^)]*\\)[^(]*)*\\{$");
            begin = index;
            if (line.starts_with("namespace") || line.starts_with("extern \"")) return false;
            at = std::regex_search(line, type) ? At::kType : At::kSignature;
            if (at == At::kType) return false;
        }
        if (line.ends_with("{")) at = At::kBody;
        if (line.ends_with(";") || line.ends_with("}") || line.ends_with(":")) at = At::kOutside;
        return false;
    }
};

TEST(Tidy, FunctionsStayOnOneScreen) {
    for (const File* file : product()) {
        FunctionFinder finder;
        for (std::size_t i = 0; i < file->code.size(); ++i) {
            if (!finder.ends_with(file->code[i], i)) continue;
            // Tables of constants are long and simple.
            if (file->code[finder.begin].find('(') == std::string::npos) continue;
            EXPECT_LE(i - finder.begin, 100u)
                << place(*file, finder.begin) << "split this function into steps with names";
        }
    }
}

TEST(Tidy, FilesHoldOneThing) {
    for (const File* file : product()) {
        EXPECT_LE(file->lines.size(), 650u)
            << file->path << " has " << file->lines.size() << " lines: find its second noun";
    }
}

TEST(Tidy, HeadersBeginOnceAndSayWhatTheyAreFor) {
    for (const File* file : product()) {
        if (!file->path.ends_with(".h")) continue;
        const bool once = is_one_of("#pragma once", file->lines);
        EXPECT_TRUE(once) << file->path << ": add #pragma once";
        EXPECT_TRUE(!file->lines.empty() && file->lines[0].starts_with("// "))
            << file->path << ": begin with a sentence that says what the file is for";
    }
}

// Shared and stored structs hold nothing that means something in one process alone.
TEST(Tidy, LayoutHeadersHoldNoPointersNorContainers) {
    const std::regex pointer("[A-Za-z0-9_>]\\s*\\*+\\s*[A-Za-z_][A-Za-z0-9_]*(\\[[^\\]]*\\])?;");
    const std::regex member(
        "^\\s+(bool|std::(string|vector|span|function|string_view)\\b[^(]*;|"
        "virtual\\b)");
    for (const char* path : {"shm/layout.h", "engine/format.h"}) {
        const File* file = find_file(path);
        ASSERT_NE(file, nullptr) << path;
        for (std::size_t i = 0; i < file->code.size(); ++i) {
            const std::string& line = file->code[i];
            EXPECT_FALSE(std::regex_search(line, pointer) || std::regex_search(line, member))
                << place(*file, i) << line << "\n    store an offset, an index or a fixed array";
        }
    }
}

// ---- nothing forgotten --------------------------------------------------------------------------

TEST(Tidy, EveryTestIsFoundByTheBuild) {
    const File* build = find_file("CMakeLists.txt");
    ASSERT_NE(build, nullptr);
    const std::string glob =
        "file(GLOB test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/"
        "*_test.cc)";
    const bool globbed = std::any_of(build->lines.begin(), build->lines.end(), [&](auto& line) {
        return line.find(glob) != std::string::npos;
    });
    EXPECT_TRUE(globbed) << "CMakeLists.txt: tests are found by " << glob;
    for (const File& file : tree()) {
        const bool deeper = in_folder(file, "tests/") && file.path.ends_with("_test.cc") &&
                            file.path.find('/', 6) != std::string::npos;
        EXPECT_FALSE(deeper) << file.path << ": tests are looked for in tests/ itself";
    }
}

TEST(Tidy, EverySourceOfTheProductIsInATarget) {
    const File* build = find_file("CMakeLists.txt");
    ASSERT_NE(build, nullptr);
    std::set<std::string> words;
    for (const std::string& line : build->lines) {
        std::istringstream stream(line);
        for (std::string word; stream >> word;) {
            while (word.ends_with(")")) word.pop_back();
            words.insert(word);
        }
    }
    for (const File* file : product()) {
        EXPECT_TRUE(words.contains(file->path))
            << file->path << ": name it in its list in CMakeLists.txt";
    }
}

// "1. `clientlib/bidstore.h: Table::get` — ..." in the tours of README.md names what exists.
TEST(Tidy, ToursOfTheReadmeNameWhatExists) {
    const File* readme = find_file("README.md");
    ASSERT_NE(readme, nullptr) << "README.md is missing";
    const std::regex stop("`([a-z_/.]+\\.(?:h|cc)): ([A-Za-z_:~, ]+)`");
    const std::regex numbered("^\\s*[0-9]+\\. ");
    std::size_t stops = 0;
    bool in_tour = false;
    for (std::size_t i = 0; i < readme->lines.size(); ++i) {
        const std::string& line = readme->lines[i];
        in_tour = std::regex_search(line, numbered) || (in_tour && line.starts_with("  "));
        if (!in_tour) continue;
        for (std::sregex_iterator at(line.begin(), line.end(), stop), end; at != end; ++at) {
            ++stops;
            const File* file = find_file((*at)[1]);
            EXPECT_NE(file, nullptr) << place(*readme, i) << "no file " << (*at)[1];
            if (file == nullptr) continue;
            std::string names = (*at)[2];
            std::replace(names.begin(), names.end(), ',', ' ');
            std::istringstream stream(names);
            for (std::string name; stream >> name;) {
                const std::string last = name.substr(name.find_last_of(':') + 1);
                const std::regex defined("\\b" + last + "\\b");
                const bool found = std::any_of(
                    file->code.begin(), file->code.end(),
                    [&](const std::string& code) { return std::regex_search(code, defined); });
                EXPECT_TRUE(found) << place(*readme, i) << file->path << " has no " << name;
            }
        }
    }
    EXPECT_GE(stops, 16u) << "README.md: the tours of a read and of a write are numbered lines "
                             "like \"1. `file: function` ...\"";
}

// The lines of a patch's hunks in one file that have to be there, in order; a line each.
struct Patch {
    std::string path;
    std::vector<std::vector<std::string>> hunks;
};

std::vector<Patch> read_patches(const File& file) {
    std::vector<Patch> patches;
    for (const std::string& line : file.lines) {
        if (line.starts_with("+++ b/")) patches.push_back({line.substr(6), {}});
        if (patches.empty() || line.starts_with("--- a/")) continue;
        auto& hunks = patches.back().hunks;
        if (line.starts_with("@@ ")) hunks.emplace_back();
        const bool old = !line.empty() && (line[0] == ' ' || line[0] == '-');
        if (old && !hunks.empty()) hunks.back().push_back(line.substr(1));
    }
    return patches;
}

void expect_applies(const File& file, const Patch& patch) {
    EXPECT_FALSE(patch.hunks.empty()) << file.path << ": has no hunk";
    const File* broken = find_file(patch.path);
    EXPECT_NE(broken, nullptr) << file.path << ": changes a file that is not there";
    if (broken == nullptr) return;
    auto from = broken->lines.begin();
    for (const auto& hunk : patch.hunks) {
        const auto end = broken->lines.end();
        const auto at = std::search(from, end, hunk.begin(), hunk.end());
        EXPECT_NE(at, end) << file.path << ": " << patch.path << " has no lines like those from "
                           << "\"" << hunk.front() << "\" on any more; mend the patch";
        if (at != end) from = at + static_cast<std::ptrdiff_t>(hunk.size());
    }
}

// Until somebody runs all mutants (tests/mutants.sh), one that no longer applies proves nothing.
TEST(Tidy, EveryMutantAppliesToWhatItBreaks) {
    std::size_t patches = 0;
    for (const auto& entry : fs::directory_iterator(kRoot / "tests/mutants")) {
        const File file = read_file(entry.path());
        const std::vector<Patch> changes = read_patches(file);
        ++patches;
        EXPECT_FALSE(changes.empty()) << file.path << ": changes no file";
        EXPECT_TRUE(isupper(file.lines.front().front()))
            << file.path << ": begin with a sentence that says what is wrong with the mutant";
        for (const Patch& patch : changes) expect_applies(file, patch);
    }
    EXPECT_GE(patches, 25u);
}

TEST(Tidy, TopLevelHoldsTheFoldersOfTheDesignAndNothingElse) {
    const std::vector<std::string> known = {"CMakeLists.txt", "README.md", "shm",
                                            "engine",         "clientlib", "daemon",
                                            "systemd",        "tests",     "bench"};
    for (const auto& entry : fs::directory_iterator(kRoot)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(".") || name.starts_with("build")) continue;
        EXPECT_TRUE(is_one_of(name, known)) << name << ": put it into one of the folders";
    }
}

}  // namespace
