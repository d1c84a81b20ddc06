// bidstored: the command line.
#include <CLI/CLI.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>

#include "daemon/access.h"
#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/service.h"
#include "daemon/verify_command.h"
#include "shm/layout.h"

namespace bidstore {
namespace {

struct Arguments {
    std::string config_file;
    std::string dev_directory;
    Overrides overrides;
    bool check = false;
    bool verify = false;
    bool rebuild = false;
    RebuildChoice choice;
    bool online = false;
    OnlineChoice online_choice;
};

void describe(CLI::App& app, Arguments& arguments) {
    app.description(
        "The storage daemon of bidstore: owns the data file, serves bidders on this host.");
    app.set_version_flag("--version", std::string("bidstored " BIDSTORE_VERSION ", ABI version ") +
                                          std::to_string(kAbiVersion));
    auto* mode = app.add_option_group("mode", "one of")->require_option(1);
    mode->add_option("--config", arguments.config_file,
                     "read the settings from this TOML file (example: bidstored.toml)")
        ->type_name("FILE");
    mode->add_option(
            "--dev", arguments.dev_directory,
            "for development: no root, no huge pages, small, everything in DIR; the socket "
            "is DIR/bidstore.sock")
        ->type_name("DIR");
    app.add_option("--set", arguments.overrides,
                   "a setting that wins over the file; may be repeated: --set pool_bytes=1GiB")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    app.add_flag("--check", arguments.check, "say whether the settings are right, start nothing");
    auto* verify = app.add_flag(
        "--verify", arguments.verify,
        "look through the files of a stopped store, log and all, and print each broken "
        "rule with page and table; nothing is changed, nothing is started");
    auto* rebuild =
        app.add_flag(
               "--rebuild", arguments.rebuild,
               "with --verify: restore what can be made anew from the pages that are there, "
               "metadata, bitmaps and inner nodes; where rows are lost, say which, and change "
               "nothing")
            ->needs(verify);
    app.add_flag("--dry-run", arguments.choice.dry_run,
                 "with --rebuild: say what would be done, and change nothing")
        ->needs(rebuild);
    app.add_flag(
           "--accept-loss", arguments.choice.accept_loss,
           "with --rebuild: go on where rows are lost, or where erased ones may be back; and "
           "where a page of the catalog is lost: the pages of the tables that it named become "
           "free, for their rows cannot be read without the catalog; keep a copy of the "
           "files")
        ->needs(rebuild);
    auto* online =
        app.add_flag("--online", arguments.online,
                     "with --verify: beside the daemon that has the files, its last checkpoint: "
                     "every page, the catalog and all trees; not the log, leaked pages, trees of "
                     "dropped tables, or large values against their rows' own checksums")
            ->needs(verify)
            ->excludes(rebuild);
    app.add_option("--rate", arguments.online_choice.mib_per_second,
                   "with --online: MiB to read in a second, at most (64)")
        ->type_name("MIB")
        ->check(CLI::Range(1, 100'000))
        ->needs(online);
    app.add_option("--deadline", arguments.online_choice.deadline_seconds,
                   "with --online: give up after so many seconds")
        ->type_name("SECONDS")
        ->check(CLI::Range(1, 10'000'000))
        ->needs(online);
    app.footer(
        "Exit codes: 0 stopped as asked; 1 a setting is wrong; 2 the host is not as needed "
        "(locked,\n"
        "missing rights, no disk); 3 the log failed or the files are damaged.\n"
        "With --verify: 0 sound; 3 rows are lost or wrong; 4 only space is lost, or one of two\n"
        "copies, and no row is concerned; 2 reads failed, so that nobody knows, or as above; 1 as\n"
        "above.\n"
        "With --rebuild: 0 sound now; 3 rows are lost, and nothing was changed, or nothing can be\n"
        "done; 4 with --dry-run: something to do, and no row is lost; 1 and 2 as above.\n"
        "With --online: as with --verify; 2 also when the deadline came before anything was "
        "found.\n"
        "SIGTERM and SIGINT stop it with a final checkpoint.");
}

Result<Config> read_settings(const Arguments& arguments) {
    if (arguments.dev_directory.empty()) {
        return load_config(arguments.config_file, arguments.overrides);
    }
    return dev_config(arguments.dev_directory, arguments.overrides);
}

ExitCode fail(const Failure& failure) {
    log_line(kLogError, failure.what);
    return exit_code_of(failure.code);
}

// The data are their owner's alone, whatever the umask; the directory above, with the socket, is as
// the umask says. One of ours that is there already becomes private too.
Status make_private(const std::string& directory) {
    namespace fs = std::filesystem;
    std::error_code error;
    fs::create_directories(fs::path(directory).parent_path(), error);
    if (!error && ::mkdir(directory.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
        error.assign(errno, std::generic_category());
    }
    struct stat found {};
    if (!error && ::stat(directory.c_str(), &found) == 0 && found.st_uid == ::geteuid()) {
        fs::permissions(directory, fs::perms::owner_all, error);
    }
    if (!error) return {};
    return {Error::kIoError, directory + ": cannot be made, or made private (mode 0700): " +
                                 error.message() + " (choose another --dev DIR)"};
}

ExitCode run(const Arguments& arguments) {
    const Result<Config> config = read_settings(arguments);
    if (!config) return fail(config.failure());
    if (arguments.check) {
        const auto rules = AccessRules::resolve(*config);
        if (!rules) return fail(rules.failure());
        std::cout << "the settings are right\n";
        return ExitCode::kClean;
    }
    if (arguments.online) return run_verify_online(*config, arguments.online_choice);
    if (arguments.rebuild) return run_rebuild(*config, arguments.choice);
    if (arguments.verify) return run_verify(*config);
    if (!arguments.dev_directory.empty()) {
        if (Status made = make_private(config->directory); !made) return fail(made.failure());
    }
    return run_service(*config);
}

}  // namespace
}  // namespace bidstore

int main(int argument_count, char** argument_values) {
    bidstore::Arguments arguments;
    CLI::App app;
    bidstore::describe(app, arguments);
    try {
        app.parse(argument_count, argument_values);
    } catch (const CLI::ParseError& error) {
        // --help and --version arrive here too, with code 0.
        return app.exit(error) == 0 ? 0 : static_cast<int>(bidstore::ExitCode::kConfig);
    }
    return static_cast<int>(bidstore::run(arguments));
}
