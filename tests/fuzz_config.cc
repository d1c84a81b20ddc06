// The daemon's configuration from any text: a configuration whose relations hold, or an error.
#include "daemon/config.h"
#include "tests/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    FuzzInput input(data, size_bytes);
    const InputFile file(input.rest());
    const Result<Config> config = load_config(file.path(), {});
    if (!config.ok()) {
        CHECK(!config.failure().what.empty());
        return 0;
    }
    // What is made of it fits its types.
    const PoolShape shape = pool_shape(*config);
    CHECK_OP(shape.frame_count, >, 2000u);
    CHECK_OP(shape.page_count, >=, 2048u);
    CHECK_OP(shape.slot_count, >, 0u);
    CHECK_OP(shape.slot_count / config->max_clients, ==, config->slots_per_client);
    const EngineOptions options = engine_options(*config);
    CHECK_OP(options.journal_bytes, <=, config->pool_bytes / 2);
    return 0;
}
