// The seed of a test that begins somewhere else each time: SEED=N of the environment, to repeat
// one, or one of chance. Who takes it prints it with a failure (SCOPED_TRACE).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace bidstore {

inline std::uint64_t seed_of_chance() {
    const char* const set = std::getenv("SEED");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : std::random_device{}();
}

inline std::string seed_text(std::uint64_t seed) { return "SEED=" + std::to_string(seed); }

}  // namespace bidstore
