// bidstored, but for its disk, which is a FailpointDisk:
//     failpoint_daemon --dev DIR [--set K=V]... [--verify [--online]]
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "daemon/config.h"
#include "daemon/service.h"
#include "daemon/verify_command.h"
#include "tests/failpoint_disk.h"

int main(int argument_count, char** argument_values) {
    const std::vector<std::string> words(argument_values + 1, argument_values + argument_count);
    bidstore::Overrides settings;
    bool verify = false;
    bool online = false;
    for (std::size_t i = 2; i < words.size(); ++i) {
        verify = verify || words[i] == "--verify";
        online = online || words[i] == "--online";
        if (words[i] == "--set" && i + 1 < words.size()) settings.push_back(words[++i]);
    }
    if (words.size() < 2 || words[0] != "--dev") return 1;
    const std::string& directory = words[1];
    const auto config = bidstore::dev_config(directory, settings);
    if (!config.ok()) {
        std::fprintf(stderr, "%s\n", config.failure().what.c_str());
        return 1;
    }
    ::mkdir(config->directory.c_str(), S_IRWXU);  // there already after the first start
    const bidstore::DiskOver over = [&](std::unique_ptr<bidstore::Disk> disk) {
        return std::make_unique<bidstore::FailpointDisk>(std::move(disk), directory);
    };
    if (online) return static_cast<int>(bidstore::run_verify_online(*config, {}, over));
    if (verify) return static_cast<int>(bidstore::run_verify(*config, 64u << 20, over));
    return static_cast<int>(bidstore::run_service(*config, over));
}
