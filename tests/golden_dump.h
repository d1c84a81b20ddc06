// What the tests of fixed layouts share: structs as lists of fields, and the golden files that
// their dumps are compared with.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace bidstore {

struct Field {
    std::string name;
    std::size_t offset;
    std::size_t size_bytes;
};
#define FIELD(Type, field) \
    Field { #field, offsetof(Type, field), sizeof(Type::field) }

inline const std::string kSourceRoot = BIDSTORE_SOURCE_DIR;

inline std::string dump_fields(const std::vector<Field>& fields) {
    std::ostringstream out;
    for (const Field& field : fields) {
        out << "  " << field.offset << " " << field.name << " " << field.size_bytes << "\n";
    }
    return out.str();
}

// Where the last field ends; each begins where the one before it ends, or the test fails.
inline std::size_t end_without_gaps(const std::string& type, const std::vector<Field>& fields) {
    std::size_t end = 0;
    for (const Field& field : fields) {
        EXPECT_EQ(field.offset, end) << type << "." << field.name;
        end = field.offset + field.size_bytes;
    }
    return end;
}

inline std::string read_text(const std::string& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file.good()) << path;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// Compares with tests/golden/NAME, which BIDSTORE_UPDATE_GOLDEN=1 writes anew.
inline void expect_golden(const std::string& name, const std::string& dump) {
    const std::string path = kSourceRoot + "/tests/golden/" + name;
    if (std::getenv("BIDSTORE_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << dump;
    EXPECT_EQ(read_text(path), dump)
        << "what " << name << " describes has changed; if that is meant, run this test once with "
        << "BIDSTORE_UPDATE_GOLDEN=1";
}

}  // namespace bidstore
