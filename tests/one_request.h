// A simulated client that has at most one transaction on its way.
//
// Who: tests whose writer goes on beside something else, round by round.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "tests/sim.h"

namespace bidstore {

class OneRequest {
  public:
    explicit OneRequest(SimClient& client) : client_(client) {}

    bool on_its_way() const { return on_its_way_; }
    // False: there was no room for it.
    bool submit(std::span<const std::byte> transaction) {
        const auto token = client_.submit(transaction);
        if (token) token_ = *token;
        return on_its_way_ = token.has_value();
    }
    // Once, when it is there.
    std::optional<Answer> answer() {
        if (!on_its_way_) return {};
        auto answer = client_.answer(token_);
        if (answer) on_its_way_ = false;
        return answer;
    }

  private:
    SimClient& client_;
    std::uint32_t token_ = 0;
    bool on_its_way_ = false;
};

}  // namespace bidstore
