// bidstored, but for its disk, which is a FailpointDisk: failpoint_daemon --dev DIR [--set K=V]...
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "daemon/config.h"
#include "daemon/service.h"
#include "tests/failpoint_disk.h"

int main(int argument_count, char** argument_values) {
    const std::vector<std::string> words(argument_values + 1, argument_values + argument_count);
    bidstore::Overrides settings;
    for (std::size_t i = 3; i < words.size(); i += 2) settings.push_back(words[i]);
    if (words.size() < 2 || words[0] != "--dev") return 1;
    const std::string& directory = words[1];
    const auto config = bidstore::dev_config(directory, settings);
    if (!config.ok()) {
        std::fprintf(stderr, "%s\n", config.failure().what.c_str());
        return 1;
    }
    ::mkdir(config->directory.c_str(), S_IRWXU);  // there already after the first start
    const auto end = bidstore::run_service(*config, [&](std::unique_ptr<bidstore::Disk> disk) {
        return std::make_unique<bidstore::FailpointDisk>(std::move(disk), directory);
    });
    return static_cast<int>(end);
}
