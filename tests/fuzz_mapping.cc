// The mapping of an import from any text: tables with schemas, or an error.
#include "clientlib/import_mapping.h"
#include "tests/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    FuzzInput input(data, size_bytes);
    const Result<Mapping> mapping = parse_mapping(input.text(), "fuzz.toml");
    if (!mapping.ok()) {
        CHECK(!mapping.failure().what.empty());
        return 0;
    }
    for (const TableMapping& table : mapping->tables) {
        const Result<Schema> schema = mapping_schema(table);
        if (!schema.ok()) continue;
        // As the catalog keeps it.
        const std::string encoded = schema->encode();
        const Result<Schema> again =
            Schema::decode(std::as_bytes(std::span(encoded.data(), encoded.size())));
        CHECK(again.ok());
        CHECK(again->encode() == encoded);
    }
    return 0;
}
