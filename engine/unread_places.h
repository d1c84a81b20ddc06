// Places of a store's files that could not be read, in the words of the disk seam (io_failure()),
// each once: the first hundred, and how often a read failed behind these.
//
// Who: whoever has to say in the end that something was not read. One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bidstore {

class UnreadPlaces {
  public:
    static constexpr std::size_t kMost = 100;

    // True: it is a new one of these.
    bool add(const std::string& what) {
        ++times_;
        const bool known = std::any_of(places_.begin(), places_.end(),
                                       [&](const Place& place) { return place.what == what; });
        if (known) return false;
        if (places_.size() < kMost) {
            places_.push_back({what});
            return true;
        }
        ++more_;
        return false;
    }
    void add(const UnreadPlaces& others) {
        const std::uint64_t times = times_ + others.times_;
        for (const Place& place : others.places_) add(place.what);
        times_ = times;
        more_ += others.more_;
    }
    // How often a read failed, also at the same place.
    std::uint64_t times() const { return times_; }

    // Somebody said this: the places that it names need no word of their own.
    void said(const std::string& words) {
        for (Place& place : places_) {
            place.said = place.said || words.find(place.what) != std::string::npos;
        }
    }
    void each_unsaid(const std::function<void(const std::string& what)>& say) const {
        for (const Place& place : places_) {
            if (!place.said) say(place.what);
        }
        if (more_ > 0) say("and " + std::to_string(more_) + " more reads failed");
    }

  private:
    struct Place {
        std::string what;
        bool said = false;
    };
    std::vector<Place> places_;
    std::uint64_t times_ = 0;
    std::uint64_t more_ = 0;
};

}  // namespace bidstore
