#include "bench/compare_engine.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

namespace bench {

namespace {
constexpr std::uint32_t kRowsPerLoadGroup = 512;
}  // namespace

void Engine::load() {
    const Shape& shape = options_.shape;
    const auto into = session({.sync = false, .depth = kRowsPerLoadGroup});
    for (std::uint64_t entity = 0; entity < shape.entity_count; ++entity) {
        for (std::uint64_t i = entity; i < shape.rows; i += shape.entity_count) {
            into->submit({Write::Kind::kRow, {entity, shape.time(i)}, i});
            into->acknowledged(false);
        }
    }
    const auto finish = [&] {
        while (into->acknowledged(true) > 0) {
        }
    };
    finish();  // a group has rows or adds, not both
    for (std::uint64_t i = 0; i < kCounters; ++i) into->submit({Write::Kind::kAdd, {i, 0}, 0});
    finish();
}

pid_t start_server(const std::vector<std::string>& command, const std::string& log) {
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t server = ::fork();
    if (server < 0) fail("fork failed");
    if (server > 0) return server;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (::getppid() != parent || file < 0) ::_exit(127);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    ::execvp(words[0], words.data());
    const std::string failure = command[0] + ": cannot be run\n";
    if (::write(file, failure.data(), failure.size()) < 0) ::_exit(126);
    ::_exit(127);
}

void end_server(pid_t server) {
    ::kill(server, SIGKILL);
    ::waitpid(server, nullptr, 0);
}

}  // namespace bench
