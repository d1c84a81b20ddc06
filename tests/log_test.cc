// The daemon's log under peers that bring about lines without end, and with a reader that stands
// still.
#include "daemon/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "shm/segment.h"

namespace bidstore {
namespace {

// Stands in for stderr until it goes.
class LogPipe {
  public:
    LogPipe() : before_(::dup(STDERR_FILENO)) {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        reader_ = Descriptor(ends[0]);
        EXPECT_EQ(::fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        EXPECT_EQ(::dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
        ::close(ends[1]);
    }
    ~LogPipe() { ::dup2(before_.number(), STDERR_FILENO); }
    std::string read_all() {
        std::string all;
        std::array<char, 4096> some;
        for (ssize_t got = 0; (got = ::read(reader_.number(), some.data(), some.size())) > 0;) {
            all.append(some.data(), static_cast<std::size_t>(got));
        }
        return all;
    }

  private:
    Descriptor before_;
    Descriptor reader_;
};

std::size_t lines_of(const std::string& text) {
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

// Without the look before the write both threads of the daemon stood still in it.
TEST(Log, ReaderThatStandsStillHoldsNobodyUp) {
    LogPipe pipe;
    ::alarm(10);
    for (int i = 0; i < 5'000; ++i) log_line(kLogInfo, std::string(100, 'x'));
    ::alarm(0);
    const std::size_t told = lines_of(pipe.read_all());
    EXPECT_GT(told, 100u);
    EXPECT_LT(told, 5'000u);
    log_line(kLogInfo, "again");
    EXPECT_EQ(pipe.read_all(),
              "<6>again (" + std::to_string(5'000 - told) + " lines before found no room)\n");
    log_line(kLogInfo, std::string(10'000, 'x'));
    EXPECT_EQ(pipe.read_all().size(), kLogLineBytesMax);
}

TEST(Log, AUserGetsSoManyLinesASecondAndTheOthersTheirs) {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    LogPipe pipe;
    PeerLog log;
    for (int i = 0; i < 1'000; ++i) log.warn(7, "refused", 5 * kSecond);
    EXPECT_EQ(lines_of(pipe.read_all()), PeerLog::kLinesPerUser);
    log.warn(8, "refused", 5 * kSecond);
    EXPECT_EQ(pipe.read_all(), "<4>refused\n");
    log.warn(7, "refused", 6 * kSecond);
    EXPECT_EQ(pipe.read_all(), "<4>refused (and 992 more of user 7 before it)\n");
    for (std::uint32_t user = 0; user < 3'000; ++user) log.warn(user, "refused", 8 * kSecond);
    EXPECT_EQ(lines_of(pipe.read_all()), PeerLog::kLinesOfAll);
}

}  // namespace
}  // namespace bidstore
