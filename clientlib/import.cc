#include "clientlib/import.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "clientlib/import_csv.h"

namespace bidstore {
namespace {

constexpr std::size_t kExamples = 3;  // refused records kept for the summary

bool to_file(const std::string& policy) { return policy != "stop" && policy != "skip"; }

// One line, whatever was quoted; of CSV also without quotes, between which more lines could belong
// to it.
std::string comment_line(const std::string& what, bool csv) {
    std::string line = std::string(csv ? kRefusedCsvReason : "# ") + what;
    std::replace(line.begin(), line.end(), '\n', ' ');
    if (csv) std::replace(line.begin(), line.end(), '"', '\'');
    return line;
}

}  // namespace

std::string errors_for(const std::string& policy, std::size_t index) {
    return to_file(policy) && index > 0 ? policy + "." + std::to_string(index + 1) : policy;
}

Status errors_beside_inputs(const std::string& policy, const std::vector<std::string>& inputs,
                            const std::string& mapping) {
    if (!to_file(policy)) return {};
    std::vector<std::string> read = inputs;
    read.push_back(mapping);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        const std::string written = errors_for(policy, i);
        struct stat target {};
        if (::stat(written.c_str(), &target) != 0 || !S_ISREG(target.st_mode)) continue;
        for (const std::string& name : read) {
            struct stat source {};
            const int found = name == "-" ? ::fstat(STDIN_FILENO, &source)
                                          : ::stat(name.c_str(), &source);
            if (found != 0 || source.st_dev != target.st_dev || source.st_ino != target.st_ino) {
                continue;
            }
            return {Error::kInvalid, "--errors " + policy + ": refused lines would be written to " +
                                         written + ", which is read (" +
                                         (name == "-" ? "standard input" : name) +
                                         "): name another file"};
        }
    }
    return {};
}

Result<RefusalLog> RefusalLog::make(const std::string& policy, const std::string& source) {
    RefusalLog log;
    log.source_ = source == "-" ? "standard input" : source;
    log.stop_ = policy == "stop";
    if (!to_file(policy)) return log;
    log.path_ = policy;
    log.file_.reset(std::fopen(policy.c_str(), "we"));
    if (!log.file_) {
        return {Error::kIoError, policy + ": cannot be written: " + std::strerror(errno)};
    }
    return log;
}

Status RefusalLog::refuse(std::uint64_t line, std::string_view text, const Failure& reason,
                          std::string_view preamble) {
    const std::string what = source_ + ":" + std::to_string(line) + ": " + reason.what;
    ++count_;
    if (stop_) return {reason.code, what};
    if (examples_.size() < kExamples) examples_.push_back(what);
    if (!file_) return {};
    std::string out;
    const bool csv = !preamble.empty();
    if (count_ == 1 && csv) out.append(kRefusedCsvMark).append("\n").append(preamble).append("\n");
    out.append(comment_line(what, csv)).append("\n").append(text).append("\n");
    if (std::fwrite(out.data(), 1, out.size(), file_.get()) == out.size()) return {};
    return {Error::kIoError, path_ + ": cannot be written: " + std::strerror(errno)};
}

Status RefusalLog::finish() {
    if (!file_ || std::fflush(file_.get()) == 0) return {};
    return {Error::kIoError, path_ + ": cannot be written: " + std::strerror(errno)};
}

namespace {

// The current record to the sink; a failure of kInvalid is the record's own.
Status take_record(RecordSource& source, RowMapper& mapper, RowSink& sink, ImportTotals& totals,
                   Failure& refused) {
    auto rows = mapper.map();
    if (!rows) {
        refused = rows.failure();
        return {};
    }
    totals.rows += rows->size();
    return sink.write({*rows, source.line(), source.text()});
}

Status read_all(RecordSource& source, RowMapper& mapper, RowSink& sink, RefusalLog& refusals,
                ImportTotals& totals, const std::function<void(const ImportTotals&)>& progress,
                bool& sink_failed) {
    for (;;) {
        auto more = source.next();
        if (more.ok() && !*more) return {};
        if (!more && more.error() != Error::kInvalid) return more.failure();
        ++totals.records;
        Failure refused = more.ok() ? Failure{} : more.failure();
        if (more.ok()) {
            Status taken = take_record(source, mapper, sink, totals, refused);
            sink_failed = !taken.ok();
            if (!taken) return taken;
        }
        if (refused.code != Error::kOk) {
            Status go_on =
                refusals.refuse(source.line(), source.text(), refused, source.preamble());
            if (!go_on) return go_on;
        }
        totals.refused = refusals.count();
        totals.bytes_read = source.bytes_read();
        if (progress) progress(totals);
    }
}

}  // namespace

Status run_import(RecordSource& source, RowMapper& mapper, RowSink& sink, RefusalLog& refusals,
                  ImportTotals& totals,
                  const std::function<void(const ImportTotals&)>& progress) {
    totals.bytes_total = source.bytes_total();
    bool sink_failed = false;
    Status read = read_all(source, mapper, sink, refusals, totals, progress, sink_failed);
    // What was good in front of a failure is written all the same.
    Status finished = sink.finish();
    Status logged = refusals.finish();
    totals.refused = refusals.count();
    totals.bytes_read = source.bytes_read();
    if (!read && !finished && !sink_failed) {
        return {read.error(), read.failure().what + "; and of what was read before, not all is "
                                                    "written: " + finished.failure().what};
    }
    if (!read) return read;
    return finished.ok() ? logged : finished;
}

std::string grouped(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
    return digits;
}

std::string progress_line(const ImportTotals& totals, double elapsed_seconds) {
    const double rate =
        elapsed_seconds > 0 ? static_cast<double>(totals.rows) / elapsed_seconds : 0;
    std::string line = grouped(totals.rows) + " rows, " +
                       grouped(static_cast<std::uint64_t>(rate)) + " rows/s";
    if (totals.refused > 0) line += ", " + grouped(totals.refused) + " refused";
    if (totals.bytes_total == 0 || totals.bytes_read == 0) return line;
    const double part =
        static_cast<double>(totals.bytes_read) / static_cast<double>(totals.bytes_total);
    const auto left = static_cast<std::uint64_t>(elapsed_seconds / part * (1 - part) + 0.5);
    const std::string seconds = std::to_string(left % 60);
    return line + ", " + std::to_string(static_cast<int>(100 * part)) + " %, " +
           std::to_string(left / 60) + ":" + (seconds.size() < 2 ? "0" : "") + seconds + " left";
}

}  // namespace bidstore
